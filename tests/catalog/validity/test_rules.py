"""Each rule: silent on a sound measurement, and saying the figure, the limit and the verdict on a spoiled one."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from catalog.evidence.records import MeasurementRecord, SampleRecord
from catalog.validity import Finding, judge_measurement, reason, worst
from tests.evidence_builder import link_probe_record, sample_records

Make = Callable[..., MeasurementRecord]


def broken(record: MeasurementRecord, **options: Any) -> dict[str, Finding]:
    findings = judge_measurement(record, **options)
    assert all(finding.advice for finding in findings)
    return {finding.rule: finding for finding in findings if finding.verdict != "VALID"}


def spoil(record: MeasurementRecord, tier: int, **changes: Any) -> MeasurementRecord:
    runs = list(record.tier_runs)
    runs[tier] = replace(runs[tier], **changes)
    return replace(record, tier_runs=runs)


def test_a_sound_measurement_is_valid_and_every_rule_has_looked(measurement: Make) -> None:
    findings = judge_measurement(measurement(), percentiles=[90.0])
    assert worst(findings) == "VALID" and reason(findings) is None
    assert {finding.rule for finding in findings} == {
        "link rate",
        "restart",
        "page faults",
        "memory limit",
        "throttling",
        "client starved",
        "waiting for a CPU",
        "host load",
        "steal",
        "clock",
        "warm-up",
        "outliers",
        "inputs",
    }


@pytest.mark.parametrize(("rate", "verdict"), [(1.049e6, None), (1.051e6, "INVALID"), (0.949e6, "INVALID")])
def test_a_link_beyond_its_tolerance_makes_invalid(measurement: Make, rate: float, verdict: str | None) -> None:
    record = measurement()
    probe = replace(record.link_probes[0], measured_bit_per_s=rate)
    finding = broken(replace(record, link_probes=[probe])).get("link rate")
    assert (finding.verdict if finding else None) == verdict
    assert finding is None or ("mobile-edge up, before" in str(finding) and "1 Mbit/s declared" in str(finding))


@pytest.mark.parametrize(
    ("after", "looks", "verdict"),
    [
        (9.3e7, (8.8e7, 9.7e7), "VALID"),
        (7.0e7, (6.9e7, 9.0e7), "VALID"),  # the looks of the two moments overlap
        (8.0e7, (7.9e7, 8.1e7), "VALID"),  # apart, but within the limit
        (5.0e7, (4.9e7, 5.1e7), "DOUBTFUL"),
        (1.9e8, (1.8e8, 2.0e8), "DOUBTFUL"),
    ],
)
def test_a_real_link_is_compared_with_itself_and_never_with_a_declaration(
    measurement: Make, after: float, looks: tuple[float, float], verdict: str
) -> None:
    before = link_probe_record(
        "mobile-edge",
        declared_bit_per_s=1e6,
        measured_bit_per_s=9.3e7,
        moment="before",
        discarded_bit_per_s=[8.8e7, 9.7e7],
    )
    later = replace(before, measured_bit_per_s=after, moment="after", discarded_bit_per_s=list(looks))
    findings = judge_measurement(replace(measurement(), link_probes=[before, later]))
    (drift,) = [finding for finding in findings if finding.rule.startswith("link")]
    assert (drift.rule, drift.where, drift.verdict) == ("link drift", "mobile-edge up", verdict)
    assert drift.note.startswith("93 Mbit/s (88 Mbit/s to 97 Mbit/s) before, ")


def test_a_link_that_was_probed_once_or_without_a_moment_says_nothing_of_drift(measurement: Make) -> None:
    probe = link_probe_record("mobile-edge", measured_bit_per_s=9e7, moment=None)
    for probes in ([probe, probe], [replace(probe, moment="before")]):
        findings = judge_measurement(replace(measurement(), link_probes=probes))
        assert not [finding for finding in findings if finding.rule.startswith("link")]


@pytest.mark.parametrize(
    ("tier", "changes", "rule", "verdict"),
    [
        (1, {"restarted": True}, "restart", "INVALID"),
        (1, {"oom_kills": 1}, "restart", "INVALID"),
        (1, {"window_major_faults": 9}, "page faults", "DOUBTFUL"),
        (1, {"window_major_faults": 31}, "page faults", "INVALID"),
        (0, {"window_memory_limit_events": 1}, "memory limit", "DOUBTFUL"),
        (0, {"window_throttled_s": 0.45}, "throttling", "DOUBTFUL"),
        (0, {"window_throttled_s": 0.9}, "throttling", "INVALID"),
        (0, {"window_throttled_s": 0.5}, "client starved", "DOUBTFUL"),
        (1, {"window_waited_s": 1.2}, "waiting for a CPU", "DOUBTFUL"),
    ],
)
def test_a_tier_in_trouble(measurement: Make, tier: int, changes: dict[str, Any], rule: str, verdict: str) -> None:
    finding = broken(spoil(measurement(), tier, **changes))[rule]
    assert finding.verdict == verdict and finding.figure > finding.threshold
    assert finding.where == ("mobile", "edge")[tier]


def test_throttling_that_the_quota_explains_is_sound(measurement: Make) -> None:
    """Half a CPU: one second of computing comes with a second of throttling, beside it the server's own thread."""
    busy = {"provider": "CPUExecutionProvider", "window_cpu_seconds": 1.0, "window_throttled_s": 1.0}
    assert "throttling" not in broken(spoil(measurement(), 0, **busy))


