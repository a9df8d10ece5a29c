"""Analyses over the synthetic estate: what they find, what is stored, and that they are computed once."""

from collections.abc import Callable
from dataclasses import replace
from threading import Thread
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from catalog import analysis
from catalog.analysis import (
    AnalysisSettings,
    SubjectResult,
    analyse_subject,
    disagreement,
    evidence_key,
    store_analysis,
)
from catalog.evidence.database import Database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.lookups import analysis_stored
from catalog.evidence.records import SampleRecord
from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.evidence.writing import (
    record_accuracy,
    record_measurement,
    sync_strategies,
    upsert_environment,
)
from catalog.statistics.outcomes import ComparisonOutcome

pytestmark = pytest.mark.both_databases

SETTINGS = AnalysisSettings(n_resamples=200)
PASSES = {"identity": [], "quantized": [{"name": "static_ptq", "options": {}}]}
# Quantized is half as fast on mobile and as fast as identity on edge, for every input and round.
FACTOR = {
    ("identity", "mobile"): 2.0,
    ("quantized", "mobile"): 1.0,
    ("identity", "edge"): 1.0,
    ("quantized", "edge"): 1.0,
}


@pytest.fixture
def evidence(database: Database, make: Any) -> Callable[..., tuple[StrategyEvidence, ...]]:
    """Return four strategies with known ratios."""

    def build(*, rounds: int = 4, inputs: int = 30, skip: int = 0) -> tuple[StrategyEvidence, ...]:
        rng = np.random.default_rng(3)
        shape = np.exp(rng.normal(scale=0.3, size=inputs)) * 0.01
        drift = np.exp(rng.normal(scale=0.01, size=rounds))
        hits = np.arange(200) % 10 > 0
        with database.session() as session:
            where = upsert_environment(session, make.environment())
            rows = [make.strategy(*name, passes=PASSES[name[0]], rounds=rounds) for name in FACTOR]
            sync_strategies(session, where, rows)
            for name, factor in FACTOR.items():
                for number in range(1, rounds + 1):
                    noise = np.exp(rng.normal(scale=0.002, size=inputs))
                    latency = factor * shape * drift[number - 1] * noise
                    taken = [SampleRecord(seq, f"{seq:04d}", 0, float(value), 0.0) for seq, value in enumerate(latency)]
                    record_measurement(session, make.measurement(where, *name, number, samples=taken))
            record_accuracy(session, make.accuracy(where, "identity", hits))
            record_accuracy(session, make.accuracy(where, "quantized", hits & (np.arange(200) % 40 != 5)))
            session.commit()
            return strategy_evidence(session)

    return build


def pair(result: SubjectResult, family: str, left: str, right: str) -> Any:
    (tested,) = [tested for tested in result.families if tested.paper.family.name == family]
    (only,) = [pair for pair in tested.pairs if (pair.paper.left, pair.paper.right) == (left, right)]
    return only


def test_known_ratios_are_found_and_ranked_with_ties(evidence: Any) -> None:
    result = analyse_subject(evidence(), SETTINGS)
    ranks = {strategy.name: strategy.rank.rank for strategy in result.strategies}
    assert ranks == {"quantized@mobile": 1, "identity@edge": 1, "quantized@edge": 1, "identity@mobile": 4}
    worst = next(strategy for strategy in result.strategies if strategy.name == "identity@mobile")
    assert worst.ratio_to_best == pytest.approx(2.0, rel=0.01)
    assert worst.shares.inputs_share == pytest.approx(0.998, abs=0.01)
    slower = pair(result, "operators@mobile", "identity@mobile", "quantized@mobile")
    assert slower.decided.verdict is ComparisonOutcome.DIFFERENT
    assert slower.decided.ratio == pytest.approx(2.0, rel=0.01)
    assert slower.paper.delta > 0


def test_the_studys_tests_take_strategies_with_all_rounds_in_the_rounds_they_share(evidence: Any) -> None:
    everything = evidence()
    raced = [
        on_rounds(strategy, [1]) if strategy.placement == "edge" and strategy.operator == "quantized" else strategy
        for strategy in everything
    ]
    families = {family.paper.family.name: family.paper for family in analyse_subject(raced, SETTINGS).families}
    left_out = {name: set(paper.left_out) for name, paper in families.items()}
    assert any("quantized@edge" in names for names in left_out.values())
    assert not any("quantized@edge" in paper.members for paper in families.values())
    # Rounds beyond the declared ones weigh nothing where the others lack them: in them all might have been slower.
    slower = [replace(strategy, rounds_declared=2) for strategy in everything]
    slower[0] = on_rounds(slower[0], [1, 2])
    medians = analyse_subject(slower, SETTINGS).families[0].paper.median
    only_shared = [on_rounds(strategy, [1, 2]) for strategy in slower]
    assert medians.tolist() == analyse_subject(only_shared, SETTINGS).families[0].paper.median.tolist()


