"""Reasons beside findings, from parts whose numbers are known; and none where a part is missing."""

from typing import Any

import numpy as np
import pytest

from catalog.evidence.records import LinkBytes, PartTimes, SampleRecord
from runner.reports.html.report_data import EnvironmentReport, gather_report
from runner.reports.html.summary import QuestionSummary, summarise
from tests.evidence_builder import measurement_record, sample_records, tier_run_record

MEGABIT = 125_000
RATES = {"mobile-edge": 200e6, "edge-cloud": 1e6}
LINKS = {"mobile": [], "edge": ["mobile-edge"], "cloud": ["mobile-edge", "edge-cloud"]}
LIMITS = {"mobile": (1.0, 2**30), "edge": (2.0, 4 * 2**30), "cloud": (4.0, 16 * 2**30)}
COMPUTE_S = {"mobile": 8.0, "edge": 4.0, "cloud": 1.0}
# Megabits of the inputs: large ones make the cloud slow.
INPUTS = {"large": np.linspace(8, 60, 25), "small": np.linspace(0.5, 1.5, 25)}


def stored(filling: Any, made: Any, *, parts: bool = True, rounds: int = 2) -> EnvironmentReport:
    """Store identity on three tiers, whose latency is compute and the input's bits over the rates of its links."""
    environment = filling.environment()
    subjects = [made.Subject(name) for name in INPUTS]
    filling.declare(environment, subjects, [("identity", tier) for tier in LINKS], rounds)
    filling.store_rounds(
        measurement_record(
            environment, subject, "identity", tier, number,
            samples=_samples(subject, tier, number, parts=parts),
            conditions={"links": [{"name": link, "up_bit_per_s": RATES[link]} for link in LINKS[tier]]},
            protocol={
                "input_bytes": {f"{seq:04d}.png": int(size * MEGABIT) for seq, size in enumerate(sizes)},
                "provider_nodes": {tier: {"CUDAExecutionProvider": 3, "CPUExecutionProvider": 1}}
                if tier == "cloud" and subject == "small"
                else {tier: {"CPUExecutionProvider": 4}},
            },
            tier_runs=[_tier_run(name) for name in LIMITS if name == tier],
        )
        for subject, sizes in INPUTS.items()
        for tier in LINKS
        for number in range(1, rounds + 1)
    )  # fmt: skip
    return gather_report(filling.database).environments[0]


def _tier_run(tier: str) -> Any:
    cpus, memory_bytes = LIMITS[tier]
    # Mobile works at the limit of its memory; all tiers compute with all of their CPUs.
    peak = int((0.95 if tier == "mobile" else 0.4) * memory_bytes)
    spent = {"window_cpu_seconds": 25 * COMPUTE_S[tier] * (cpus if tier == "mobile" else 0.5 * cpus)}
    return tier_run_record(tier, cpus=cpus, memory_bytes=memory_bytes, memory_peak_bytes=peak, **spent)


def _samples(subject: str, tier: str, number: int, *, parts: bool) -> list[SampleRecord]:
    # Rounds differ by a little, as rounds do.
    wire_s = sum(INPUTS[subject] * 1e6 / RATES[link] for link in LINKS[tier]) + np.zeros(25)
    latencies_s = (COMPUTE_S[tier] + wire_s) * (1 + 0.001 * number)
    if not parts:
        return sample_records(latencies_s, input_name="{:04d}.png")
    return [
        SampleRecord(
            seq=seq,
            input_id=f"{seq:04d}.png",
            repetition=0,
            latency_s=float(latency_s),
            transmission_s=float(latency_s) - COMPUTE_S[tier],
            parts=[PartTimes(tier, 0.0, COMPUTE_S[tier], 0.0, 0.0)],
            links=[LinkBytes(link, int(INPUTS[subject][seq] * MEGABIT), 10) for link in LINKS[tier]],
        )
        for seq, latency_s in enumerate(latencies_s)
    ]


def rq1(report: EnvironmentReport) -> QuestionSummary:
    return summarise(report.results, report.causes)[0]


def test_what_the_inputs_the_links_and_the_tiers_are_like(filling: Any, made: Any) -> None:
    reasons = rq1(stored(filling, made)).reasons
    assert reasons[:4] == (
        "The inputs are large 8 to 60 Mbit and small 0.5 to 1.5 Mbit; the range of large is 52x as wide as that of "
        "small.",
        "Links: mobile-edge 200 Mbit/s and edge-cloud 1 Mbit/s.",
        "Edge has 2x the CPUs and 4x the memory of mobile.",
        "Cloud has 4x the CPUs and 16x the memory of mobile and 2x the CPUs and 4x the memory of edge.",
    )


