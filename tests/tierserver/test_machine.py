import pytest

from tierserver.machine import parse_cpu_stat
from tierserver.messages import CgroupStats


@pytest.mark.parametrize(
    "text",
    [
        "usage_usec 5\nnr_periods 10\nnr_throttled 3\nthrottled_usec 2500000\n",
        "nr_periods 10\nnr_throttled 3\nthrottled_time 2500000000\n",
    ],
)
def test_both_generations_of_cgroup_are_read(text):
    assert parse_cpu_stat(text) == CgroupStats(10, 3, 2.5)


def test_a_group_without_a_quota_has_no_counters():
    assert parse_cpu_stat("usage_usec 5\nuser_usec 4\n") is None