def test_little_waiting_is_sound_however_little_was_computed(measurement: Make) -> None:
    assert broken(spoil(measurement(), 0, window_cpu_seconds=0.01, window_waited_s=0.19)) == {}


@pytest.mark.parametrize(("other", "steal", "rule"), [(0.9, 0.0, "host load"), (0.0, 0.1, "steal")])
def test_a_host_that_others_use_makes_doubtful_and_says_who(
    measurement: Make, other: float, steal: float, rule: str
) -> None:
    others = [{"name": "backup", "pid": 7, "cpus": 0.9}]
    load = {"cpus": 2, "other_cpus": other, "steal_cpus": steal, "others": others}
    findings = broken(measurement(host_load=load))
    assert list(findings) == [rule] and findings[rule].verdict == "DOUBTFUL"
    assert rule != "host load" or "backup 7: 0.90 CPUs" in str(findings[rule])


def test_a_clock_may_be_slewed_but_not_set(measurement: Make) -> None:
    hours = measurement().started_at + timedelta(hours=2)
    assert broken(measurement(clock_jump_s=-3.0, finished_at=hours)) == {}
    assert broken(measurement(clock_jump_s=-3.0))["clock"].verdict == "DOUBTFUL"


def test_a_warm_up_that_was_still_slow_at_its_end(measurement: Make) -> None:
    """30 % slower throughout; only noise of the same size in both directions is no finding."""
    latency_s = [sample.latency_s for sample in measurement().samples]
    finding = broken(measurement(warmup_latency_s=[1.3 * value for value in latency_s]))["warm-up"]
    assert finding.verdict == "DOUBTFUL" and finding.figure == pytest.approx(30)
    warming = [value * (1.3 if index < 15 else 1.0) for index, value in enumerate(latency_s)]
    assert broken(measurement(warmup_latency_s=warming)) == {}
    noisy = [value * (1.3 if index % 2 else 0.7) for index, value in enumerate(latency_s)]
    assert broken(measurement(warmup_latency_s=noisy)) == {}


def test_no_warm_up_at_all_is_doubtful(measurement: Make) -> None:
    assert broken(measurement(warmup_latency_s=[]))["warm-up"].verdict == "DOUBTFUL"


def sized(measurement: Make, latencies_s: list[float], *, steady: bool = True, **changes: Any) -> MeasurementRecord:
    """Return a round that warmed up with one input until steady; sizes are shuffled, latencies grow with them."""
    sizes = {f"{index:04d}": 1000 + 37 * index % 1000 for index in range(len(latencies_s))}
    samples = sample_records(
        factor * (0.02 + size / 20_000) for factor, size in zip(latencies_s, sizes.values(), strict=True)
    )
    protocol = {"warmup_steady": steady, "warmup_inputs": ["0029"] * 5, "input_bytes": sizes}
    return measurement(samples=samples, protocol=protocol, warmup_latency_s=[0.2, *[0.05] * 4], **changes)


def test_a_warm_up_until_steady_is_valid(measurement: Make) -> None:
    findings = judge_measurement(sized(measurement, [1.0] * 30))
    assert worst(findings) == "VALID"
    assert {"warm-up", "outliers"} <= {finding.rule for finding in findings}, "both rules looked"


