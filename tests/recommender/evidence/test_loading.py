"""What a snapshot holds of accuracies, and of one subject alone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from catalog.evidence.database import open_database
from catalog.exchange import import_files
from recommender.answer.respond import respond
from recommender.errors import EvidenceUnavailable, UnknownSubject
from recommender.evidence.loading import load
from recommender.evidence.model import Evidence
from recommender.evidence.snapshots import Snapshots
from recommender.ranking import Budgets, LatencyBudget, recommend
from recommender.schemas import RecommendRequest
from tests.evidence_builder import EvidenceBuilder, measurement_record, sample_records
from tests.recommender.conftest import Writer


@pytest.fixture
def all_evidence(writer: Writer, location: str) -> Iterator[Evidence]:
    environment = writer.environment()
    for subject in ("net", "other"):
        for operator in ("identity", "quantized"):
            writer.strategy(environment, operator, "mobile", 0.1, subject=subject)
            writer.judge(environment, operator, 90.0, subject=subject)
    snapshots = Snapshots(location)
    yield snapshots.current()
    snapshots.close()


def test_an_accuracy_equal_in_every_figure_is_not_taken_for_the_reference(all_evidence: Evidence) -> None:
    width_pp = {
        strategy.operator: strategy.accuracy.drop.high_pp - strategy.accuracy.drop.low_pp
        for strategy in all_evidence.select("net").strategies
        if strategy.accuracy is not None and strategy.accuracy.drop is not None
    }
    assert width_pp["identity"] == 0 < width_pp["quantized"]


def test_a_candidate_has_the_look_and_the_share_of_its_last_round(writer: Writer, location: str) -> None:
    environment = writer.environment()
    for operator, looks in (("identity", (None, None)), ("quantized", ((1, 0.5), (2, 0.3)))):
        writer.declare(environment, operator, "mobile")
        records = [
            measurement_record(
                environment,
                "net",
                operator,
                "mobile",
                number,
                samples=sample_records([0.1] * 30),
                look=look and look[0],
                error_share=look and look[1],
            )
            for number, look in enumerate(looks)
        ]
        EvidenceBuilder(writer.database).store_rounds(records)
    snapshots = Snapshots(location)
    candidates = snapshots.current().select("net").candidates
    snapshots.close()
    assert {own.operator: (own.looks, own.error_share) for own in candidates} == {
        "identity": (1, 1.0),
        "quantized": (2, 0.3),
    }


def test_the_evidence_of_one_subject_answers_as_all_of_it(all_evidence: Evidence, location: str) -> None:
    snapshots = Snapshots(location, subject="other")
    alone = snapshots.current()
    snapshots.close()
    assert list(all_evidence.subjects) == ["net", "other"] and list(alone.subjects) == ["other"]
    question = RecommendRequest(subject="other", max_latency_s=0.2, max_accuracy_drop_pp=1.0)
    assert respond(alone, question) == respond(all_evidence, question)


@pytest.mark.parametrize(("items", "status"), [("", "estimated"), ("40000", "proven"), ("400", "open")])
def test_imported_accuracies_bound_as_much_as_their_items_allow(tmp_path: Path, items: str, status: str) -> None:
    head = "subject,operator,placement,input_id,repetition,latency_s,round"
    rows = [
        f"net,{operator},phone,{item}.jpg,0,{latency_s},{number}"
        for operator, latency_s in (("identity", 0.2), ("quantized", 0.1))
        for number in (1, 2, 3)
        for item in range(30)
    ]
    (tmp_path / "own.csv").write_text("\n".join([head, *rows, ""]))
    accuracies = [
        f"net,{operator},phone,top1,{percent},{items}" for operator, percent in (("identity", 90), ("quantized", 89.5))
    ]
    head = "subject,operator,placement,metric,value_pct,items"
    (tmp_path / "accuracies.csv").write_text("\n".join([head, *accuracies, ""]))
    with open_database(tmp_path / "own.db", create=True) as database:
        import_files(database, [tmp_path / "own.csv", tmp_path / "accuracies.csv"])
        candidates = load(database).select("net").candidates
    budgets = Budgets(latency=(LatencyBudget(90, 0.15),), max_accuracy_drop_pp=1.5)
    best = recommend(candidates, budgets).recommendation
    assert best is not None and best.candidate.operator == "quantized" and best.status.value == status
    # Identity loses nothing against itself, with or without items.
    relaxed = recommend(candidates, replace(budgets, latency=(LatencyBudget(90, 0.3),), max_accuracy_drop_pp=0.0))
    assert relaxed.recommendation is not None and relaxed.recommendation.status.value == "proven"


def test_nothing_is_sent_on_the_tier_where_requests_start_whatever_it_is_called(tmp_path: Path) -> None:
    """What imported latencies do not say of other placements stays unknown."""
    head = "subject,operator,placement,input_id,repetition,latency_s,round"
    placed = (("identity", "phone"), ("identity", "hub"), ("partition", "phone-hub"))
    rows = [
        f"net,{operator},{placement},{item}.jpg,0,0.1,{number}"
        for operator, placement in placed
        for number in (1, 2)
        for item in range(30)
    ]
    (tmp_path / "own.csv").write_text("\n".join([head, *rows, ""]))
    with open_database(tmp_path / "own.db", create=True) as database:
        import_files(database, [tmp_path / "own.csv"])
        candidates = load(database).select("net").candidates
    sent = {candidate.placement: candidate.sent_bytes for candidate in candidates}
    assert sent == {"phone": 0.0, "hub": None, "phone-hub": None}


def test_a_subject_that_was_left_out_is_not_called_unknown(all_evidence: Evidence) -> None:
    left_out = replace(all_evidence, subjects={}, left_out=("subject net: TypeError; the log has more",))
    with pytest.raises(EvidenceUnavailable, match=r"evidence of 'net' cannot be used \(TypeError; .*runner verify"):
        left_out.select("net")
    with pytest.raises(UnknownSubject):
        left_out.select("other")
