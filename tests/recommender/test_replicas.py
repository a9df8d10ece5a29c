"""Answers from rounds that several testbeds of one class shared."""

from pathlib import Path

import numpy as np
import pytest
from sqlmodel import Session

from catalog.evidence.database import open_database
from catalog.evidence.writing import sync_strategies
from catalog.statistics.posterior import ROUNDS_MAX
from recommender.answer.respond import respond
from recommender.evidence.loading import load
from recommender.evidence.model import Evidence
from recommender.ranking import Budgets, LatencyBudget, Status
from recommender.ranking.candidates import on_rounds, samples_of
from recommender.ranking.racing import RaceQuestion, race_state
from recommender.schemas import RecommendRequest
from tests.evidence_builder import EvidenceBuilder, measurement_record, sample_records, strategy_record

ROUND = ("left", "left", "right", "right")


def evidence(path: Path, testbeds: tuple[str | None, ...]) -> Evidence:
    """Store a strategy whose second board is slower, and load it."""
    with open_database(path, create=True) as database:
        builder = EvidenceBuilder(database)
        environment = builder.environment()
        with database.session() as session:
            declare(session, environment)
        rng = np.random.default_rng(1)
        builder.store_rounds(
            measurement_record(
                environment, "net", "identity", "edge", number, testbed=testbed,
                samples=sample_records((0.1 if number < 3 else 0.14) * np.exp(rng.normal(0, 0.02, 30))),
            )
            for number, testbed in enumerate(testbeds, 1)
        )  # fmt: skip
        return load(database)


def declare(session: Session, environment: int) -> None:
    sync_strategies(session, environment, [strategy_record(environment, "net", "identity", "edge")])
    session.commit()


def test_an_answer_says_on_how_many_boards_it_rests_and_is_wider(sqlite_template: Path, tmp_path: Path) -> None:
    margins = {}
    for name, testbeds in (("boards", ROUND), ("one", ("left",) * 4), ("older", (None,) * 4)):
        loaded = evidence(tmp_path / f"{name}.db", testbeds)
        answer = respond(loaded, RecommendRequest(subject="net"))
        assert answer.recommendation is not None
        interval = answer.recommendation.latency
        margins[name] = interval.high_s / interval.low_s if interval.high_s and interval.low_s else float("inf")
        said = "rounds ran on 2 testbeds of one class (left, right), and intervals hold for machines of that class"
        assert any(warning.startswith(said) for warning in answer.warnings) is (name == "boards")
    assert margins["boards"] > 1.5 * margins["one"] == pytest.approx(1.5 * margins["older"])


def test_rounds_keep_their_boards(tmp_path: Path) -> None:
    (subject,) = evidence(tmp_path / "a.db", ROUND).subjects["net"]
    candidate = subject.strategies[0].candidate
    assert candidate is not None
    whole, part = samples_of(candidate).hosts, samples_of(on_rounds(candidate, [2, 3])).hosts
    assert whole is not None and whole.tolist() == [0, 0, 1, 1]
    assert part is not None and part.tolist() == [0, 1]


# Five rounds are a look; the boards differ by a third, and rounds by a few per cent.
LOOK = ("left", "left", "right", "right", "right")


def test_a_race_ends_where_only_another_board_would_make_sure(tmp_path: Path) -> None:
    question = RaceQuestion("asked", Budgets((LatencyBudget(90, 0.14),)))
    one = tuple("left" for _ in LOOK)
    for name, testbeds in (("boards", LOOK), ("one", one)):
        (subject,) = evidence(tmp_path / f"{name}.db", testbeds).subjects["net"]
        candidate = subject.strategies[0].candidate
        assert candidate is not None
        (contest, *_) = race_state([candidate], [question]).contests
        assert contest.answer.recommendation is not None
        assert contest.answer.recommendation.status is not Status.PROVEN
        # Of a single board, whose rounds drift as much, further rounds are worth measuring.
        assert contest.decided is (name == "boards")


def test_a_budget_that_the_boards_miss_is_raced_for_no_longer_than_rounds_tell(tmp_path: Path) -> None:
    loaded = evidence(tmp_path / "a.db", LOOK)
    (subject,) = loaded.subjects["net"]
    candidate = subject.strategies[0].candidate
    assert candidate is not None and candidate.rounds < ROUNDS_MAX
    (contest, *_) = race_state([candidate], [RaceQuestion("asked", Budgets((LatencyBudget(90, 0.11),)))]).contests
    assert contest.answer.infeasible is Status.OPEN and contest.decided
    to_do = respond(loaded, RecommendRequest(subject="net", max_latency_s=0.11)).to_do
    assert to_do is not None and to_do.command is None
    assert to_do.words == (
        "More rounds on left and right would not show whether it keeps the budgets, because 2 testbeds say little "
        "about others of their class: measure on more testbeds with the same `replicas`"
    )


def test_an_answer_says_how_many_boards_would_make_sure(tmp_path: Path) -> None:
    loaded = evidence(tmp_path / "a.db", LOOK)
    answer = respond(loaded, RecommendRequest(subject="net", max_latency_s=0.17))
    assert answer.to_do is not None and answer.to_do.command is None
    said = (
        "More rounds on left and right would not prove it, because 2 testbeds say little about others of their class: "
    )
    assert answer.to_do.words.startswith(said)
    assert answer.to_do.words.endswith("testbeds with the same `replicas`, all measured, should make sure")
    near = respond(loaded, RecommendRequest(subject="net", max_latency_s=0.14))
    assert near.to_do is not None and "not even 20 of their class would" in near.to_do.words
