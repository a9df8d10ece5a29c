"""A short run of benchmarks/fuzz_container.py: a tier in a container of 512 MiB outlives whatever it is sent."""

import pytest

from benchmarks.fuzz_container import fuzz

pytestmark = pytest.mark.docker


def test_greedy_and_hostile_requests_do_not_end_a_container() -> None:
    result = fuzz(requests=50, seed=1)
    assert not result["faults"], result
    assert sum(result["outcomes"]["greedy"].values()) >= 40 and result["outcomes"]["healthy at last"] == {"200": 1}
