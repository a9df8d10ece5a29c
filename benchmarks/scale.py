"""What 1 000 testbeds, 100 subjects and 1 000 strategies each would take: `python -m benchmarks.scale`.

Parts, each by itself: `store` (bytes and rows per round, and what indexes take, on SQLite and, with `--postgres URL`,
on PostgreSQL), `recommender` (memory and refresh over more and more strategies), `question` (a new one over more and
more strategies of one subject) and `scheduler` (Dask hands out rounds that take no time to workers that stand for
testbeds; needs `distributed`). Evidence is the committed one, copied under other subjects or names. docs/scale.md has
the figures and what follows from them.
"""

import argparse
import asyncio
import gc
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Connection, inspect, text

from catalog.evidence.database import Database, open_database
from catalog.exchange import import_files
from catalog.statistics.log_estimate import OFTEN
from recommender.answer.respond import respond
from recommender.answer.tabulation import tabulate
from recommender.evidence.snapshots import Snapshots
from recommender.ranking import Budgets, LatencyBudget, recommend
from recommender.schemas import RecommendRequest

ROOT = Path(__file__).parents[1]
EVIDENCE = ROOT / "catalogs" / "embedded-evidence.json.gz"
# What one copy of the committed evidence holds.
STRATEGIES, ROUNDS = 72, 360
# What belongs to one round, and what changes in a copy of a row; an id grows by so much with each copy.
_OFFSET = 1_000_000
_PER_ROUND = ("measurement", "tier_run", "link_probe", "sample", "sample_part", "sample_link")
_COPIED = ("artifact", "strategy", *_PER_ROUND)
# Beyond the ids of 900 copies; a round may have no larger number than a million.
_NEW_ROUND = 900_000
_IDS = {"id", "measurement_id", "sample_id"}
_IDLE_S = 10.0
_NAMES = {"subject", "key", "artifact_key", "latency_key"}


def copy_evidence(connection: Connection, copies: int) -> None:
    """Add so many copies of what the database holds, each under subjects and keys of its own.

    Accuracies are not copied: copies of an operator share them.
    """
    for table in _COPIED:
        columns = [column["name"] for column in inspect(connection).get_columns(table)]
        for copy in range(1, copies + 1):
            values = [_copied(name, copy) for name in columns]
            quoted = ", ".join(f'"{name}"' for name in columns)
            own = "WHERE " + _of_original(columns)
            connection.execute(text(f"INSERT INTO {table} ({quoted}) SELECT {', '.join(values)} FROM {table} {own}"))


def _copied(column: str, copy: int) -> str:
    if column in _IDS:
        return f'"{column}" + {copy * _OFFSET}'
    return f"\"{column}\" || '-{copy}'" if column in _NAMES else f'"{column}"'


def _of_original(columns: list[str]) -> str:
    name = next(name for name in ("id", "sample_id") if name in columns)
    return f"{name} < {_OFFSET}"


@contextmanager
def filled(location: str, copies: int) -> Iterator[Database]:
    """Open a database with the committed evidence and so many copies of it."""
    with open_database(location, create=True) as database:
        import_files(database, [EVIDENCE])
        with database.engine.begin() as connection:
            copy_evidence(connection, copies)
        yield database


def sizes(database: Database) -> Mapping[str, tuple[int, int, int]]:
    """Return for each table of a round its rows, and the bytes of its rows and of its indexes."""
    with database.engine.connect() as connection:
        postgres = database.engine.dialect.name == "postgresql"
        measure = _postgres_size if postgres else _sqlite_size
        return {
            table: (
                int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()),
                *measure(connection, table),
            )
            for table in _PER_ROUND
        }


def _sqlite_size(connection: Connection, table: str) -> tuple[int, int]:
    query = (
        "SELECT coalesce(sum(d.pgsize), 0) FROM dbstat d JOIN sqlite_schema s ON s.name = d.name WHERE s.tbl_name = :t"
    )
    by_type = [
        int(connection.execute(text(f"{query} AND s.type = :kind"), {"t": table, "kind": kind}).scalar_one())
        for kind in ("table", "index")
    ]
    return by_type[0], by_type[1]


def _postgres_size(connection: Connection, table: str) -> tuple[int, int]:
    connection.execute(text(f"ANALYZE {table}"))
    query = f"SELECT pg_table_size('{table}'), pg_indexes_size('{table}')"
    rows, indexes = connection.execute(text(query)).one()
    return int(rows), int(indexes)


def measure_store(location: str, copies: int) -> None:
    """Print what a round takes in the database, table by table."""
    started = time.process_time()
    with filled(location, copies) as database:
        by_table, rounds = sizes(database), ROUNDS * (copies + 1)
        name = database.engine.dialect.name
    print(f"{name}: {rounds} rounds, {time.process_time() - started:.0f} s of CPU here to write them")
    print(f"  {'table':<12} {'rows/round':>10} {'bytes/round':>12} {'indexes':>9}")
    for table, (rows, size, indexes) in by_table.items():
        print(f"  {table:<12} {rows / rounds:10.1f} {size / rounds:12.0f} {indexes / rounds:9.0f}")
    whole = [sum(size[place] for size in by_table.values()) / rounds for place in range(3)]
    print(f"  {'together':<12} {whole[0]:10.1f} {whole[1]:12.0f} {whole[2]:9.0f}")