def on_rounds(strategy: StrategyEvidence, numbers: list[int]) -> StrategyEvidence:
    mask = np.isin(strategy.round, numbers)
    return replace(
        strategy,
        latency_s=strategy.latency_s[mask],
        round=strategy.round[mask],
        input_index=strategy.input_index[mask],
        repetition=strategy.repetition[mask],
        rounds=tuple(one_round for one_round in strategy.rounds if one_round.round in numbers),
    )


def test_equal_strategies_are_equivalent_and_no_disagreement(evidence: Any) -> None:
    same = pair(analyse_subject(evidence(), SETTINGS), "operators@edge", "identity@edge", "quantized@edge")
    assert same.decided.verdict is ComparisonOutcome.EQUIVALENT
    assert not same.paper.significant
    assert same.disagreement is None


def test_a_difference_that_only_one_analysis_sees_is_explained(evidence: Any) -> None:
    compared = pair(analyse_subject(evidence(), SETTINGS), "operators@edge", "identity@edge", "quantized@edge")
    pooled = replace(compared.paper, significant=True, pvalue=1e-9)
    said = disagreement(pooled, compared.decided, samples=240)
    assert said is not None and "stays within 5 %" in said
    unresolved = disagreement(pooled, replace(compared.decided, verdict=ComparisonOutcome.UNRESOLVED), samples=240)
    assert unresolved is not None and "takes 240 samples as independent" in unresolved
    hidden = disagreement(compared.paper, replace(compared.decided, verdict=ComparisonOutcome.DIFFERENT), samples=240)
    assert hidden is not None and "paired by input" in hidden


def test_one_round_describes_and_decides_nothing(evidence: Any) -> None:
    result = analyse_subject(evidence(rounds=1), SETTINGS)
    assert {strategy.rank.rank for strategy in result.strategies} == {1}
    assert all(strategy.interval(50).low_s is None for strategy in result.strategies)
    slower = pair(result, "operators@mobile", "identity@mobile", "quantized@mobile")
    assert slower.decided.verdict is ComparisonOutcome.UNRESOLVED
    assert slower.disagreement is None


def test_drops_are_paired_by_item(evidence: Any) -> None:
    (drop,) = analyse_subject(evidence(), SETTINGS).drops
    assert drop.operator == "quantized"
    assert (drop.drop.lost, drop.drop.gained) == (5, 0)
    assert drop.drop.drop_pp == pytest.approx(2.5)
    assert drop.drop.low_pp < 2.5 < drop.drop.high_pp
    assert drop.drop.pvalue == pytest.approx(2 * 0.5**5)


def test_a_result_is_stored_once_and_read_in_sql(evidence: Any, database: Database) -> None:
    strategies = evidence()
    result = analyse_subject(strategies, SETTINGS)
    with database.session() as session:
        assert not analysis_stored(session, evidence_key(strategies, SETTINGS))
        store_analysis(session, result)
        session.commit()
        assert analysis_stored(session, evidence_key(strategies, SETTINGS))
        ranked = session.execute(
            text("SELECT operator, placement, rank FROM ranking ORDER BY ratio_to_best DESC LIMIT 1")
        ).one()
        assert tuple(ranked) == ("identity", "mobile", 4)
        paired = session.execute(
            text("SELECT verdict, significant FROM pairwise WHERE left_strategy = 'identity@edge' LIMIT 1")
        ).one()
        assert paired[0] == "equivalent" and not paired[1]


def test_two_that_analyse_the_same_evidence_at_once_store_it_once(evidence: Any, database: Database) -> None:
    result = analyse_subject(evidence(), SETTINGS)
    with database.writing_session() as session:
        store_analysis(session, result)
        other = Thread(target=analysis._store, args=(database, result))
        other.start()
        # It has looked for the analysis by now, or waits for its turn.
        other.join(0.3)
        session.commit()
    other.join()
    with database.session() as session:
        assert session.execute(text("SELECT COUNT(*) FROM analysis")).scalar_one() == 1


def test_storing_again_replaces_what_rested_on_older_evidence(evidence: Any, database: Database) -> None:
    strategies = evidence()
    with database.session() as session:
        store_analysis(session, analyse_subject(strategies, SETTINGS))
        store_analysis(session, analyse_subject(strategies[:3], SETTINGS))
        session.commit()
        assert session.execute(text("SELECT COUNT(*) FROM analysis")).scalar_one() == 1
        assert session.execute(text("SELECT COUNT(*) FROM analysis_strategy")).scalar_one() == 3


def test_the_key_follows_evidence_and_settings(evidence: Any) -> None:
    strategies = evidence()
    key = evidence_key(strategies, SETTINGS)
    assert evidence_key(strategies, SETTINGS) == key
    assert evidence_key(strategies, replace(SETTINGS, percentile=90.0)) != key
    assert evidence_key(strategies[:-1], SETTINGS) != key


@pytest.mark.parametrize(
    ("change", "message"),
    [({"adjustment": "holms"}, "allowed: none, bonferroni"), ({"percentile": 100.0}, "percentile"),
     ({"confidence_level": 1.0}, "confidence level")],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **change)


def test_evidence_of_nothing_is_refused(evidence: Any) -> None:
    with pytest.raises(ValueError, match="measured strategies of one subject"):
        analyse_subject([], SETTINGS)
