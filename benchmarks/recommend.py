"""The service under load beside a bare endpoint: `python -m benchmarks.recommend` (needs Debian's `wrk`).

One worker each, the same request and response models, 16 connections. The bare endpoint validates the question and
serialises one ready answer. `repeated` asks one question, `distinct` never the same twice, `short` the same with
`detail: short`. The service holds the 72 committed strategies, then the same under other names up to 10 000.

Then what takes long: batches of 100 questions and a strategy with a million samples, asked by one client while another
one asks for liveness and a third one sends a usual question. `--fill` shows one service under load while a runner fills
its database: what is answered then, and that the new evidence is in the answers.
"""

import argparse
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI

from recommender.__main__ import keep_what_serves_all
from recommender.answer import respond
from recommender.app import create_app
from recommender.evidence.model import DeclaredStrategy, Evidence
from recommender.evidence.snapshots import Snapshots
from recommender.schemas import RecommendRequest, RecommendResponse
from recommender.settings import RecommenderSettings

ROOT = Path(__file__).parents[1]
SECONDS, CONNECTIONS = 6, 16
FILL_SECONDS = 60
# What the service computes ahead is done once it takes less than this share of a core over so long.
SETTLE_SECONDS, _IDLE_SHARE = 8, 0.005
MOST_SETTLE_SECONDS = 120
# For `--serve`: not so many strategies, but one with so many samples.
MILLION = 1_000_000
QUESTION = RecommendRequest(subject="fashion-resnet", max_latency_s=0.05, max_accuracy_drop_pp=1.0)
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local n = 0
request = function()
  n = n + {step}
  local body = string.format(
    '{{"subject":"fashion-resnet","max_latency_s":%.9f,"max_accuracy_drop_pp":1.0,"detail":"{detail}"}}', 0.05 + n)
  return wrk.format(nil, "/recommend", nil, body)
end
"""


class Changed(Snapshots):
    """The database's evidence, changed by `change` once per snapshot."""

    _made: tuple[Evidence, Evidence] | None = None

    def current(self) -> Evidence:
        """Return the changed evidence, with the check for changes of the database included."""
        return self._changed(super().current())

    def unchanged(self) -> Evidence | None:
        """Return the changed evidence when nothing changed in the database."""
        evidence = super().unchanged()
        return None if evidence is None else self._changed(evidence)

    def change(self, evidence: Evidence) -> Evidence:
        """Return the evidence to answer from."""
        raise NotImplementedError

    def _changed(self, evidence: Evidence) -> Evidence:
        if self._made is None or self._made[0] is not evidence:
            self._made = (evidence, self.change(evidence))
        return self._made[1]


class Million(Changed):
    """With a million samples for one strategy of the subject that is asked about."""

    def change(self, evidence: Evidence) -> Evidence:
        """Return the evidence with the enlarged strategy."""
        parts = [part for members in evidence.subjects.values() for part in members]
        chosen = next(part for part in parts if part.subject == QUESTION.subject)
        enlarged = replace(chosen, strategies=(_repeated(chosen.strategies[0]), *chosen.strategies[1:]))
        rest = [part for part in parts if part is not chosen]
        return Evidence.of([enlarged, *rest], evidence.slos.values())


def _repeated(strategy: DeclaredStrategy) -> DeclaredStrategy:
    """Repeat every sample until there are a million, each with a little noise."""
    candidate = strategy.candidate
    assert candidate is not None and candidate.input_index is not None
    times, rng = 1_000_000 // candidate.samples, np.random.default_rng(1)
    latency_s = tuple(
        np.repeat(values, times) * rng.lognormal(0, 0.01, values.size * times) for values in candidate.latency_s
    )
    index = tuple(np.repeat(own, times) for own in candidate.input_index)
    counts = np.repeat(np.arange(candidate.samples), times)
    design = None if candidate.design is None else candidate.design.of(counts)
    return replace(strategy, candidate=replace(candidate, latency_s=latency_s, input_index=index, design=design))


class Enlarged(Changed):
    """Repeated under further subjects up to so many strategies."""

    strategies = 0

    def change(self, evidence: Evidence) -> Evidence:
        """Return the enlarged evidence."""
        parts = [part for members in evidence.subjects.values() for part in members]
        count, copy = sum(len(part.strategies) for part in parts), 0
        originals = list(parts)
        while count < self.strategies:
            copy += 1
            parts += [replace(part, subject=f"{part.subject}-{copy}") for part in originals]
            count += sum(len(part.strategies) for part in originals)
        return Evidence.of(parts, evidence.slos.values())


def bare(database: str) -> FastAPI:
    """Build the ceiling: FastAPI with our models and nothing behind them."""
    snapshots = Snapshots(database)
    ready = respond.respond(snapshots.current(), QUESTION)
    snapshots.close()
    app = FastAPI()

    @app.post("/recommend")
    async def recommend(question: RecommendRequest) -> RecommendResponse:
        return ready

    return app


