import pytest

from tierserver.machine import (
    parse_cpu_stat,
    parse_host_stat,
    parse_memory_v1,
    parse_memory_v2,
    parse_schedstat,
    read_stats,
)
from tierserver.messages import CgroupStats, MemoryStats


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


def test_memory_of_both_generations_is_read():
    events = "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\n"
    assert parse_memory_v2(events, "4096\n") == MemoryStats(7, 1, 4096)
    assert parse_memory_v2("max 0\n", None) == MemoryStats(0, 0, None)
    control = "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"
    assert parse_memory_v1("7\n", control, "4096\n") == MemoryStats(7, 1, 4096)


def test_waiting_is_summed_over_the_threads():
    assert parse_schedstat(["100 2000000000 5\n", "7 500000000 1\n"]) == 2.5


def test_a_host_is_busy_with_everything_but_idling_and_waiting_for_disks():
    text = "cpu  100 20 30 5000 400 3 7 11 0 0\ncpu0 1 1 1 1\n"
    assert parse_host_stat(text, ticks_per_s=10) == (16.0, 1.1)
    assert parse_host_stat("cpu  100 20 30 5000\n", ticks_per_s=10) == (15.0, 0.0)


def test_counters_only_grow_and_the_instance_stays():
    first, second = read_stats(), read_stats()
    assert first.instance == second.instance
    assert second.cpu_seconds >= first.cpu_seconds and second.monotonic_s > first.monotonic_s
    assert first.host is not None and second.host is not None
    assert second.host.busy_s >= first.host.busy_s and first.host.boot_id == second.host.boot_id
