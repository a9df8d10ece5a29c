"""The view `slo_status`: what the recommender answers to every SLO, and whether something was measured since."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from catalog.analysis import AnalysisSettings
from catalog.evidence.allowed import utc_now
from catalog.evidence.database import Database, open_database
from catalog.evidence.writing import sync_strategies
from recommender.answer.respond import respond
from recommender.evidence.loading import load
from recommender.schemas import RecommendRequest
from runner.reports.slo_status import store_results
from tests.evidence_builder import EvidenceBuilder, measurement_record, sample_records, strategy_record

pytestmark = pytest.mark.both_databases
EASY, HARD = {"latency": {"p90": "1s"}}, {"latency": {"p90": "5ms"}}


@pytest.fixture
def builder(database_url: str) -> Iterator[EvidenceBuilder]:
    """Two strategies in three rounds, of about 10 ms and 50 ms, and the stored answers to two SLOs."""
    with open_database(database_url) as database:
        builder = EvidenceBuilder(database)
        environment = builder.environment()
        places = {"mobile": 0.05, "edge": 0.01}
        with database.session() as session:
            records = [strategy_record(environment, "net", "identity", place) for place in places]
            sync_strategies(session, environment, records)
            session.commit()
        builder.store_rounds(
            measurement_record(environment, "net", "identity", place, number, samples=samples(level_s))
            for number in (1, 2, 3)
            for place, level_s in places.items()
        )
        builder.slos({"easy": EASY, "hard": HARD})
        store_results(database, AnalysisSettings())
        yield builder


def samples(level_s: float) -> Any:
    return sample_records([level_s * (1 + 0.001 * index) for index in range(30)])


def rows(database: Database) -> dict[str, dict[str, Any]]:
    with database.session() as session:
        return {row["slo"]: dict(row) for row in session.execute(text("SELECT * FROM slo_status")).mappings()}


def test_it_is_the_recommenders_answer(builder: EvidenceBuilder) -> None:
    stored = rows(builder.database)
    answer = respond(load(builder.database), RecommendRequest(subject="net", slo="easy"))
    best = answer.recommendation
    assert best is not None
    easy = stored["easy"]
    assert (easy["status"], easy["operator"], easy["placement"]) == (answer.status, "identity", "edge")
    assert (easy["probability"], easy["latency_s"]) == (answer.probability, best.latency.percentile_s)
    assert (easy["percentile"], easy["provenance"], easy["proven_operator"]) == (90.0, "measured", None)
    hard = stored["hard"]
    assert (hard["status"], hard["operator"], hard["latency_s"]) == ("infeasible", None, None)


def test_a_later_round_makes_an_answer_an_old_one_until_it_is_given_again(builder: EvidenceBuilder) -> None:
    assert {row["standing"] for row in rows(builder.database).values()} == {"current"}
    later = utc_now() + timedelta(seconds=5)
    fourth = measurement_record(1, "net", "identity", "edge", 4, samples=samples(0.01), finished_at=later)
    builder.store_rounds([fourth])
    assert {row["standing"] for row in rows(builder.database).values()} == {"outdated"}


def test_answers_to_changed_or_removed_targets_are_gone(builder: EvidenceBuilder) -> None:
    builder.slos({"easy": EASY, "hard": {"latency": {"p90": "6ms"}}})
    assert set(rows(builder.database)) == {"easy"}
    builder.slos({"hard": HARD})
    assert rows(builder.database) == {}
    store_results(builder.database, AnalysisSettings())
    assert set(rows(builder.database)) == {"hard"}


def test_what_has_no_accuracy_yet_is_unmeasured_and_not_infeasible(builder: EvidenceBuilder) -> None:
    builder.slos({"exact": {"latency": {"p90": "1s"}, "accuracy": {"min": 50.0}}})
    store_results(builder.database, AnalysisSettings())
    assert [(row["status"], row["operator"]) for row in rows(builder.database).values()] == [("unmeasured", None)]
