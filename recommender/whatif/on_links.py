"""A subject on links other than the measured ones: what goes over them is predicted, the rest stays measured."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from catalog.declaration.units import parse_bit_rate
from catalog.evidence.link_samples import LinkedSamples, LinkRate, StrategyParts
from catalog.statistics import PercentileInterval
from recommender.errors import FILL_COMMAND, UnknownLink
from recommender.evidence.model import Evidence, Known, SubjectEvidence
from recommender.ranking import Answer, Candidate, Foresight
from recommender.schemas.links import AskedLinkOut, PredictedFromOut
from recommender.whatif.predict import predict
from recommender.whatif.prediction import Prediction, Unpredictable


def on_links(
    evidence: Evidence, part: SubjectEvidence, links: Mapping[str, str] | None, percentile: float
) -> SubjectEvidence:
    """The evidence as it would be on the asked links; as it is where none is asked about.

    A strategy whose way has no asked link keeps its measurements. One that was measured at just the asked rates gets
    those. The others are predicted, or lose their candidate, with the reason, where the model cannot speak.

    Raises
    ------
    UnknownLink
        For a link that no measured strategy uses.
    """
    if not links:
        return part
    asked = rates(links)
    parts = {(each.operator, each.placement): each for each in evidence.parts(part)}
    known = {link for part in parts.values() for link in part.links}
    for link in asked:
        if link not in known:
            raise UnknownLink(link, known)
    moved = [
        _moved(strategy, parts.get((strategy.operator, strategy.placement)), asked, percentile)
        for strategy in part.strategies
    ]
    return replace(part, strategies=tuple(moved))


def rates(links: Mapping[str, str]) -> dict[str, LinkRate]:
    """The asked bandwidths, each for both directions."""
    return {
        link: LinkRate(float(rate), float(rate)) for link, rate in ((n, parse_bit_rate(w)) for n, w in links.items())
    }


def asked_out(links: Mapping[str, str] | None) -> list[AskedLinkOut]:
    """The asked links, as told to clients."""
    return [AskedLinkOut(link=link, bit_per_s=parse_bit_rate(words)) for link, words in (links or {}).items()]


def _moved(known: Known, parts: StrategyParts | None, asked: Mapping[str, LinkRate], percentile: float) -> Known:
    """One strategy on the asked links."""
    if known.candidate is None:
        return known
    if parts is None or not parts.evidence:
        return _without(known, (parts and parts.missing) or "what it sends over its links is not known")
    if not set(asked) & set(parts.links):
        return known
    same = _measured_so(parts, asked)
    if same is parts.evidence[0]:
        return known
    if same is not None:
        candidate = _with_samples(known.candidate, same.latency_s, same)
        return replace(known, candidate=candidate, latency_evidence_id=same.evidence_id)
    found = predict(parts, asked, percentile)
    if isinstance(found, Unpredictable):
        return _without(known, found.reason)
    foresight = Foresight(
        interval=lambda each: found.interval if each == percentile else _interval(parts, asked, each),
        links=tuple(link for link in parts.links if link in asked),
        settings=found.settings,
        check=found.check,
    )
    candidate = _with_samples(known.candidate, found.latency_s, found.source)
    return replace(known, candidate=replace(candidate, predicted=foresight))


def _without(known: Known, reason: str) -> Known:
    return replace(known, candidate=None, reason=f"no prediction for the asked links: {reason}")


def _interval(parts: StrategyParts, asked: Mapping[str, LinkRate], percentile: float) -> PercentileInterval:
    found = predict(parts, asked, percentile)
    assert isinstance(found, Prediction)  # it was one at the percentile that was asked
    return found.interval


def _measured_so(parts: StrategyParts, asked: Mapping[str, LinkRate]) -> LinkedSamples | None:
    """The evidence at exactly the asked rates, the links that were not asked about being as they are declared now."""
    wanted = {link: asked.get(link) or parts.evidence[0].declared.get(link) for link in parts.links}
    return next((each for each in parts.evidence if all(each.declared.get(n) == r for n, r in wanted.items())), None)


def _with_samples(candidate: Candidate, latency_s: NDArray[np.float64], source: LinkedSamples) -> Candidate:
    """The candidate with other latencies; sizes, accuracy and doubts stay."""
    numbers = np.unique(source.round)
    masks = [source.round == number for number in numbers]
    return replace(
        candidate,
        latency_s=tuple(latency_s[mask] for mask in masks),
        inputs=min(np.unique(source.input_index[mask]).size for mask in masks),
        input_index=tuple(source.input_index[mask] for mask in masks),
        round_numbers=tuple(int(number) for number in numbers),
    )


def source_out(foresight: Foresight | None) -> PredictedFromOut | None:
    """What a predicted latency rests on, as told to clients; None for a measured one."""
    return None if foresight is None else _from(foresight.links, foresight.settings, foresight.check)


def prediction_out(found: Prediction, links: Sequence[str]) -> PredictedFromOut:
    """The same of one prediction."""
    return _from(links, found.settings, found.check)


def _from(links: Sequence[str], settings: int, check: float | None) -> PredictedFromOut:
    return PredictedFromOut(
        links=list(links), bandwidths_measured=settings, largest_check_error=check, in_words=in_words(settings, check)
    )


def in_words(settings: int, check: float | None) -> str:
    """From how much a prediction was made, and whether anything checked it."""
    if check is None:
        return "predicted from one measured bandwidth: the model of the link is trusted, nothing here checks it"
    return f"predicted from {settings} measured bandwidths; each from the others is off by {100 * check:.1f} % at most"


def cautions(answer: Answer, links: Mapping[str, str] | None) -> Iterator[str]:
    """What to know of an answer about other links."""
    if not links:
        return
    candidates: Sequence[Candidate] = [each.candidate for each in answer.considered]
    predicted = [candidate for candidate in candidates if candidate.predicted is not None]
    where = ", ".join(f"{link} at {words}" for link, words in links.items())
    yield (
        f"asked about {where}: {len(predicted)} of {len(candidates)} latencies are predicted, the others measured; "
        "bounds and comparisons of the predicted ones include the model's error"
    )
    if any(each.predicted is not None and each.predicted.check is None for each in predicted):
        yield (
            "predictions from one measured bandwidth rest on a trust in the model that nothing here checks (5 % of the "
            f"time on the wire that is exchanged, and 0.5 ms); declare the link so and run `{FILL_COMMAND}` to know"
        )