def service(database: str, strategies: int) -> FastAPI:
    """Build the real application, over more evidence where `strategies` says so."""
    app = create_app(RecommenderSettings(database=database))
    if strategies == MILLION:
        app.state.snapshots = app.state.answers._snapshots = Million(database)
    elif strategies:
        enlarged = Enlarged(database)
        enlarged.strategies = strategies
        app.state.snapshots = app.state.answers._snapshots = enlarged
    return app


@contextmanager
def served(kind: str, database: str, *, first: Mapping[str, object] | None = None) -> Iterator[tuple[str, int]]:
    """Start a server in its own process; yield its address and process id after its first answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.recommend", "--serve", kind, "--port", str(port), "-d", database]
    # As `recommender` starts.
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    try:
        url = f"http://127.0.0.1:{port}"
        _first_answer(url, first or QUESTION.model_dump(exclude_unset=True))
        yield url, server.pid
    finally:
        server.terminate()
        server.wait()


@dataclass(frozen=True)
class Load:
    """What a server did under load; its CPU is what counts where others share the cores."""

    requests_per_s: float
    cpu_ms: float


def measure(name: str, kind: str, database: str, *, distinct: bool, detail: str = "full") -> Load:
    """Measure one server in its own process; print requests per second with CPU, p99, start-up and memory."""
    started = time.perf_counter()
    with served(kind, database) as (url, pid):
        ready_s = time.perf_counter() - started
        _settle(pid)
        before_s = _cpu_s(pid)
        rate, p99 = _load(url, distinct=distinct, detail=detail)
        cpu_ms = 1000 * (_cpu_s(pid) - before_s) / (rate * SECONDS)
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(
        f"{name:<34} {rate:6.0f} requests/s, {cpu_ms:5.2f} ms of CPU each   p99 {p99:>9}   "
        f"first answer {ready_s:5.1f} s   peak {peak:5.0f} MiB"
    )
    return Load(rate, cpu_ms)


def _settle(pid: int) -> None:
    """Wait until what the service computes ahead is done."""
    deadline, used_s = time.monotonic() + MOST_SETTLE_SECONDS, -1.0
    while time.monotonic() < deadline and (now_s := _cpu_s(pid)) - used_s > _IDLE_SHARE * SETTLE_SECONDS:
        used_s = now_s
        time.sleep(SETTLE_SECONDS)


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, user's and system's."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_slow_questions(database: str) -> None:
    """Ask what takes long of fresh services, and meanwhile for liveness and a usual question."""
    with served("72", database) as (url, _):
        time.sleep(SETTLE_SECONDS)
        for kind in ("figures", "percentiles"):
            questions = [_batched(kind, number) for number in range(100)]
            _time_slow(f"a batch of 100, distinct {kind}", url, "/recommend/batch", {"questions": questions})
    with served(str(MILLION), database, first={"subject": "canvas-fcn"}) as (url, _):
        time.sleep(SETTLE_SECONDS)
        for percentile in (90, 95):
            question = {"subject": QUESTION.subject, "max_latency_s": 0.05, "latency_percentile": percentile}
            _time_slow(f"a million samples, p{percentile}", url, "/recommend", question)


def _batched(kind: str, number: int) -> Mapping[str, object]:
    question = {"subject": QUESTION.subject, "max_latency_s": 0.02 + number * 1e-3, "max_accuracy_drop_pp": 1.0}
    return question if kind == "figures" else {**question, "latency_percentile": 40 + number / 2.5}


def _time_slow(name: str, url: str, path: str, body: Mapping[str, object]) -> None:
    """Print how long a request took, and the longest that others waited meanwhile."""
    waits: dict[str, list[float]] = {"liveness": [], "a usual question": []}
    done = threading.Event()
    usual = {"subject": "canvas-fcn", "max_latency_s": 0.5}
    requests: Sequence[tuple[str, Callable[[httpx.Client], Any]]] = (
        ("liveness", lambda client: client.get("/healthz")),
        ("a usual question", lambda client: client.post("/recommend", json=usual)),
    )

    def ask(name: str, send: Callable[[httpx.Client], Any]) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not done.is_set():
                started = time.perf_counter()
                send(client).raise_for_status()
                waits[name].append(time.perf_counter() - started)
                time.sleep(0.02)

    others = [threading.Thread(target=ask, args=request) for request in requests]
    for other in others:
        other.start()
    time.sleep(0.5)
    for name_of_other in waits:
        waits[name_of_other].clear()
    started = time.perf_counter()
    httpx.post(f"{url}{path}", json=body, timeout=120).raise_for_status()
    took_s = time.perf_counter() - started
    done.set()
    for other in others:
        other.join()
    longest = ", ".join(f"{other} at most {max(values) * 1000:.0f} ms" for other, values in waits.items() if values)
    print(f"{name:<34} {took_s:8.2f} s   meanwhile {longest}")


def measure_during_a_fill(database: str) -> None:
    """Load the service with distinct questions, alone and then while a runner measures into its database.

    Both share the cores of one host, so what is measured meanwhile may be DOUBTFUL; the question here is whether
    every request is answered and the new rounds are seen.
    """
    runner = [sys.executable, "-m", "runner", "fill-catalog", "-c", str(ROOT / "strategies.yaml"), "-d", database]
    with served("72", database) as (url, _):
        alone, alone_p99 = _load(url, distinct=True)
        print(f"{'alone':<34} {alone:8.0f} requests/s   p99 {alone_p99:>9}   no request refused")
        filling = subprocess.Popen([*runner, "--launcher", "process"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            during, during_p99 = _load(url, distinct=True, seconds=FILL_SECONDS)
        finally:
            filling.send_signal(signal.SIGINT)
            filling.communicate()
        print(f"{'while a runner fills':<34} {during:8.0f} requests/s   p99 {during_p99:>9}   no request refused")
        question = QUESTION.model_dump(exclude_unset=True) | {"launcher": "process"}
        seen = httpx.post(f"{url}/recommend", json=question, timeout=60).raise_for_status().json()["considered"]
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as opened:
        rounds, strategies = opened.execute(_MEASURED).fetchone()
    print(f"the runner stored {rounds} rounds meanwhile, of {strategies} strategies of {QUESTION.subject}")
    print(f"asked afterwards, the same service considers {len(seen)} of them, without a restart")


_MEASURED = f"""
SELECT sum(rounds), count(*) FROM (
  SELECT count(DISTINCT m.id) AS rounds FROM strategy s
  JOIN environment e ON e.id = s.environment_id JOIN measurement m ON m.latency_key = s.latency_key
  WHERE e.launcher = 'process' AND s.subject = '{QUESTION.subject}' AND m.status = 'complete'
    AND coalesce(m.verdict, '') <> 'INVALID'
  GROUP BY s.id)
