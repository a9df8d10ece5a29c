"""Testbeds behind a Dask scheduler: a fill over two workers, what is refused, and what is left after kills."""

import asyncio
import contextlib
import io
import json
import multiprocessing
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from sqlalchemy import text

from catalog.evidence.database import open_database
from runner.cli import app, run

if os.environ.get("CI") != "true":
    pytest.importorskip("distributed", reason="the extra tierwise[fleet] is not installed")

from dask import config
from distributed import Client, Scheduler

from benchmarks.fleet_kills import TESTBEDS, KillRun, declare_testbeds, free_port, run_command, run_scheduler
from runner.errors import FleetError
from runner.measuring.fleet import dask
from runner.measuring.fleet.testbed import TestbedDescription
from tests.catalog_of_one import declare

_START_S = 150.0


@dataclass
class Fleet:
    """A scheduler on loopback with the workers of two testbeds."""

    folder: Path
    scheduler: str

    def command(self, *arguments: str, expect: int = 0) -> str:
        """Run a command in this process and return what it said."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(lambda: app(list(arguments)))
        said = out.getvalue() + err.getvalue()
        assert code == expect and "Traceback" not in said, said
        return " ".join(said.split())

    def query(self, statement: str) -> list[Any]:
        with open_database(self.folder / "tierwise.db", readonly=True) as database, database.session() as session:
            return [tuple(row) for row in session.execute(text(statement))]


def certificates_in(folder: Path, name: str) -> dict[str, str]:
    """Make an authority and a certificate that it signed, as docs/fleet.md says, and return Dask's settings of them."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    authority, node, request = (str(folder / f"{name}-{file}.pem") for file in ("ca", "node", "request"))
    made, signed = f"{authority}.key", f"{node}.signed"
    for command in (
        ["req", "-x509", *key, "-subj", f"/CN={name}", "-days", "2", "-keyout", made, "-out", authority],
        ["req", *key, "-subj", f"/CN={name}-node", "-keyout", node, "-out", request],
        ["x509", "-req", "-in", request, "-CA", authority, "-CAkey", made, "-days", "2", "-out", signed],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    # The key and its certificate in one file.
    with Path(node).open("a") as file:
        file.write(Path(signed).read_text())
    variable = "DASK_DISTRIBUTED__COMM__TLS__"
    roles = {f"{variable}{role}__CERT": node for role in ("SCHEDULER", "WORKER", "CLIENT")}
    return {f"{variable}CA_FILE": authority, **roles}


@contextlib.contextmanager
def trusting(certificates: dict[str, str]) -> Iterator[None]:
    """Give this process the settings of certificates."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("DASK_DISTRIBUTED__COMM__TLS__"):
                patch.delenv(name)
        for name, value in certificates.items():
            patch.setenv(name, value)
        config.refresh()
        yield
    config.refresh()


def serve_testbed(folder: Path, log: str, environment: dict[str, str], arguments: list[str]) -> None:
    """Serve a testbed in a process whose environment Dask has not read yet."""
    os.environ.update(environment)
    config.refresh()
    run_command(folder, log, environment, arguments)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    declare_testbeds(folder)
    context, port = multiprocessing.get_context("forkserver"), free_port()
    context.set_forkserver_preload(["runner.measuring.fleet.dask", "runner.commands.testbed", "benchmarks.fleet_kills"])
    scheduler = f"tls://127.0.0.1:{port}"
    certificates = certificates_in(folder, "ours")
    processes = [context.Process(target=run_scheduler, args=(folder, port, certificates), daemon=True)]
    for name in TESTBEDS:
        serving = ["testbed", "serve", name, "--launcher", "process", "--scheduler", scheduler]
        place = {"TIERWISE_LOCKS": str(folder / f"locks-{name}")} | certificates
        processes.append(
            context.Process(target=serve_testbed, args=(folder, f"{name}.log", place, serving), daemon=True)
        )
    for process in processes:
        process.start()
    try:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and all(process.is_alive() for process in processes):
            logs = [folder / f"{name}.log" for name in TESTBEDS]
            if all(log.exists() and "serving testbed" in log.read_text() for log in logs):
                break
            time.sleep(0.1)
        with trusting(certificates):
            yield Fleet(folder, scheduler)
    finally:
        for process in processes:
            process.kill()
            process.join()


def test_a_dashboard_is_linked_only_where_there_is_one() -> None:
    async def link(*, shown: bool) -> str | None:
        where = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
        async with (
            Scheduler(**where, dashboard=shown) as scheduler,
            Client(scheduler.address, asynchronous=True) as client,
        ):
            return await asyncio.to_thread(dask.dashboard_link, client)

    assert asyncio.run(link(shown=False)) is None
    # In this order: Dask keeps the pages of a dashboard for all later schedulers of a process.
    assert (asyncio.run(link(shown=True)) or "").endswith("/status")


def test_testbeds_of_one_class_share_the_rounds_and_each_says_where_it_ran(fleet: Fleet) -> None:
    said = fleet.command("fill-catalog", "--scheduler", fleet.scheduler)
    assert "left and right" in said and "measured 4 rounds" in said
    # This scheduler runs without one, and Dask names its address all the same.
    assert "dashboard" not in said
    rows = fleet.query("SELECT testbed, round, COUNT(*) FROM measurement GROUP BY 1, 2")
    # A round, whose strategies are compared, ran on one testbed.
    assert sorted((number, count) for _, number, count in rows) == [(1, 2), (2, 2)]
    assert {testbed for testbed, *_ in rows} == set(TESTBEDS)
    assert len(fleet.query("SELECT id FROM environment")) == 1
    assert "Nothing is missing" in fleet.command("fill-catalog", "--on", "left", "--scheduler", fleet.scheduler)


def test_what_is_served_is_listed(fleet: Fleet) -> None:
    listed = json.loads(fleet.command("testbed", "list", "--scheduler", fleet.scheduler, "--json"))
    assert [row["testbed"] for row in listed] == list(TESTBEDS)
    assert "process" in fleet.command("testbed", "list", "--scheduler", fleet.scheduler)


def test_a_fill_of_another_database_is_refused_before_anything_is_measured(fleet: Fleet) -> None:
    said = fleet.command("fill-catalog", "--scheduler", fleet.scheduler, "-d", "other.db", expect=1)
    assert "stores into" in said and "allowed: one database for both" in said
    assert "Traceback" not in said


def test_a_catalog_that_the_worker_does_not_have_is_refused(fleet: Fleet) -> None:
    declared = yaml.safe_load((fleet.folder / "strategies.yaml").read_text())
    declared["experiment"]["inputs"] = 4
    (fleet.folder / "other.yaml").write_text(yaml.safe_dump(declared, sort_keys=False))
    before = fleet.query("SELECT COUNT(*) FROM measurement")
    said = fleet.command("fill-catalog", "-c", "other.yaml", "--scheduler", fleet.scheduler, expect=1)
    assert "declares nothing with the key" in said and "continue with: runner fill-catalog --scheduler" in said
    assert fleet.query("SELECT COUNT(*) FROM measurement") == before


def test_a_testbed_is_served_once(fleet: Fleet) -> None:
    serving = ("testbed", "serve", "left", "--launcher", "process", "--scheduler", fleet.scheduler)
    assert "uses testbed 'left'; allowed: one runner at a time" in fleet.command(*serving, expect=1)
    said = fleet.command(*serving, "-d", "another.db", expect=1)
    assert "another worker serves testbed 'left'" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--on", "nowhere"], "declares no testbed 'nowhere'; allowed: emulated, left, right"),
        (["--on", "left,right"], "both use local: they cannot measure at the same time"),
        (["--on", "left", "--on", "left"], "--on names a testbed twice"),
        (["--scheduler", "tcp://192.0.2.7:8786"], "without TLS"),
        (["--scheduler", "http://127.0.0.1:1"], "not the address of a Dask scheduler"),
        (["--scheduler", "tcp://127.0.0.1:1"], "no Dask scheduler answers at tcp://127.0.0.1:1"),
    ],
)
def test_what_cannot_be_is_said_at_once(
    fleet: Fleet, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask, "_CONNECT_S", 0.5)
    assert said in fleet.command("fill-catalog", *arguments, expect=1)


def test_a_scheduler_with_tls_serves_those_alone_whose_certificates_its_authority_signed(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask, "_CONNECT_S", 2.0)
    filling = ("fill-catalog", "--scheduler", fleet.scheduler)
    with trusting({}):
        assert "needs certificates, and Dask's settings name none; allowed:" in fleet.command(*filling, expect=1)
        plain = fleet.scheduler.replace("tls:", "tcp:")
        assert f"no Dask scheduler answers at {plain}" in fleet.command("fill-catalog", "--scheduler", plain, expect=1)
    with trusting(certificates_in(tmp_path, "theirs")):
        said = fleet.command(*filling, expect=1)
    assert f"the scheduler at {fleet.scheduler} and this side do not trust each other" in said
    assert "signed by one authority" in said
    assert "Nothing is missing" in fleet.command(*filling)


def test_a_race_takes_its_looks_over_both_testbeds(fleet: Fleet) -> None:
    file = fleet.folder / "strategies.yaml"
    before = file.read_text()
    declared = yaml.safe_load(before)
    declared["experiment"] = {"inputs": 5, "rounds": 3, "warmup": 1, "race": True}
    # What is compared in a round runs on one testbed, so that a second one helps a second subject.
    (fleet.folder / "other").mkdir()
    declare(fleet.folder / "other", width=16)
    other = {"model": "./other/table.onnx", "dataset": {"tensors": "other/table.npz"}}
    declared["subjects"] |= {"other": declared["subjects"]["table"] | other}
    try:
        # The workers read it again for every block.
        file.write_text(yaml.safe_dump(declared, sort_keys=False))
        said = fleet.command("fill-catalog", "--scheduler", fleet.scheduler)
        again = fleet.command("fill-catalog", "--scheduler", fleet.scheduler)
    finally:
        file.write_text(before)
    for subject in ("table", "other"):
        assert f"{subject} · fast: identity on mobile, proven, after 3 rounds" in said
    assert "no further round could prove or change an answer" in again and "measured 0 rounds" in again
    rows = fleet.query("SELECT testbed, subject, round FROM measurement WHERE look IS NOT NULL")
    assert {testbed for testbed, *_ in rows} == set(TESTBEDS)
    assert {(subject, number) for _, subject, number in rows} >= {
        (subject, number) for subject in ("table", "other") for number in (1, 2, 3)
    }
    # A round of a subject was measured on one testbed.
    assert len({(subject, number) for _, subject, number in rows}) == len(set(rows))


def test_a_question_is_measured_on_the_testbeds_of_a_scheduler(fleet: Fleet) -> None:
    file = fleet.folder / "strategies.yaml"
    before = file.read_text()
    declared = yaml.safe_load(before)
    declared["experiment"] = {"inputs": 6, "rounds": 2, "warmup": 1}
    last = fleet.query("SELECT MAX(id) FROM measurement")[0][0] or 0
    question = ("recommend", "table", "--max-latency", "10s", "--percentile", "50", "--measure", "2m")
    try:
        file.write_text(yaml.safe_dump(declared, sort_keys=False))
        said = fleet.command(*question, "--scheduler", fleet.scheduler)
        again = fleet.command(*question, "--scheduler", fleet.scheduler, "--on", "left")
    finally:
        file.write_text(before)
    assert "left and right" in said and "to measure: " in said and "on mobile" in said
    assert "Nothing had to be measured." in again
    rows = fleet.query(f"SELECT testbed, status FROM measurement WHERE id > {last}")
    assert rows and {status for _, status in rows} == {"complete"}
    assert {testbed for testbed, _ in rows} <= set(TESTBEDS)


def test_a_testbed_that_nobody_serves_is_named(fleet: Fleet) -> None:
    said = fleet.command("fill-catalog", "--on", "emulated", "--scheduler", fleet.scheduler, expect=1)
    assert "no worker serves testbed emulated" in said and "served now: left, right" in said
    assert "runner testbed serve emulated --scheduler" in said


def test_a_worker_of_another_version_is_refused_with_both(fleet: Fleet) -> None:
    with dask.connected(fleet.scheduler) as client:
        described = dask.describe(client, "left", dask.served(client)["left"]).to_json()
    assert TestbedDescription.from_json(described).to_json() == described
    with pytest.raises(
        FleetError, match=r"is served by Tierwise 9\.9 \(messages 1\), and this is Tierwise .* the same"
    ):
        TestbedDescription.from_json({**described, "tierwise": "9.9"})
    with pytest.raises(FleetError, match=r"\(messages 2\)"):
        TestbedDescription.from_json({"testbed": "left", "tierwise": described["tierwise"], "messages": 2})


class CutDatabase:
    """A database of the tests' server whose connections are all ended; the server itself is of all tests."""

    def __init__(self, url: str) -> None:
        self.url = url

    def kill(self) -> None:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")

    def start(self) -> None:
        """Do nothing: it is there."""


# What is killed starts again, which takes long where other tests run beside it.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_nothing_is_lost_or_there_twice_whatever_is_killed(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Kill everything once; `benchmarks.fleet_kills` does so more often, and to the database server as well."""
    server = None
    if database == "postgresql":
        postgres = request.getfixturevalue("postgres")
        name = postgres.migrated()
        request.addfinalizer(lambda: postgres.drop(name))
        server = CutDatabase(postgres.url_of(name))
    findings = KillRun(tmp_path, seed=3, server=server, say=lambda line: None).run(5 if server else 4)
    assert findings.sound, findings
    assert findings.rounds >= 4