def test_nodes_and_limits_of_tiers(filling: Any, made: Any) -> None:
    reasons = rq1(stored(filling, made)).reasons
    assert (
        "On cloud, the accelerator runs 0.00 to 75.00 % of the nodes of identity (large 0.00 % and small 75.00 %)."
        in (reasons)
    )
    assert "Identity on mobile works at the limit of its 1 CPU in large and small." in reasons
    assert "Identity on mobile works at the limit of its memory (large 95 % and small 95 %)." in reasons
    assert not any("on edge works" in reason or "on cloud works" in reason for reason in reasons)


def test_latency_over_the_size_of_the_input_names_the_link(filling: Any, made: Any) -> None:
    # 1 Mbit takes 1 s at 1 Mbit/s and 5 ms at 200 Mbit/s; the rounds are 0.15 % slower on average.
    (cloud,) = (text for text in rq1(stored(filling, made)).reasons if text.endswith("to identity on cloud."))
    assert cloud == "Each further Mbit of input adds 1.01 s in large and 1.01 s in small to identity on cloud."


def test_a_difference_consists_of_parts_of_known_size(filling: Any, made: Any) -> None:
    reasons = rq1(stored(filling, made)).reasons
    (large,) = (text for text in reasons if text.startswith("Identity on edge is faster than identity on cloud"))
    # 34 Mbit on average at 1 Mbit/s, of which computing on the cloud makes 3 s good.
    assert large.startswith(
        "Identity on edge is faster than identity on cloud in large: the mean differs by transmission"
    )
    assert "−34.0" in large and "compute +3 s" in large
    assert "0 Mbit with identity on edge and 34 Mbit with identity on cloud cross edge-cloud (1 Mbit/s)" in large
    assert "at the rates of the links the bytes take −34 s, where the medians differ by −31.0" in large
    (small,) = (text for text in reasons if text.startswith("Identity on edge is slower than identity on cloud"))
    assert "in small: the mean differs by compute +3 s" in small


@pytest.mark.parametrize("parts", [True, False])
def test_without_parts_only_bytes_and_rates_are_a_reason(filling: Any, made: Any, parts: bool) -> None:
    reasons = rq1(stored(filling, made, parts=parts)).reasons
    (large,) = (text for text in reasons if text.startswith("Identity on edge is faster than identity on cloud"))
    assert ("the mean differs by" in large) == parts
    # What an uncut model sends is its input.
    assert "34 Mbit with identity on cloud cross edge-cloud (1 Mbit/s)" in large


def test_without_anything_measured_of_it_there_is_no_reason(filling: Any, made: Any) -> None:
    environment, subject = filling.environment(), made.Subject("net")
    medians = {("identity", "mobile"): 0.02, ("identity", "edge"): 0.01}
    filling.declare(environment, [subject], list(medians), 2)
    filling.exact(environment, subject, medians, rounds=2)
    assert rq1(gather_report(filling.database).environments[0]).reasons == ()


@pytest.mark.parametrize(
    "conditions",
    [
        {"links": {"edge-cloud": 1e6}, "tiers": []},
        {"links": [{"name": "edge-cloud"}, "edge-cloud", {"up_bit_per_s": 1}], "tiers": [{"name": "edge"}]},
        {"links": [{"name": "edge-cloud", "up_bit_per_s": "fast"}], "tiers": [{"name": "edge", "cpus": 0}]},
    ],
)
def test_conditions_that_are_stated_in_part_are_no_reason(filling: Any, made: Any, conditions: dict[str, Any]) -> None:
    environment, subject = filling.environment(), made.Subject("net")
    filling.declare(environment, [subject], [("identity", tier) for tier in ("mobile", "edge")], 1)
    filling.store_rounds(
        measurement_record(
            environment, "net", "identity", tier, 1,
            samples=sample_records([compute_s] * 6),
            conditions=conditions,
            protocol={"input_bytes": ["large"], "provider_nodes": {"edge": 4}},
        )
        for tier, compute_s in (("mobile", 0.02), ("edge", 0.01))
    )  # fmt: skip
    assert rq1(gather_report(filling.database).environments[0]).reasons == ()
