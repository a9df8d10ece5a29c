"""Measurements that something disturbs: what the verdict says, on real tiers."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from catalog.declaration import load_catalog
from catalog.evidence.database import open_database
from catalog.evidence.lookups import StoredMeasurement, stored_measurements
from runner.artifacts.store import ArtifactStore
from runner.launchers.docker import DockerLauncher
from runner.launchers.engine import ContainerSpec, Engine
from runner.launchers.select import Selection, select_launcher
from runner.measuring.fill import Filler, StopRequest
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.plan import make_plan
from runner.measuring.rejudge import judge_stored
from runner.measuring.setups import Setups, store_environment, sync_strategies
from runner.measuring.tiers import Scale

CATALOG = """\
version: 1
subjects:
  fashion-resnet: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}
operators: {identity: []}
tiers:
  mobile: {cpus: 0.1, memory: 512m}
  edge: {cpus: 0.2, memory: 1g}
links: {mobile-edge: {bandwidth: 10mbit, tolerance: TOLERANCE}}
strategies: [{operators: [identity], placements: [edge]}]
experiment: {inputs: 12, rounds: 1, warmup: WARMUP}
"""
UNSHAPE = """
import socket, subprocess
for _, name in socket.if_nameindex():
    if name != "lo":
        subprocess.run(["tc", "qdisc", "del", "dev", name, "root"], check=True)
