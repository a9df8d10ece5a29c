"""Sentences against numbers worked out by hand."""

from typing import Any

import pytest

from catalog.analysis import AnalysisSettings, SubjectResult, analyse_subject
from catalog.artifact_details import DISTANCE_DETAIL, OutputDistance
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.records import ArtifactRecord
from catalog.evidence.writing import upsert_artifact
from runner.reports.html.operator_sentences import study_accuracies
from runner.reports.html.sentences import codes_of, listed, scope
from runner.reports.html.study_tables import effect_tables
from runner.reports.html.subject_section import ranking_table
from runner.reports.html.summary import QuestionSummary, summarise
from runner.reports.ranking import output_warnings

TIERS = ("mobile", "edge", "cloud")
ACROSS = ("mobile-edge", "edge-cloud", "mobile-cloud")


def analysed(
    filling: Any, subjects: dict[Any, dict[tuple[str, str], float]], *, rounds: int = 3
) -> list[SubjectResult]:
    """Results of subjects with these medians, in seconds."""
    environment = filling.environment()
    names = list(dict.fromkeys(name for medians in subjects.values() for name in medians))
    filling.declare(environment, list(subjects), names, rounds)
    for subject, medians in subjects.items():
        filling.exact(environment, subject, medians, rounds=rounds)
    with filling.database.session() as session:
        evidence = strategy_evidence(session)
    return [analyse_subject([e for e in evidence if e.subject == s.name], AnalysisSettings()) for s in subjects]


def by_question(results: list[SubjectResult]) -> dict[str, QuestionSummary]:
    return {item.question: item for item in summarise(results)}


def identity(*medians_s: float) -> dict[tuple[str, str], float]:
    return {("identity", tier): median_s for tier, median_s in zip(TIERS, medians_s, strict=True)}


def test_an_average_over_subjects_with_its_range(filling: Any, made: Any) -> None:
    # Mobile by edge is 2 and 3: 2.5 on average.
    results = analysed(
        filling, {made.Subject("a"): identity(0.02, 0.01, 0.0102), made.Subject("b"): identity(0.03, 0.01, 0.005)}
    )
    summary = by_question(results)["RQ1"]
    assert summary.answers == (
        "Identity is fastest on edge or cloud (not shown to differ) in one of two subjects (a) and on cloud in one "
        "(b).",
        "The median latency of identity is lowest on edge (a 10 ms) and cloud (b 5 ms) and highest on mobile (a 20 ms "
        "and b 30 ms).",
    )
    assert summary.findings[0] == (
        "Edge shows 2.50x lower average median latency than mobile across two subjects (2.00x to 3.00x); different in "
        "all. As in the paper: Cliff's delta large in all."
    )
    assert summary.findings[2].startswith(
        "Cloud shows 2.00x lower median latency than edge in one of two subjects (b) and 1.02x higher median latency "
        "in one (a); different in one (b), equivalent within 5 % in one (a). As in the paper: Cliff's delta large in "
        "all; the two analyses disagree in a."
    )


def test_one_subject_is_named_and_directions_are_told_apart(filling: Any, made: Any) -> None:
    medians = {
        **identity(0.02, 0.01, 0.02),
        ("quantized", "mobile"): 0.025,
        ("quantized", "edge"): 0.005,
        ("quantized", "cloud"): 0.02,
    }
    summary = by_question(analysed(filling, {made.Subject("net"): medians}))
    assert summary["RQ1"].findings[0].startswith("Edge shows 2.00x lower median latency than mobile in net; different.")
    assert summary["RQ2"].answers[:2] == (
        "Quantized against identity on the same tier: faster in one, slower in one, equivalent in one of three "
        "comparisons.",
        "Quantized is fastest on edge in net.",
    )
    against_identity = [finding for finding in summary["RQ2"].findings if "identity" in finding]
    assert [item.partition(";")[0] for item in against_identity[:2]] == [
        "On mobile, quantized shows 1.25x higher median latency than identity in net",
        "On edge, quantized shows 2.00x lower median latency than identity in net",
    ]
    assert against_identity[2] == (
        "On cloud, no difference between quantized and identity is shown: equivalent within 5 %. As in the paper: "
        "Cliff's delta not significant."
    )


def test_opposite_directions_in_two_subjects(filling: Any, made: Any) -> None:
    results = analysed(
        filling, {made.Subject("a"): identity(0.04, 0.01, 0.08), made.Subject("b"): identity(0.01, 0.02, 0.08)}
    )
    assert by_question(results)["RQ1"].findings[0] == (
        "Edge shows 4.00x lower median latency than mobile in one of two subjects (a) and 2.00x higher median latency "
        "in one (b); different in all. As in the paper: Cliff's delta large in all."
    )


def test_one_round_decides_nothing(filling: Any, made: Any) -> None:
    summary = by_question(analysed(filling, {made.Subject("net"): identity(0.02, 0.01, 0.04)}, rounds=1))["RQ1"]
    assert summary.answers == (
        "What was measured does not decide where identity is fastest everywhere.",
        "The median latency of identity is lowest on edge (net 9.98 ms) and highest on cloud (net 39.9 ms).",
    )
    assert summary.findings[0] == (
        "Edge shows 2.00x lower median latency than mobile in net. As in the paper: Cliff's delta large."
    )


PARTITIONED = {
    **identity(0.02, 0.01, 0.04),
    ("partition", "mobile-edge"): 0.015,
    ("partition", "edge-cloud"): 0.06,
    ("partition", "mobile-cloud"): 0.09,
}