def test_a_warm_up_that_ended_while_the_latency_fell_is_doubtful(measurement: Make) -> None:
    """Tell a latency that still falls from the jitter of a throttled tier, which is never steady either."""
    record = sized(measurement, [1.0] * 30, steady=False)
    falling = [0.5, *(0.3 * 0.8**step for step in range(9))]
    finding = broken(replace(record, warmup_latency_s=falling))["warm-up"]
    assert finding.verdict == "DOUBTFUL" and "10 inferences, the last ones still falling" in str(finding)
    jitter = [0.5, *[0.05, 0.1] * 4, 0.05]
    assert "warm-up" not in broken(replace(record, warmup_latency_s=jitter))


def test_samples_that_still_fell_after_a_warm_up_until_steady_are_doubtful(measurement: Make) -> None:
    """Find 30 % slower inputs in the first third; slow ones anywhere, or noise in both directions, are no finding."""
    finding = broken(sized(measurement, [1.3] * 10 + [1.0] * 20))["warm-up"]
    assert finding.verdict == "DOUBTFUL" and finding.figure == pytest.approx(30, abs=3)
    assert "warm-up" not in broken(sized(measurement, [1.0] * 20 + [1.3] * 10))
    assert "warm-up" not in broken(sized(measurement, [1.3 if index % 2 else 0.7 for index in range(30)]))


def test_outliers_of_inputs_sent_once_are_told_from_large_inputs(measurement: Make) -> None:
    slow = sized(measurement, [1.0] * 26 + [3.0] * 4)
    finding = broken(slow)["outliers"]
    assert finding.verdict == "DOUBTFUL" and finding.figure == pytest.approx(100 * 4 / 30)
    # Five inputs of ten times the size may take ten times as long: nothing of their size came twice.
    large = [
        replace(sample, latency_s=10 * sample.latency_s) if sample.seq < 5 else sample for sample in slow.samples[:26]
    ]
    sizes = {name: size * (10 if name < "0005" else 1) for name, size in slow.protocol["input_bytes"].items()}
    assert "outliers" not in broken(replace(slow, samples=large, protocol={**slow.protocol, "input_bytes": sizes}))


@pytest.mark.parametrize("sizes", [None, [], {"0001": "large"}, {}])
def test_sizes_from_elsewhere_may_be_anything(measurement: Make, sizes: Any) -> None:
    record = sized(measurement, [1.0] * 30)
    findings = judge_measurement(replace(record, protocol={**record.protocol, "input_bytes": sizes}))
    assert {"warm-up", "outliers"}.isdisjoint(finding.rule for finding in findings)


def test_outliers_are_told_from_large_inputs(measurement: Make) -> None:
    samples = list(measurement().samples)
    slow = [replace(sample, latency_s=3 * sample.latency_s) if sample.seq < 4 else sample for sample in samples]
    finding = broken(measurement(samples=slow))["outliers"]
    assert finding.verdict == "DOUBTFUL" and finding.figure == pytest.approx(100 * 4 / 30)
    large = [replace(sample, latency_s=9 * sample.latency_s) for sample in samples]
    latency_s = [sample.latency_s for sample in large]
    assert "outliers" not in broken(measurement(samples=large, warmup_latency_s=latency_s))


def test_too_few_inputs_for_a_percentile_that_is_asked(measurement: Make) -> None:
    assert broken(measurement(), percentiles=[50, 90]) == {}
    finding = broken(measurement(), percentiles=[99.0])["inputs"]
    assert (finding.figure, finding.threshold, finding.where) == (30, 299, "p99")


def test_inputs_that_a_round_drew_are_counted_over_all_rounds(measurement: Make) -> None:
    samples = [replace(sample, stratum="body") for sample in measurement().samples]
    assert broken(measurement(samples=samples), percentiles=[99.0]) == {}


def test_what_was_not_recorded_is_not_judged(measurement: Make) -> None:
    """Judge nothing in evidence from before there were counters, or from elsewhere."""
    old = measurement(
        warmup_latency_s=None, window_s=None, clock_jump_s=None, host_load=None, tier_runs=[], link_probes=[]
    )
    assert judge_measurement(old) == ()
    assert judge_measurement(measurement(status="failed", samples=[], verdict="INVALID")) == ()
    alone = [SampleRecord(0, "a", 0, 0.1, 0.0)]
    assert {finding.rule for finding in judge_measurement(replace(old, samples=alone), percentiles=[90])} == {"inputs"}
