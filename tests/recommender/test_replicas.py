"""Answers from rounds that several testbeds of one class shared."""

from pathlib import Path

import numpy as np
import pytest
from sqlmodel import Session

from catalog.evidence.database import open_database
from catalog.evidence.writing import sync_strategies
from recommender.answer.respond import respond
from recommender.evidence.loading import load
from recommender.evidence.model import Evidence
from recommender.ranking.candidates import on_rounds, samples_of
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