"""
# In the background of a shell that ends: strangers to the runner, and not its descendants.
HOGS = "for _ in $(seq {count}); do {python} -c 'while True: pass' >/dev/null 2>&1 & echo $!; done"


@dataclass
class Meddler:
    """Watches a fill; between two samples of the measured pass it does something, once."""

    act: Callable[[], None]
    acted: bool = False

    def begin(self, what: str, estimate_s: float) -> None:
        """Ignore that a task starts."""

    def advance(self, fraction: float) -> None:
        """Act after the warm-up, which is half of the samples."""
        if fraction > 0.6 and not self.acted:
            self.acted = True
            self.act()

    def end(self, outcome: str) -> None:
        """Ignore that the task ended."""


@dataclass(frozen=True)
class Bench:
    """A catalog with one strategy, and a directory to measure it in."""

    directory: Path

    def measure(
        self, launcher: str, act: Callable[[], None], *, tolerance: float, warmup: str = "1"
    ) -> StoredMeasurement:
        """Measure one round, the only one stored; accuracies are left out."""
        file = self.directory / "strategies.yaml"
        file.write_text(CATALOG.replace("TOLERANCE", str(tolerance)).replace("WARMUP", warmup))
        selection = select_launcher(launcher)
        selection.launcher.prepare()
        catalog, host = load_catalog(file), selection.launcher.host()
        context = RunContext(catalog, self.directory, launcher, Scale.parse("1"), self.directory, host=host)
        with open_database(self.directory / "evidence.db", create=True) as database:
            self._fill(context, selection, database, Meddler(act))
            with database.session() as reading:
                (stored,) = stored_measurements(reading)
                (judged,) = judge_stored(reading)
        assert judged.verdict == stored.record.verdict, "judged again, the verdict is the same"
        return stored

    def _fill(self, context: RunContext, selection: Selection, database: Any, meddler: Meddler) -> None:
        with database.session() as writing:
            environment_id = store_environment(writing, context, selection)
            plan = make_plan(context, database)
            sync_strategies(writing, plan, environment_id, context)
            writing.commit()
        setups = Setups(context, ArtifactStore(self.directory / "artifacts"), self.directory)
        filler = Filler(setups, database, selection.launcher, environment_id, meddler)
        stop = StopRequest(meddler)
        filler.build(plan, stop)
        outcome = filler.measure(type(plan)(plan.declared, {}, (), plan.rounds), stop)
        assert meddler.acted and not outcome.failures, outcome


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def hogs() -> Iterator[Callable[[], None]]:
    """Start more busy processes than the host has CPUs, and ends them with the test."""
    started: list[int] = []

    def start() -> None:
        script = HOGS.format(python=shlex.quote(sys.executable), count=2 * (os.cpu_count() or 1))
        listed = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        started.extend(map(int, listed.stdout.split()))

    yield start
    for pid in started:
        os.kill(pid, signal.SIGKILL)


def unshape() -> None:
    """Remove what shapes the links of every tier that this process launched, as root of their network could."""
    engine = Engine.connect()
    image = DockerLauncher(engine).image().tag
    running = [item["Id"] for item in engine.list_containers("tierwise.role=links") if _ours(item)]
    assert len(running) == 2
    for container in running:
        command = ["python", "-I", "-S", "-c", UNSHAPE]
        options: dict[str, Any] = {"user": "0:0", "capabilities": ("NET_ADMIN",), "labels": {}}
        engine.run_to_end(
            ContainerSpec(
                image=image,
                command=command,
                name=f"unshape-{container[:12]}",
                network_mode=f"container:{container}",
                **options,
            )
        )


def _ours(item: dict[str, Any]) -> bool:
    from runner.launchers.container import OWNER_LABEL
    from runner.workdir import Owner

    return bool(item["Labels"].get(OWNER_LABEL) == str(Owner.current()) and item["State"] == "running")


@pytest.mark.parametrize("launcher", ["process", pytest.param("docker", marks=pytest.mark.docker)])
@pytest.mark.alone
def test_a_busy_host_makes_doubtful_and_is_named(bench: Bench, hogs: Callable[[], None], launcher: str) -> None:
    hogs()
    stored = bench.measure(launcher, lambda: None, tolerance=0.9)
    assert stored.record.verdict == "DOUBTFUL", stored.record.host_load
    rules = {finding["rule"] for finding in stored.record.findings or ()}
    assert rules & {"host load", "waiting for a CPU"}, "which of them depends on who has precedence on this host"
    others = (stored.record.host_load or {})["others"]
    assert others and others[0]["name"] in (stored.record.reason or ""), "the busiest process is named"


@pytest.mark.docker
@pytest.mark.timed
@pytest.mark.parametrize("warmup", ["1", "steady"])
def test_shaping_that_is_lost_under_way_makes_invalid(bench: Bench, warmup: str) -> None:
    stored = bench.measure("docker", unshape, tolerance=0.5, warmup=warmup)
    assert stored.record.verdict == "INVALID"
    broken = [finding for finding in stored.record.findings or () if finding["rule"] == "link rate"]
    assert {finding["where"] for finding in broken} == {"mobile-edge up, after", "mobile-edge down, after"}
    assert min(finding["figure"] for finding in broken) > 100
    assert len(stored.record.samples) == 12, "an invalid measurement is kept"


@pytest.mark.timed
def test_a_warm_up_until_steady_is_short_and_stored(bench: Bench) -> None:
    record = bench.measure("process", lambda: None, tolerance=0.9, warmup="steady").record
    latency_s, sent = record.warmup_latency_s or [], record.protocol["warmup_inputs"]
    assert 5 <= len(latency_s) == len(sent) and len(record.samples) == 12
    sizes = record.protocol["input_bytes"]
    assert set(sizes) == {sample.input_id for sample in record.samples}
    assert sizes[sent[0]] == max(sizes.values()) and set(sent[1:]) == {sent[1]}
    assert sorted(sizes.values())[5] <= sizes[sent[1]] <= sorted(sizes.values())[6], "the middle one by size"
    assert record.protocol["warmup_steady"] in (True, False)


@pytest.mark.timed
def test_every_counter_is_there(bench: Bench) -> None:
    record = bench.measure("process", lambda: None, tolerance=0.9).record
    assert record.warmup_latency_s is not None and len(record.warmup_latency_s) == 12
    assert record.window_s is not None and sum(sample.latency_s for sample in record.samples) < record.window_s
    assert abs(record.clock_jump_s or 0.0) < 1
    assert record.host_load is not None and 0 < record.host_load["own_cpus"] <= record.host_load["cpus"]
    mobile, edge = record.tier_runs
    assert mobile.first_inference_s is None and mobile.cold_start_s is None
    assert 0 < (edge.first_inference_s or 0) <= record.warmup_latency_s[0]
    for run in record.tier_runs:
        assert 0 < (run.window_cpu_seconds or 0) < (run.cpu_seconds or 0)
        assert run.restarted is False and run.oom_kills in (0, None)
        assert (run.window_waited_s or 0) <= (run.waited_s or 0)
        assert 2**24 < (run.peak_rss_bytes or 0) < 2**28
    assert {(link_probe.moment, link_probe.direction) for link_probe in record.link_probes} == {
        (moment, direction) for moment in ("before", "after") for direction in ("up", "down")
    }
    for probe in record.link_probes:
        assert probe.measured_bit_per_s == pytest.approx(probe.declared_bit_per_s, rel=0.9)
        assert (probe.small_s or 0) < (probe.large_s or 0)
