"""Random hostile requests; unlike the limits of time in test_hostile.py, others may run beside them."""

from benchmarks.fuzz_tier import fuzz


def test_random_hostile_requests_neither_crash_nor_swell_a_tier():
    result = fuzz(150, 7)
    assert result["faults"] == []
    # Among the hostile ones, as many healthy ones as the seed draws.
    assert result["outcomes"]["healthy"]
