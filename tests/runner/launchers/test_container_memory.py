"""A short run of benchmarks/fuzz_container.py: a tier in a container of 512 MiB outlives whatever it is sent."""

import pytest

from benchmarks.fuzz_container import fuzz
from benchmarks.greedy_requests import REQUESTS

pytestmark = pytest.mark.docker


def test_greedy_and_hostile_requests_do_not_end_a_container() -> None:
    # Every third: tests/tierserver/test_memory.py has all of them, and the engine's limit is what is added here.
    greedy = list(REQUESTS)[::3]
    result = fuzz(requests=50, seed=1, greedy=greedy)
    assert not result["faults"], result
    assert sum(result["outcomes"]["greedy"].values()) >= len(greedy) > 12
    assert result["outcomes"]["healthy at last"] == {"200": 1}