def measure_recommender(copies: int) -> None:
    """Print what the recommender takes over so many copies, each figure from a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        database = f"{directory}/scale.db"
        with filled(database, copies):
            pass
        command = [sys.executable, "-m", "benchmarks.scale", "--read", database]
        said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        figures = json.loads(said)
        size = Path(database).stat().st_size
    strategies = STRATEGIES * (copies + 1)
    print(
        f"{strategies:>7} strategies, {figures['samples']:>8} samples, file {size / 2**20:6.0f} MiB: read in "
        f"{figures['read_s']:6.1f} s, memory {figures['memory_mib']:6.0f} MiB, refreshed after one new round in "
        f"{figures['refresh_s']:5.1f} s, tabulated {figures['tabulated_s']:5.1f} s a subject, a new question "
        f"{figures['question_ms']:.1f} ms",
        flush=True,
    )


def read(location: str) -> dict[str, float]:
    """Return what reading, refreshing and answering take in this process, in seconds of CPU."""
    before = _resident_mib()
    snapshots = Snapshots(location)
    started = time.process_time()
    evidence = snapshots.current()
    read_s, memory = time.process_time() - started, _resident_mib() - before
    subjects = list(evidence.subjects)
    samples = sum(
        candidate.samples for members in evidence.subjects.values() for own in members for candidate in own.candidates
    )
    started = time.process_time()
    first = type(evidence).of(list(evidence.subjects[subjects[0]]), evidence.slos.values())
    tabulate(first, lambda: True)
    tabulated_s = time.process_time() - started
    questions = [
        RecommendRequest(subject=subjects[0], max_latency_s=0.05 + number * 1e-5, max_accuracy_drop_pp=1.0)
        for number in range(200)
    ]
    started = time.process_time()
    for question in questions:
        respond(evidence, question)
    question_ms = (time.process_time() - started) / len(questions) * 1000
    with open_database(location) as database, database.engine.begin() as connection:
        add_round(connection)
    gc.collect()
    started = time.process_time()
    while snapshots.current() is evidence:
        time.sleep(0.05)
    refresh_s = time.process_time() - started
    return {
        "read_s": read_s,
        "memory_mib": memory,
        "samples": samples,
        "tabulated_s": tabulated_s,
        "question_ms": question_ms,
        "refresh_s": refresh_s,
    }


def add_round(connection: Connection) -> None:
    """Store one more round of the first measured strategy, with everything below it: a copy of its last one."""
    last = connection.execute(text("SELECT latency_key, MAX(round) FROM measurement WHERE id < 1000000")).one()
    where = f"(SELECT id FROM measurement WHERE latency_key = '{last[0]}' AND round = {last[1]})"
    sources = {
        "measurement": f"id IN {where}",
        **dict.fromkeys(("tier_run", "link_probe", "sample"), f"measurement_id IN {where}"),
        **dict.fromkeys(
            ("sample_part", "sample_link"), f"sample_id IN (SELECT id FROM sample WHERE measurement_id IN {where})"
        ),
    }
    for table, condition in sources.items():
        columns = [column["name"] for column in inspect(connection).get_columns(table)]
        values = [f'"{name}" + {_NEW_ROUND}' if name in _IDS | {"round"} else f'"{name}"' for name in columns]
        quoted = ", ".join(f'"{name}"' for name in columns)
        connection.execute(
            text(f"INSERT INTO {table} ({quoted}) SELECT {', '.join(values)} FROM {table} WHERE {condition}")
        )


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_question(strategies: int, questions: int = 20) -> None:
    """Print what a new question takes over one subject with so many strategies."""
    with tempfile.TemporaryDirectory() as directory:
        with filled(f"{directory}/question.db", 0):
            pass
        evidence = Snapshots(f"{directory}/question.db").current()
    own = evidence.select("fashion-resnet").candidates
    candidates = [
        replace(candidate, operator=f"{candidate.operator}-{copy}")
        for copy in range(-(-strategies // len(own)))
        for candidate in own
    ][:strategies]

    def ask(number: int) -> None:
        recommend(candidates, Budgets(latency=(LatencyBudget(90.0, 0.05 + number * 1e-5),), max_accuracy_drop_pp=1.0))

    started = time.process_time()
    ask(0)
    first_s = time.process_time() - started
    for number in range(1, OFTEN + 2):
        ask(number)
    started = time.process_time()
    for number in range(OFTEN + 2, OFTEN + 2 + questions):
        ask(number)
    new_ms = 1000 * (time.process_time() - started) / questions
    print(f"{strategies:>5} strategies of one subject: the first question {first_s:6.1f} s, a new one {new_ms:6.1f} ms")


def fake_round(latency_key: str, number: int) -> tuple[str, int]:
    """Stand for a round that takes no time: what is left is the way there and back."""
    return latency_key, number


def run_scheduler(addresses: "multiprocessing.Queue[str]") -> None:
    """Run a scheduler in this process, set as that of a fleet is, and say where."""
    import dask.config
    from distributed import Scheduler

    from runner.measuring.fleet.dask import QUIET

    async def serve() -> None:
        async with Scheduler(port=0, dashboard=False, dashboard_address=":0", host="127.0.0.1") as scheduler:
            addresses.put(scheduler.address)
            await scheduler.finished()

    with dask.config.set(QUIET):
        asyncio.run(serve())


async def hand_out(scheduler: str, process: psutil.Process, testbeds: int, rounds: int) -> Mapping[str, float]:
    """Return how long rounds take through a scheduler to so many workers, of which each is one testbed.

    Each testbed has one round at a time, as in a fill. `process` is that of the scheduler.
    """
    from distributed import Client, Worker

    from runner.measuring.fleet.dask import HEARTBEAT

    # Workers of one process wait for each other, and say so.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    workers = [
        Worker(
            scheduler,
            nthreads=1,
            resources={f"testbed:lab-{number}": 1},
            dashboard=False,
            memory_limit=0,
            heartbeat_interval=HEARTBEAT,
        )
        for number in range(testbeds)
    ]
    # Not all at once: each connects both ways.
    for first in range(0, testbeds, 50):
        await asyncio.gather(*workers[first : first + 50])
    async with Client(scheduler, asynchronous=True) as client:
        started, cpu, scheduling = time.perf_counter(), time.process_time(), sum(process.cpu_times()[:2])
        number = 0
        while number < rounds:
            futures = [
                client.submit(
                    fake_round, f"{task:064x}", task, pure=False, resources={f"testbed:lab-{task % testbeds}": 1}
                )
                for task in range(number, min(rounds, number + testbeds))
            ]
            await client.gather(futures)
            number += len(futures)
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
        scheduling = sum(process.cpu_times()[:2]) - scheduling
        idle = sum(process.cpu_times()[:2])
        await asyncio.sleep(_IDLE_S)
        idle = (sum(process.cpu_times()[:2]) - idle) / _IDLE_S
    await asyncio.gather(*(worker.close() for worker in workers))
    return {
        "rounds_per_s": rounds / took,
        "cpu_ms": 1000 * cpu / rounds,
        "scheduler_ms": 1000 * scheduling / rounds,
        "idle_pct": 100 * idle,
        "memory_mib": process.memory_info().rss / 2**20,
    }


def measure_scheduler(testbeds: int, rounds: int) -> None:
    """Print how many rounds a second the scheduler hands out, and what it takes of a processor."""
    import dask.config

    from runner.measuring.fleet.dask import QUIET

    context = multiprocessing.get_context("spawn")
    addresses = context.Queue()
    process = context.Process(target=run_scheduler, args=(addresses,), daemon=True)
    process.start()
    try:
        with dask.config.set(QUIET):
            handing_out = hand_out(addresses.get(timeout=60), psutil.Process(process.pid), testbeds, rounds)
            figures: Mapping[str, Any] = asyncio.run(handing_out)
    finally:
        process.kill()
    print(
        f"{testbeds:>5} testbeds, {rounds} rounds: {figures['rounds_per_s']:7.0f} rounds/s; CPU of a round: "
        f"{figures['scheduler_ms']:.2f} ms for the scheduler, {figures['cpu_ms']:.2f} ms for client and workers; "
        f"an idle scheduler takes {figures['idle_pct']:.1f} % of a processor and {figures['memory_mib']:.0f} MiB",
        flush=True,
    )


def main() -> None:
    """Measure one part or all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["store", "recommender", "question", "scheduler"])
    parser.add_argument("--copies", type=int, nargs="+", default=[0, 13, 138], help="of the 72 committed strategies")
    parser.add_argument("--strategies", type=int, nargs="+", default=[18, 180, 1000], help="of one subject")
    parser.add_argument("--testbeds", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--postgres", help="URL of an empty database")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read)))
        return
    if "store" in options.parts:
        with tempfile.TemporaryDirectory() as directory:
            measure_store(f"{directory}/store.db", options.copies[1])
        if options.postgres:
            measure_store(options.postgres, options.copies[1])
    if "recommender" in options.parts:
        for copies in options.copies:
            measure_recommender(copies)
    if "question" in options.parts:
        for strategies in options.strategies:
            measure_question(strategies)
    if "scheduler" in options.parts:
        for testbeds in options.testbeds:
            measure_scheduler(testbeds, options.rounds)


if __name__ == "__main__":
    main()
