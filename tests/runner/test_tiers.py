"""What this run may not claim is refused before anything is measured."""

from dataclasses import replace

import pytest

from catalog.declaration import parse_catalog
from runner.errors import HostTooSmallError, RunnerError
from runner.host import this_host
from runner.tiers import Scale, check_host, threads_for

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


def test_a_delay_is_refused_and_not_ignored() -> None:
    declared = parse_catalog(CATALOG.replace("1mbit", "1mbit, delay: 10ms"))
    with pytest.raises(RunnerError, match="'a-b' declares a delay"):
        check_host(declared, replace(this_host(), cpu_count=8), Scale.parse("1"))


def test_threads_follow_the_quota() -> None:
    assert [threads_for(cpus) for cpus in (0.5, 1, 1.5, 2)] == [1, 1, 2, 2]


@pytest.mark.parametrize("text", ["0", "2", "x", "1/0", "nan"])
def test_scales_outside_are_refused(text: str) -> None:
    with pytest.raises(RunnerError, match="--scale"):
        Scale.parse(text)
