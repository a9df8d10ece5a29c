"""That what no budget changes is computed before the first question."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from catalog.evidence.strategy_evidence import SloEvidence
from catalog.statistics.log_estimate import OFTEN
from recommender.answer import tabulation
from recommender.answer.respond import respond
from recommender.answer.strategy_fields import strategy_fields
from recommender.answer.tabulation import Tabulation, tabulate, usual_questions
from recommender.evidence.model import Evidence
from recommender.evidence.snapshots import Snapshots
from recommender.ranking import candidates, estimate
from recommender.schemas import RecommendRequest


@pytest.fixture
def opened(path: Path, filled: Any) -> Iterator[Snapshots]:
    database = Snapshots(str(path))
    yield database
    database.close()


@pytest.mark.parametrize("percentile", [50.0, 90.0, 95.0, 99.0])
def test_after_it_no_question_of_a_usual_percentile_takes_percentiles(
    opened: Snapshots, monkeypatch: pytest.MonkeyPatch, percentile: float
) -> None:
    evidence = opened.current()
    tabulate(evidence, lambda: True)

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("computed for a question")

    for name in ("percentile_intervals", "percentile_estimate"):
        monkeypatch.setattr(candidates, name, refuse)
    question = RecommendRequest(subject="net", latency_percentile=percentile, max_latency_s=0.2, min_accuracy_pct=1.0)
    assert respond(evidence, question).considered


def test_the_usual_percentile_is_asked_for_often_enough_for_tables(opened: Snapshots) -> None:
    evidence = opened.current()
    limits = {
        question.max_latency_s
        for question in usual_questions(evidence)
        if (question.subject, question.latency_percentile) == ("net", 90.0)
    }
    assert len(limits) > OFTEN


def test_declared_percentiles_are_among_the_usual_ones(opened: Snapshots, filled: Any) -> None:
    evidence = opened.current()
    declared = {percentile for slo in evidence.slos.values() for percentile in slo.latency_s}
    assert declared
    tabulated = {(question.subject, question.latency_percentile) for question in usual_questions(evidence)}
    assert {(subject, percentile) for subject in evidence.subjects for percentile in declared} <= tabulated


def test_it_stops_when_the_evidence_was_replaced(opened: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence, answered = opened.current(), []
    monkeypatch.setattr(tabulation, "answer_json", lambda _, question: answered.append(question))
    tabulate(evidence, lambda: len(answered) < 2)
    assert len(answered) == 2


def test_nothing_is_computed_before_those_who_wait_are_answered(
    opened: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(tabulation, "answer_json", lambda _, question: done.append("question"))
    Tabulation(lambda _: done.append("pause"))(opened.current(), lambda: len(done) < 3)
    assert done == ["pause", "question", "question"]


def test_new_evidence_is_prepared_once_it_answers_and_wanted_while_it_is_the_newest(path: Path, filled: Any) -> None:
    prepared: Queue[tuple[Evidence, Callable[[], bool]]] = Queue()
    database = Snapshots(str(path), prepare=lambda *arguments: prepared.put(arguments))
    try:
        first = database.current()
        evidence, is_wanted = prepared.get(timeout=30)
        assert evidence is first and is_wanted()
        filled.strategy(1, "early_exit", "mobile", 0.001)
        assert database.current() is not first and not is_wanted()
        assert prepared.get(timeout=30)[0] is database.current()
    finally:
        database.close()


def test_only_what_was_read_again_or_not_finished_is_tabulated(
    opened: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects: list[str] = []
    monkeypatch.setattr(tabulation, "answer_json", lambda _, question: subjects.append(question.subject))
    evidence = opened.current()
    tabulate_new = Tabulation(lambda _: None)

    def tabulated(evidence: Evidence, is_wanted: Callable[[], bool] = lambda: True) -> set[str]:
        subjects.clear()
        tabulate_new(evidence, is_wanted)
        return set(subjects)

    evidence = replace(evidence, subjects=dict.fromkeys(("one", "other", "third"), evidence.subjects["net"]))
    first, second, _ = evidence.subjects
    unchanged = replace(evidence, read_subjects=frozenset())
    assert tabulated(evidence) == set(evidence.subjects)
    assert tabulated(unchanged) == set()
    assert tabulated(replace(evidence, read_subjects=frozenset({first})), lambda: False) == set()
    assert tabulated(replace(evidence, read_subjects=frozenset({second}))) == {first, second}
    assert tabulated(unchanged) == set()
    assert tabulated(replace(unchanged, slos={"new": SloEvidence(name="new", latency_s={99.9: 1.0})})) == set(
        evidence.subjects
    )


def test_what_no_budget_changes_is_made_once(opened: Snapshots) -> None:
    evidence = opened.current()
    first, second = (respond(evidence, RecommendRequest(subject="net", max_latency_s=limit)) for limit in (0.2, 0.3))
    assert first.recommendation is not None
    assert second.recommendation is not None
    assert first.environment is second.environment
    assert first.recommendation.resources is second.recommendation.resources


def test_a_kept_candidate_has_what_is_known_of_its_strategy_now(opened: Snapshots) -> None:
    evidence = opened.current()
    [strategy, *_] = [strategy for strategy in evidence.select("net").strategies if strategy.candidate is not None]
    assert strategy.candidate is not None
    measured = estimate(strategy.candidate, 90.0)
    for verdicts in ({"VALID": 3}, {"VALID": 3, "INVALID": 1}):
        later = replace(strategy, verdicts=verdicts)
        assert strategy_fields("net", later, measured, pareto=True)["verdicts"] == verdicts
