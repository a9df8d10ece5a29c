"""Routes about links: those of a subject, and latency against the bandwidth of one of them."""

from typing import Annotated

from fastapi import APIRouter, Query

from catalog.units import parse_bit_rate
from recommender.answer.strategy_fields import prediction_out
from recommender.errors import EmptyRange, UnknownLink
from recommender.evidence.model import SubjectEvidence
from recommender.http.evidence import EnvironmentQuery, EvidenceNow, OneSubject, Percentile
from recommender.http.problems import documented
from recommender.schemas.base import CONDITIONS
from recommender.schemas.links import (
    Bandwidth,
    CrossingOut,
    CurveOut,
    LinkOut,
    LinksResponse,
    PointOut,
    RealRateOut,
    UnpredictableOut,
    WhatIfResponse,
)
from recommender.whatif import LinkedStrategy, LinkRate, Prediction, predict
from recommender.whatif.curves import Curve, Curves, latency_curves

router = APIRouter(tags=["links"], responses=documented(401, 404, 413, 422, 500, 503))

OneLink = Annotated[str, Query(description="A link, as GET /links names it", max_length=200, examples=["edge-cloud"])]
From = Annotated[Bandwidth, Query(alias="from", description="The lowest bandwidth", examples=["1mbit"])]
To = Annotated[Bandwidth, Query(alias="to", description="The highest bandwidth, above `from`", examples=["200mbit"])]
# Every point is resampled for every strategy over the link, so their number is limited.
Points = Annotated[int, Query(description="Per curve, evenly on a logarithmic scale", ge=2, le=17, examples=[9])]


@router.get("/links")
def links(evidence: EvidenceNow, subject: OneSubject, environment: EnvironmentQuery = None) -> LinksResponse:
    """List the links that questions about a subject can name, and the bandwidths they were measured at."""
    subject_evidence = evidence.select(subject, environment)
    strategies = evidence.linked_strategies(subject_evidence)
    names = sorted({link for strategy in strategies for link in strategy.links})
    return LinksResponse(
        subject=subject_evidence.subject,
        environment=subject_evidence.environment.key,
        links=[_link(name, strategies) for name in names],
    )


@router.get("/whatif")
def whatif(
    evidence: EvidenceNow,
    subject: OneSubject,
    link: OneLink,
    low: From = "1mbit",
    high: To = "200mbit",
    percentile: Percentile = 90.0,
    points: Points = 9,
    environment: EnvironmentQuery = None,
) -> WhatIfResponse:
    """Return every strategy's latency against the bandwidth of a link, and where the choice changes.

    Both directions of the link get the bandwidth; the other links stay as they are declared. Estimates decide where
    the choice changes: `POST /recommend` with `links` judges one bandwidth with all its uncertainty.
    """
    subject_evidence = evidence.select(subject, environment)
    rates = float(parse_bit_rate(low)), float(parse_bit_rate(high))
    if rates[0] >= rates[1]:
        raise EmptyRange(low, high)
    strategies = evidence.linked_strategies(subject_evidence)
    names = {link for strategy in strategies for link in strategy.links}
    if link not in names:
        raise UnknownLink(link, names)
    # Twice as fine as the answer, to find the crossings; `_curve` sends every second rate.
    curves = latency_curves(
        strategies, link, low_bit_per_s=rates[0], high_bit_per_s=rates[1], percentile=percentile, points=2 * points - 1
    )
    return _answer(subject_evidence, curves, strategies)


def _link(name: str, strategies: tuple[LinkedStrategy, ...]) -> LinkOut:
    over = [strategy for strategy in strategies if name in strategy.links]
    declared = [strategy.evidence[0].declared.get(name) for strategy in over if strategy.evidence]
    measured = {
        rate.up_bit_per_s for strategy in over for samples in strategy.evidence if (rate := samples.declared.get(name))
    }
    return LinkOut(
        link=name,
        declared_bit_per_s=next((rate.up_bit_per_s for rate in declared if rate is not None), None),
        real=next((_real_rate(strategy, name) for strategy in over if _real_rate(strategy, name)), None),
        measured_bit_per_s=sorted(measured),
        strategies=len(over),
    )


def _real_rate(strategy: LinkedStrategy, link: str) -> RealRateOut | None:
    carried = strategy.evidence[0].real.get(link) if strategy.evidence else None
    return None if carried is None else RealRateOut.model_validate(vars(carried))


def _answer(
    subject_evidence: SubjectEvidence, curves: Curves, strategies: tuple[LinkedStrategy, ...]
) -> WhatIfResponse:
    by_name = {(strategy.operator, strategy.placement): strategy for strategy in strategies}
    ordered = sorted(curves.curves, key=lambda curve: (curve.latency_s[-1], curve.name))
    return WhatIfResponse(
        subject=subject_evidence.subject,
        environment=subject_evidence.environment.key,
        link=curves.link,
        percentile=curves.percentile,
        curves=[_curve(curve, curves, by_name[curve.operator, curve.placement]) for curve in ordered],
        # The dataclasses have exactly the fields of the models, which refuse any other.
        crossings=[CrossingOut.model_validate(vars(crossing)) for crossing in curves.crossings],
        unpredictable=[UnpredictableOut.model_validate(vars(strategy)) for strategy in curves.unpredictable],
        conditions=CONDITIONS,
    )


def _curve(curve: Curve, curves: Curves, strategy: LinkedStrategy) -> CurveOut:
    """Return a curve with an interval at every second rate; the rates between served to find the crossings."""
    rates = curves.bit_per_s[::2]
    if curve.crosses:
        predictions = [predict(strategy, {curves.link: LinkRate(rate, rate)}, curves.percentile) for rate in rates]
    else:
        # A strategy that does not use the link has one latency at every rate, which is resampled once.
        predictions = [predict(strategy, {}, curves.percentile)] * len(rates)
    shown = [prediction for prediction in predictions if isinstance(prediction, Prediction)]
    # A rate that was measured is no prediction, so the first one that is speaks for the curve.
    source = next((prediction for prediction in shown if prediction.predicted), None)
    return CurveOut(
        operator=curve.operator,
        placement=curve.placement,
        predicted=source is not None,
        predicted_from=prediction_out(source, (curves.link,)) if source else None,
        points=[
            PointOut(bit_per_s=rate, latency_s=prediction.estimate_s, low_s=prediction.low_s, high_s=prediction.high_s)
            # `latency_curves` has left out what cannot be predicted, so every rate has its prediction.
            for rate, prediction in zip(rates, shown, strict=True)
        ],
    )