def test_a_partition_against_the_whole(filling: Any, made: Any) -> None:
    summary = by_question(analysed(filling, {made.Subject("net"): PARTITIONED}))["RQ4"]
    assert summary.answers == (
        "Partition is fastest on mobile-edge in net.",
        "The median latency of partition is lowest on mobile-edge (net 15 ms) and highest on mobile-cloud (net 90 ms).",
        "Partition against identity on its fastest tier: slower in one comparison.",
    )
    texts = [finding.partition(" in net")[0] for finding in summary.findings]
    assert texts == [
        "Partition on mobile-edge shows 1.33x lower median latency than identity on mobile",
        "Partition on mobile-edge shows 1.50x higher median latency than identity on edge",
        "Partition on mobile-edge shows 2.67x lower median latency than identity on cloud",
        "Partition on mobile-edge shows 4.00x lower median latency than on edge-cloud",
        "Partition on mobile-edge shows 6.00x lower median latency than on mobile-cloud",
        "Partition on edge-cloud shows 1.50x lower median latency than on mobile-cloud",
    ]
    assert len(summary.others) == 6  # two placements more, each against three single tiers


def test_every_pair_of_the_study_is_told_once(filling: Any, made: Any) -> None:
    medians = {name: 0.01 * 1.1**rank for rank, name in enumerate(made.STRATEGIES)}
    summary = by_question(analysed(filling, {made.Subject("net"): medians}))
    texts = {question: len(item.pairs) for question, item in summary.items()}
    # Pairs of the families, by the later of the two operators: each tier 3; Q 3 + 3; E 6 + 3; P 12 + 6 with Q and E;
    # QE 3 + 9, with P 3; QEP 3 + 9 and with I, Q, E, P on one placement 3 + 3 + 3 + 1.
    assert texts == {"RQ1": 3, "RQ2": 6, "RQ3": 9, "RQ4": 18, "RQ5": 37}


def test_accuracies_are_told_with_both_ways_of_counting(filling: Any, made: Any) -> None:
    net = made.Subject("net")
    medians = {(operator, tier): 0.01 for operator in ("identity", "early_exit") for tier in TIERS}
    environment = filling.environment()
    filling.declare(environment, [net], list(medians), 2)
    filling.exact(environment, net, medians, rounds=2)
    filling.judge(environment, [net], ["identity", "early_exit"])
    with filling.database.session() as session:
        result = analyse_subject(strategy_evidence(session), AnalysisSettings())
    (drop,) = result.drops
    accuracies = study_accuracies([result])
    assert accuracies is not None
    ((pooled, once),) = accuracies.both()
    # Top-1 falls, top-5 does not; three tiers share one measurement.
    assert (pooled.test.count, once.test.count) == (3, 1)
    summary = by_question([result])["RQ3"]
    assert f"Early exit has a top-1 drop of {drop.drop.drop_pp:.2f} points in net, shown." in summary.answers
    assert "over 3 accuracies that differ: p 0.25, not significant at 0.05" in summary.findings[-2]
    assert "with each counted once 1 remain: p 1, not significant" in summary.findings[-2]


def test_matrices_hold_one_subject_in_each_triangle(filling: Any, made: Any, read_page: Any) -> None:
    results = analysed(
        filling, {made.Subject("a"): PARTITIONED, made.Subject("b"): PARTITIONED | identity(0.02, 0.04, 0.02)}
    )
    evidence = [strategy.evidence for result in results for strategy in result.strategies]
    tables = [read_page(effect_table).text for effect_table in effect_tables(results, codes_of(evidence))]
    # Upper: mobile slower than edge, both faster than cloud. Lower: mobile faster than edge, as fast as cloud.
    assert tables[0] == "tiers:identity: a above, b below (as Table 5) M E C M - L -L E -L - -L C L -"
    assert tables[1] == "partitions:partition: a above, b below (as Table 12) ME EC MC ME - -L -L EC -L - -L MC -L -L -"
    assert tables[2] == (
        "partitions:partition, a: rows against columns (as Table 13) P \\ I M E C ME -L L -L EC L L L MC L L L"
    )


@pytest.mark.parametrize(
    ("names", "said"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_lists_of_names(names: list[str], said: str) -> None:
    assert listed(names) == said


def test_scopes() -> None:
    assert scope(["a"], ["a"], note="2x") == "in a"
    assert scope(["a", "b"], ["a", "b"], note="2x") == "across two subjects (2x)"
    assert scope(["a"], ["a", "b", "c"], note="2x") == "in one of three subjects (a; 2x)"
    assert scope(["b"], ["a", "b", "c"], again=True) == "in one (b)"


def test_outputs_far_from_identitys_are_told_with_the_operators_speed(filling: Any, made: Any) -> None:
    subject, environment = made.Subject("a"), filling.environment()
    medians = {("identity", "edge"): 0.02, ("early_exit", "edge"): 0.01}
    filling.declare(environment, [subject], list(medians), 3)
    filling.exact(environment, subject, medians, rounds=3)
    far = OutputDistance(32, "calibration", 0.8, 0.6, True)
    key, details = "artifact:a:early_exit", {DISTANCE_DETAIL: far.as_details()}
    with filling.database.session() as session:
        upsert_artifact(session, ArtifactRecord(key, "a", "early_exit", [], "ready", details=details))
        evidence = strategy_evidence(session)
    result = analyse_subject(evidence, AnalysisSettings())
    answers = by_question([result])["RQ3"].answers
    assert "Early exit gives other outputs than identity: they differ by 80 % in a." in answers
    assert "early_exit</b>: outputs differ from identity" in str(ranking_table(result))
    assert output_warnings(result) == [f"early_exit: {far.warning}"]
