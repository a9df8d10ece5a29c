"""What this run may not claim is refused before anything is measured."""

from dataclasses import replace

import pytest

from catalog.declaration import parse_catalog
from runner.errors import HostTooSmallError, RunnerError
from runner.host import this_host
from runner.launchers.docker import DockerLauncher
from runner.launchers.engine import Engine
from runner.launchers.process import ProcessLauncher
from runner.measuring.tiers import Scale, check_delays, check_host, route_links, threads_for

CATALOG = """\
version: 1
subjects: {s: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}}
operators: {identity: []}
tiers: {a: {cpus: 1, memory: 512m}, b: {cpus: 4, memory: 512m}}
links: {a-b: {bandwidth: 1mbit}}
strategies: [{operators: [identity], placements: [a, b]}]
"""


def test_a_host_too_small_is_told_the_scale_that_fits() -> None:
    host = replace(this_host(), cpu_count=2)
    with pytest.raises(HostTooSmallError, match="--scale 1/2"):
        check_host(parse_catalog(CATALOG), host, Scale.parse("1"))
    check_host(parse_catalog(CATALOG), host, Scale.parse("1/2"))


DELAYED = parse_catalog(CATALOG.replace("1mbit", "1mbit, delay: 10ms"))


def test_a_delay_that_can_be_made_is_taken_and_grows_with_the_scale() -> None:
    check_delays(DELAYED, ProcessLauncher())
    (strategy,) = (strategy for strategy in DELAYED.strategies() if strategy.links)
    for scale, delay_s in (("1", 0.01), ("1/4", 0.04)):
        assert route_links(DELAYED, strategy, Scale.parse(scale))[0].delay_s == pytest.approx(delay_s)


@pytest.mark.docker
def test_a_delay_that_the_kernel_cannot_make_is_refused_and_not_ignored() -> None:
    launcher = DockerLauncher(Engine.connect())
    if launcher.delay_refusal() is None:
        check_delays(DELAYED, launcher)
        return
    with pytest.raises(RunnerError, match=r"'a-b' declares a delay, .*'docker' cannot make: .*no netem.*--launcher"):
        check_delays(DELAYED, launcher)
    check_delays(parse_catalog(CATALOG), launcher)


def test_threads_follow_the_quota() -> None:
    assert [threads_for(cpus) for cpus in (0.5, 1, 1.5, 2)] == [1, 1, 2, 2]


@pytest.mark.parametrize("text", ["0", "2", "x", "1/0", "nan"])
def test_scales_outside_are_refused(text: str) -> None:
    with pytest.raises(RunnerError, match="--scale"):
        Scale.parse(text)
