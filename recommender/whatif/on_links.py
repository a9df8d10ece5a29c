"""A subject on links other than the measured ones: what goes over them is predicted, the rest stays measured."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from catalog.evidence.link_samples import LinkedSamples, LinkedStrategy, LinkRate
from catalog.statistics.intervals import PercentileInterval
from catalog.units import parse_bit_rate
from recommender.errors import UnknownLink
from recommender.evidence.model import DeclaredStrategy, Evidence, SubjectEvidence
from recommender.ranking import Candidate, Foresight
from recommender.whatif.model import Prediction, UnpredictableStrategy, estimate_s, measured_at, predict


def on_links(
    evidence: Evidence, subject_evidence: SubjectEvidence, links: Mapping[str, str] | None, percentile: float
) -> SubjectEvidence:
    """Return the evidence as it would be on the links of the question; unchanged where it names none.

    A strategy whose way has no asked link keeps its measurements. One that was measured at just the asked rates gets
    those. The others are predicted, or lose their candidate, with the reason, where the model cannot speak.

    Raises
    ------
    UnknownLink
        For a link that no measured strategy uses.
    """
    if not links:
        return subject_evidence
    requested = rates(links)
    linked_strategies = {
        (strategy.operator, strategy.placement): strategy for strategy in evidence.linked_strategies(subject_evidence)
    }
    links_in_use = {link for linked in linked_strategies.values() for link in linked.links}
    for link in requested:
        if link not in links_in_use:
            raise UnknownLink(link, links_in_use)
    moved = [
        _moved(strategy, linked_strategies.get((strategy.operator, strategy.placement)), requested, percentile)
        for strategy in subject_evidence.strategies
    ]
    return replace(subject_evidence, strategies=tuple(moved))


def rates(links: Mapping[str, str]) -> dict[str, LinkRate]:
    """Parse the bandwidths of the question, each for both directions."""
    return {
        link: LinkRate(float(rate), float(rate))
        for link, rate in ((name, parse_bit_rate(words)) for name, words in links.items())
    }


def _moved(
    strategy: DeclaredStrategy, linked: LinkedStrategy | None, requested: Mapping[str, LinkRate], percentile: float
) -> DeclaredStrategy:
    """Return one strategy on the links of the question."""
    if strategy.candidate is None:
        return strategy
    if linked is None or not linked.evidence:
        return _without(strategy, (linked and linked.missing) or "what it sends over its links is not known")
    if not set(requested) & set(linked.links):
        return strategy
    same = measured_at(linked, requested)
    # Setting 0 is the one declared now, from which the candidate was loaded.
    if same is linked.evidence[0]:
        return strategy
    if same is not None:
        candidate = _with_samples(strategy.candidate, same.latency_s, same)
        # Samples at other rates are recorded under a key of their own.
        return replace(strategy, candidate=candidate, latency_evidence_id=same.evidence_id)
    prediction = predict(linked, requested, percentile)
    if isinstance(prediction, UnpredictableStrategy):
        return _without(strategy, prediction.reason)
    foresight = Foresight(
        # Lazily: most questions need no second percentile, and each costs hundreds of draws.
        interval=lambda other: prediction.interval if other == percentile else _interval(linked, requested, other),
        estimate_s=lambda other: estimate_s(linked, requested, other),
        links=tuple(link for link in linked.links if link in requested),
        settings=prediction.settings,
        check=prediction.check,
    )
    candidate = _with_samples(strategy.candidate, prediction.latency_s, prediction.source)
    return replace(strategy, candidate=replace(candidate, predicted=foresight))


def _without(strategy: DeclaredStrategy, reason: str) -> DeclaredStrategy:
    return replace(strategy, candidate=None, reason=f"no prediction for the asked links: {reason}")


def _interval(linked: LinkedStrategy, requested: Mapping[str, LinkRate], percentile: float) -> PercentileInterval:
    prediction = predict(linked, requested, percentile)
    assert isinstance(prediction, Prediction)  # it was one at the percentile that was asked
    return prediction.interval


def _with_samples(candidate: Candidate, latency_s: NDArray[np.float64], source: LinkedSamples) -> Candidate:
    """Return the candidate with other latencies; sizes, accuracy and doubts stay."""
    numbers = np.unique(source.round)
    masks = [source.round == number for number in numbers]
    return replace(
        candidate,
        latency_s=tuple(latency_s[mask] for mask in masks),
        inputs=min(np.unique(source.input_index[mask]).size for mask in masks),
        input_index=tuple(source.input_index[mask] for mask in masks),
        round_numbers=tuple(int(number) for number in numbers),
        design=source.design.of(np.concatenate([np.flatnonzero(mask) for mask in masks])) if source.design else None,
        # Rounds of another setting may have run elsewhere.
        hosts={},
    )
