"""What the details of an artifact say of it beside its files: how far its outputs are from identity's, how large it is.

The distance is known without labels and measured at every build. It is not an accuracy: a small distance says that the
operator changed little, a large one that it changed much, and neither says which of the two models is right. The size
is that of the model's graph, its parameters and nodes, as the study lists them beside the size of the file.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

DISTANCE_DETAIL = "distance"
# What refused an operator: a digest of the passes' own code, under an artifact that is inapplicable.
REFUSED_BY_DETAIL = "refused_by"
# Rounding of int8 costs a few percent of the outputs' root mean square; beyond a quarter the outputs are other outputs.
LARGE_RELATIVE_ERROR = 0.25


@dataclass(frozen=True)
class Agreement:
    """On how many items the first class is identity's, with the exact 95 % interval of the share."""

    agreeing: int
    items: int
    low: float
    high: float


@dataclass(frozen=True)
class OutputDistance:
    """The distance of an artifact's outputs to those of the model it was made from, worst output first.

    Attributes
    ----------
    inputs
        How many inputs both models ran on.
    source
        `calibration` (inputs of the subject's dataset) or `random` (seeded inputs of the declared shapes).
    relative_error
        Root mean square of the difference over that of identity's output; None where a number is not finite.
    cosine
        Cosine of the angle between both outputs as vectors, in [-1, 1]; None where it is undefined.
    finite
        Whether every output is finite wherever identity's is.
    agreement
        For outputs with a class axis; None for the others.
    """

    inputs: int
    source: str
    relative_error: float | None
    cosine: float | None
    finite: bool
    agreement: Agreement | None = None

    @property
    def warning(self) -> str | None:
        """Return what a user must know before deploying the artifact; None where the distance is small."""
        return self.in_words if self.is_large else None

    @property
    def is_large(self) -> bool:
        """Return whether the outputs are other outputs than identity's."""
        return not self.finite or self.relative_error is None or self.relative_error > LARGE_RELATIVE_ERROR

    @property
    def in_words(self) -> str:
        """Return the figure with what it rests on, as a clause."""
        return f"{self._figure} ({self.basis})"

    @property
    def _figure(self) -> str:
        if not self.finite or self.relative_error is None:
            return "outputs are not finite where identity's are"
        if self.relative_error == 0:
            return "outputs equal identity's"
        return f"outputs differ from identity's by {percentage(self.relative_error)}"

    @property
    def basis(self) -> str:
        """Return what the figure rests on."""
        kind = "random " if self.source == "random" else ""
        return f"relative error over {self.inputs} {kind}input{'' if self.inputs == 1 else 's'}"

    def as_details(self) -> dict[str, Any]:
        """Return what JSON holds of it, under `DISTANCE_DETAIL` in an artifact's details."""
        return asdict(self)


def output_distance(details: Mapping[str, Any]) -> OutputDistance | None:
    """Return the distance that an artifact's details hold; None where they hold none or no sound one.

    Examples
    --------
    >>> distance = OutputDistance(32, "calibration", 0.8, 0.6, True)
    >>> output_distance({DISTANCE_DETAIL: distance.as_details()}) == distance
    True
    >>> distance.warning
    "outputs differ from identity's by 80 % (relative error over 32 inputs)"
    >>> output_distance({}) is None
    True
    """
    stored: Any = details.get(DISTANCE_DETAIL)
    try:
        agreement = stored["agreement"]
        fields = {**stored, "agreement": None if agreement is None else Agreement(**agreement)}
        distance = OutputDistance(**fields)
    # Artifacts of earlier versions have none, and another program may have written anything.
    except (TypeError, KeyError):
        return None
    return distance if _sound(distance) else None


def grouped(words: Mapping[str, str]) -> Iterator[str]:
    """Yield what is said of each operator, with those of which the same is said on one line.

    Examples
    --------
    >>> list(grouped({"early_exit": "far", "quantized": "near", "both": "far"}))
    ['early_exit, both: far', 'quantized: near']
    """
    operators: dict[str, list[str]] = {}
    for operator, said in words.items():
        operators.setdefault(said, []).append(operator)
    yield from (f"{', '.join(names)}: {said}" for said, names in operators.items())


def percentage(share: float) -> str:
    """Return a share in percent: whole ones from ten on, two figures below, and nothing finer than a hundredth.

    Examples
    --------
    >>> percentage(0.8), percentage(0.0213), percentage(3e-7), percentage(0.0)
    ('80 %', '2.1 %', '< 0.01 %', '0 %')
    """
    if 0 < share < 1e-4:
        return "< 0.01 %"
    # From 9.95 % on, two figures round to 10 %, where whole percents begin.
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"


def _sound(distance: OutputDistance) -> bool:
    """Return whether every figure is a number in its range; the database may have been written by anybody."""
    agreement, error, cosine = distance.agreement, distance.relative_error, distance.cosine
    counted = agreement is None or (
        _number(agreement.agreeing, 0, agreement.items)
        and _number(agreement.items, 1, math.inf)
        and _number(agreement.low, 0, 1)
        and _number(agreement.high, 0, 1)
    )
    return (
        counted
        and _number(distance.inputs, 0, math.inf)
        and isinstance(distance.source, str)
        and isinstance(distance.finite, bool)
        and (error is None or (_number(error, 0, math.inf) and math.isfinite(error)))
        # A cosine of 1 may exceed it by rounding.
        and (cosine is None or _number(cosine, -1.000001, 1.000001))
    )


def _number(value: object, low: float, high: object) -> bool:
    """Return whether a value is a number, and within the limits where the upper one is a number too."""
    return isinstance(value, int | float) and isinstance(high, int | float) and low <= value <= high


# The key of an artifact's details under which it stands.
GRAPH_DETAIL = "graph"


@dataclass(frozen=True)
class GraphSize:
    """The size of an artifact's graph, of all its parts together; None is unknown.

    Attributes
    ----------
    parameters : int or None
        Elements of the initializers, scales and zero points of a quantized model among them.
    nodes : int or None
        Nodes of the graph itself, without those of bodies and functions.
    """

    parameters: int | None = None
    nodes: int | None = None

    def as_details(self) -> dict[str, Any]:
        """Return it as an artifact's details have it."""
        return asdict(self)


def graph_size(details: Mapping[str, Any]) -> GraphSize:
    """Return the size that an artifact's details hold; unknown in evidence from before it was counted.

    Examples
    --------
    >>> graph_size({"graph": {"parameters": 25_000_000, "nodes": 241}})
    GraphSize(parameters=25000000, nodes=241)
    >>> graph_size({}), graph_size({"graph": "large"})
    (GraphSize(parameters=None, nodes=None), GraphSize(parameters=None, nodes=None))
    """
    counts = details.get(GRAPH_DETAIL)
    # Evidence from elsewhere may hold anything here.
    return (
        GraphSize(*(_count(counts.get(name)) for name in ("parameters", "nodes")))
        if isinstance(counts, Mapping)
        else GraphSize()
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
