"""Which answers are given where the question arrives, and that they are the same ones."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recommender.errors import UnknownSubject
from recommender.evidence import snapshots
from recommender.evidence.loading import load
from recommender.evidence.snapshots import Snapshots
from recommender.http.questions import AnswerCache
from recommender.schemas import RecommendRequest


@pytest.fixture
def opened(path: Path, filled: Any) -> Iterator[Snapshots]:
    database = Snapshots(str(path))
    yield database
    database.close()


def question(max_latency_s: float, **more: Any) -> RecommendRequest:
    return RecommendRequest(subject="net", max_latency_s=max_latency_s, **more)


def test_what_was_never_asked_before_is_not_answered_at_once(opened: Snapshots) -> None:
    answers = AnswerCache(opened, quick_s=60)
    assert answers.at_once(question(0.2)) is None
    first = answers.json_for(question(0.2))
    assert answers.at_once(question(0.2)) is first
    assert answers.at_once(question(0.2, latency_percentile=50)) is None


def test_other_figures_are_answered_at_once_with_the_same_answer(opened: Snapshots) -> None:
    answers = AnswerCache(opened, quick_s=60)
    answers.json_for(question(0.2))
    assert answers.at_once(question(0.3)) == AnswerCache(opened).json_for(question(0.3))


def test_what_took_long_is_not_answered_at_once(opened: Snapshots) -> None:
    answers = AnswerCache(opened, quick_s=0)
    answers.json_for(question(0.2))
    assert answers.at_once(question(0.3)) is None


def test_new_evidence_is_read_elsewhere_and_then_answers(opened: Snapshots, filled: Any) -> None:
    answers = AnswerCache(opened, quick_s=60)
    before = answers.json_for(question(0.2))
    filled.strategy(1, "early_exit", "mobile", 0.001)
    assert answers.at_once(question(0.2)) is None
    after = answers.json_for(question(0.2))
    assert b"early_exit" in after and b"early_exit" not in before
    assert answers.at_once(question(0.2)) is after


@pytest.fixture
def slow_load(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Announce that reading began, and continue only when released."""
    reading, go_on = threading.Event(), threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        reading.set()
        assert go_on.wait(timeout=30)
        return load(*arguments, **options)

    monkeypatch.setattr(snapshots, "load", slow)
    return reading, go_on


def test_who_asks_during_a_refresh_gets_what_was_known_before(
    opened: Snapshots, filled: Any, request: pytest.FixtureRequest
) -> None:
    answers = AnswerCache(opened, quick_s=60)
    before = answers.json_for(question(0.2))
    reading, go_on = request.getfixturevalue("slow_load")
    filled.strategy(1, "early_exit", "mobile", 0.001)
    first: list[bytes] = []
    refreshing = threading.Thread(target=lambda: first.append(answers.json_for(question(0.2))))
    refreshing.start()
    assert reading.wait(timeout=30)
    assert answers.at_once(question(0.2)) is before and answers.json_for(question(0.2)) is before
    go_on.set()
    refreshing.join(timeout=30)
    assert b"early_exit" in first[0] and answers.at_once(question(0.2)) is first[0]


def test_no_question_waits_longer_for_new_evidence_than_the_limit(
    opened: Snapshots, filled: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = AnswerCache(opened, quick_s=60)
    before = answers.json_for(question(0.2))
    _, go_on = request.getfixturevalue("slow_load")
    monkeypatch.setattr(snapshots, "_PATIENCE_S", 0.01)
    filled.strategy(1, "early_exit", "mobile", 0.001)
    assert answers.json_for(question(0.2)) is before
    go_on.set()
    opened.close()
    assert b"early_exit" in answers.json_for(question(0.2))


def test_a_database_that_went_away_is_told_by_the_slow_way(opened: Snapshots, path: Path) -> None:
    answers = AnswerCache(opened, quick_s=60)
    answers.json_for(question(0.2))
    path.unlink()
    assert answers.at_once(question(0.2)) is None


def test_a_question_without_an_answer_is_never_kept(opened: Snapshots) -> None:
    answers = AnswerCache(opened, quick_s=60)
    for _ in range(2):
        unknown = RecommendRequest(subject="nets")
        assert answers.at_once(unknown) is None
        with pytest.raises(UnknownSubject):
            answers.json_for(unknown)


def test_a_refresh_keeps_what_did_not_change(opened: Snapshots, filled: Any) -> None:
    before = {candidate.operator: candidate for candidate in opened.current().select("net").candidates}
    filled.strategy(1, "early_exit", "mobile", 0.001)
    after = {candidate.operator: candidate for candidate in opened.current().select("net").candidates}
    assert set(after) - set(before) == {"early_exit"}
    assert all(after[name] is candidate for name, candidate in before.items())


def test_a_refresh_takes_what_changed(opened: Snapshots, filled: Any) -> None:
    before = {candidate.operator: candidate for candidate in opened.current().select("net").candidates}
    changed = next(iter(before))
    filled.measure(1, changed, before[changed].placement, 0.001, number=before[changed].rounds)
    after = {candidate.operator: candidate for candidate in opened.current().select("net").candidates}
    assert after[changed] is not before[changed] and after[changed].rounds == before[changed].rounds + 1
