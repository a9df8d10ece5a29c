"""Links over HTTP: in the words of the catalog file in a question, in SI units in an answer."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from catalog.errors import UnitError
from catalog.units import parse_bit_rate
from recommender.schemas.base import Out, StrategyNameOut

_NUMBER = r"(0\.[0-9]{0,2}[1-9]|[1-9][0-9]{0,%d}(\.[0-9]{1,3})?) ?"
# What `parse_bit_rate` takes, as an expression that the published schema can hold.
BANDWIDTH_PATTERN = f"^({_NUMBER % 6}[kKmM]|{_NUMBER % 3}[gG])bit(/s)?$"
ALLOWED = "a bandwidth such as 500kbit, 10mbit or 1gbit"


def _worded(value: Any) -> Any:
    try:
        # Before the pattern, whose own message would show a regular expression.
        parse_bit_rate(value)
    except UnitError as error:
        raise ValueError(str(error)) from error
    return value


Bandwidth = Annotated[
    str,
    BeforeValidator(_worded),
    Field(pattern=BANDWIDTH_PATTERN, max_length=40, description=ALLOWED.capitalize(), examples=["10mbit"]),
]
LinkName = Annotated[str, Field(min_length=1, max_length=200)]
# Each asked link is predicted for every strategy over it, so their number is limited.
Links = Annotated[dict[LinkName, Bandwidth], Field(max_length=16)]


class AskedLinkOut(Out, frozen=True):
    """A link as the question asked for it, in both directions."""

    link: str
    bit_per_s: float


class PredictedFromOut(Out, frozen=True):
    """What a latency that was not measured was predicted from."""

    links: list[str] = Field(description="The asked links that are on the strategy's way")
    bandwidths_measured: int = Field(description="Settings of its links with evidence: one, or several")
    largest_check_error: float | None = Field(
        description="Relative error of predicting one measured setting from the others; null with one, unchecked"
    )
    in_words: str


class RealRateOut(Out, frozen=True):
    """What a real link carried, from the upstream tier: the median over its probes, the least and the most."""

    bit_per_s: float
    least_bit_per_s: float
    most_bit_per_s: float


class LinkOut(Out, frozen=True):
    """A link that questions can ask about."""

    link: str
    declared_bit_per_s: float | None = Field(
        description="As the newest declared evidence has it, of a real link what it carried; null when unknown"
    )
    real: RealRateOut | None = Field(None, description="Of a link that was measured and not shaped; null of others")
    measured_bit_per_s: list[float] = Field(description="Declared rates that strategies over it were measured at")
    strategies: int = Field(description="How many measured strategies have it on their way")


class LinksResponse(Out, frozen=True):
    """The links of a subject in one environment."""

    subject: str
    environment: str
    links: list[LinkOut]


class PointOut(Out, frozen=True):
    """A strategy's latency at one bandwidth."""

    bit_per_s: float
    latency_s: float
    low_s: float | None = Field(
        description="95 % interval, the model's error included; null where too little was measured"
    )
    high_s: float | None


class CurveOut(StrategyNameOut, frozen=True):
    """A strategy's latency against the bandwidth of the link."""

    predicted: bool = Field(description="False where every rate shown was measured, or the link is not on its way")
    predicted_from: PredictedFromOut | None
    points: list[PointOut]


class CrossingOut(Out, frozen=True):
    """From this bandwidth on, upwards, the fastest strategy is another."""

    bit_per_s: float
    latency_s: float
    below: str = Field(description="The fastest just below, as operator@placement")
    above: str


class UnpredictableOut(StrategyNameOut, frozen=True):
    """A strategy without a curve."""

    reason: str
    measured: bool = Field(description="False where there is no evidence of it at all")


class WhatIfResponse(Out, frozen=True):
    """Latency against the bandwidth of one link, predicted from the measured parts."""

    subject: str
    environment: str
    link: str
    percentile: float
    curves: list[CurveOut] = Field(description="Fastest at the highest bandwidth first")
    crossings: list[CrossingOut] = Field(
        description="Where the choice changes, by estimates; ascending. None where a measured strategy is unpredictable"
    )
    unpredictable: list[UnpredictableOut]
    conditions: str