"""


def _first_answer(url: str, question: Mapping[str, object]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            httpx.post(f"{url}/recommend", json=question, timeout=60).raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise SystemExit("the server did not answer within 120 s")


def _load(url: str, *, distinct: bool, seconds: int = SECONDS, detail: str = "full") -> tuple[float, str]:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT.format(step="1e-6" if distinct else "0", detail=detail))
        script.flush()
        options = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", "--latency", "-s", script.name]
        said = subprocess.run(["wrk", *options, url], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"some requests were not answered:\n{said}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    # Of its own line: the statistics above have shares such as 87.99 %.
    p99 = re.search(r"^\s+99%\s+(\S+)", said, re.MULTILINE)
    assert rate is not None and p99 is not None, said
    return float(rate[1]), p99[1]


def main() -> None:
    """Serve for the benchmark itself, or measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", choices=["bare", "72", "10000", str(MILLION)])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("-d", "--database", default="")
    parser.add_argument("--fill", action="store_true", help="one service, under load while a runner fills its database")
    options = parser.parse_args()
    if options.serve:
        strategies = 0 if options.serve in ("bare", "72") else int(options.serve)
        app = bare(options.database) if options.serve == "bare" else service(options.database, strategies)
        # As the service itself starts: with its evidence read, and that and the modules out of the garbage.
        if options.serve != "bare":
            app.state.snapshots.current()
        keep_what_serves_all()
        uvicorn.run(app, port=options.port, log_level="warning", access_log=False)
        return
    with tempfile.TemporaryDirectory() as directory:
        database = f"{directory}/embedded.db"
        evidence = ROOT / "catalogs" / "embedded-evidence.json.gz"
        runner = Path(sys.executable).with_name("runner")
        subprocess.run([runner, "import", evidence, "-d", database], check=True, capture_output=True)
        if options.fill:
            measure_during_a_fill(database)
            return
        ceiling = measure("bare FastAPI, same models", "bare", database, distinct=True)
        for distinct, detail, words in (
            (False, "full", "repeated"),
            (True, "full", "distinct"),
            (True, "short", "distinct, short"),
        ):
            small = measure(f"72 strategies, {words}", "72", database, distinct=distinct, detail=detail)
            large = measure(f"10 000 strategies, {words}", "10000", database, distinct=distinct, detail=detail)
            print(
                f"  {words}: {small.requests_per_s / ceiling.requests_per_s:.2f} of the bare endpoint, by CPU "
                f"{ceiling.cpu_ms / small.cpu_ms:.2f}; 10 000 are {small.requests_per_s / large.requests_per_s:.2f} x "
                f"slower, by CPU {large.cpu_ms / small.cpu_ms:.2f} x"
            )
        measure_slow_questions(database)


if __name__ == "__main__":
    main()
