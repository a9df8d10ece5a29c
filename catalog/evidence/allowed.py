"""What a value of evidence may be: closed ranges and forms, the same for a file that comes and for a row that stands.

Bounds are far beyond anything that is measured, and near enough that sums, squares and ratios stay finite.
"""

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from catalog.units import parse_share, refuse_share

_MAX_COUNT = 2**31 - 1
_MAX_BIG = 2**63 - 1
# What is summed over samples, images and classes stays far below 64 bits.
_MAX_SUMMED = 2**46
_MAX_S = 1e9
_MAX_BIT_PER_S = 1e15
_JSON_DEPTH, _JSON_CHARACTERS = 16, 1_000_000
_PERCENTILE = re.compile(r"\d{1,2}(\.\d{1,9})?")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)")
# Escape sequences move a terminal's cursor and colour what follows; tabs and line ends are text.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|[\ud800-\udfff]")


def with_marks(text: str) -> str:
    r"""Return a text with a mark in place of each control character.

    Examples
    --------
    >>> with_marks("red: \x1b[31m") == "red: \N{REPLACEMENT CHARACTER}[31m"
    True
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _printable(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("holds a control character; remove it")
    return text


def _moment(text: str) -> str:
    if not _MOMENT.fullmatch(text):
        raise ValueError("has no time zone or another form; write UTC as 2026-11-24T06:00:00.000+00:00")
    year = datetime.fromisoformat(text).year
    if not 1970 <= year < 3000:
        raise ValueError(f"is of the year {year}; allowed: 1970 to 2999")
    return text


def utc_now() -> datetime:
    """Return this moment, as the machine's clock has it: for stamps that people read.

    The clock may be set back at any moment. Durations are a monotonic clock's, and a row's number tells which came
    last.
    """
    # Through `time.time`, which the tests of a clock that is set back replace.
    return datetime.fromtimestamp(time.time(), UTC)


def utc_text(moment: datetime) -> str:
    """Format a moment as ISO 8601 in UTC with milliseconds; a naive moment is taken as UTC."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    # Always three decimals and +00:00, so that stored moments sort as text.
    return aware.isoformat(timespec="milliseconds")


def is_moment(value: Any) -> bool:
    """Tell whether a stored value is a moment as the evidence writes it."""
    try:
        return isinstance(value, str) and bool(_moment(value))
    except ValueError:
        return False


def _bounded(value: Any) -> Any:
    """Return JSON that can be stored, read and printed: finite, not too deep, not too large."""
    _check_json(value, _JSON_DEPTH)
    length = len(json.dumps(value, allow_nan=False))
    if length > _JSON_CHARACTERS:
        raise ValueError(f"is {length} characters long as JSON; allowed: {_JSON_CHARACTERS}")
    return value


def _check_json(value: Any, depth: int) -> None:
    if depth < 0:
        raise ValueError(f"is nested more than {_JSON_DEPTH} deep")
    if isinstance(value, Mapping):
        for name, item in value.items():
            _printable(name)
            _check_json(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check_json(item, depth - 1)
    elif isinstance(value, str):
        _printable(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("holds a number that is not finite")
    elif isinstance(value, int) and not -_MAX_BIG - 1 <= value <= _MAX_BIG:
        raise ValueError("holds an integer of more than 64 bits")


class _FirstWrong(FailFast):
    """pydantic's mark in a form that may be part of a union."""

    __hash__ = object.__hash__


# The first wrong value of a list says enough; a problem of each of millions would fill the memory.
FIRST_WRONG = _FirstWrong()


class ColumnKind(Enum):
    """How a table stores a value whose Python type does not tell; `tables.py` has the database's own types.

    Marks and not those types, because what reads evidence takes the forms of this module and needs no mapper: to import
    it takes longer than to answer a question.
    """

    # A limit of length is ours, not the database's.
    TEXT = auto()
    BIG = auto()
    JSON = auto()


_TEXT_COLUMN, _BIG_COLUMN, _JSON_COLUMN = ColumnKind.TEXT, ColumnKind.BIG, ColumnKind.JSON
# A dataclass's `field(default_factory=dict)` leaves no attribute from which a table or an entry could take its default.
_OBJECT: Any = Field(default_factory=dict)
_LIST: Any = Field(default_factory=list)

# As a catalog declares it: a text with a percent sign, which no stored row has.
DeclaredShare = Annotated[
    float,
    BeforeValidator(parse_share),
    Field(gt=0, le=1),
    WithJsonSchema({"type": "string", "examples": ["5%"]}),
]

# A number, not a text: 90 for p90.
# The validator comes last, so that it runs first and the published schema keeps the limits in JSON Schema's words.
Percentile = Annotated[float, Field(strict=True, ge=1, lt=100), BeforeValidator(refuse_share)]

Adjustment = Literal[
    "none",
    "bonferroni",
    "sidak",
    "holm",
    "holm-sidak",
    "simes-hochberg",
    "hommel",
    "fdr_bh",
    "fdr_by",
    "fdr_tsbh",
    "fdr_tsbky",
]


@dataclass(frozen=True, kw_only=True)
class AnalysisOptions:
    """What decides between strategies, declared once: for the catalog's file, the settings of an analysis, and its row.

    A percentile to compare by, the margin within which it is equal, and how sure a difference must be.
    """

    percentile: Percentile = 50.0
    equivalent_within: DeclaredShare = 0.05
    confidence_level: Annotated[float, Field(strict=True, gt=0.5, lt=1)] = 0.95
    adjustment: Adjustment = "holm"


# Names are printed in tables and typed on command lines: no blanks, no control characters, no markup.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=255), _TEXT_COLUMN]
Label = Annotated[str, StringConstraints(pattern=r"^[^\[\]\x00-\x1f\x7f]*$", max_length=500), _TEXT_COLUMN]
# A text, because a factor such as 1/3 has no exact decimal.
Scale = Annotated[
    str,
    StringConstraints(pattern=r"^[^\[\]\x00-\x1f\x7f]*$", max_length=500),
    Field(description="1, or the common factor of an emulation such as 1/8"),
    _TEXT_COLUMN,
]
Text = Annotated[str, StringConstraints(max_length=100_000), AfterValidator(_printable), _TEXT_COLUMN]
# A column's type is looked up at the top of an annotation, not inside `Text | None`.
OptionalText = Annotated[Text | None, _TEXT_COLUMN]
OptionalLabel = Annotated[Label | None, _TEXT_COLUMN]
Id = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_printable), _TEXT_COLUMN]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]+$", max_length=200), _TEXT_COLUMN]
OptionalKey = Annotated[Key | None, _TEXT_COLUMN]
Moment = Annotated[str, AfterValidator(_moment), _TEXT_COLUMN]
Count = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
Round = Annotated[int, Field(ge=0, le=1_000_000)]
Rounds = Annotated[int, Field(ge=0, le=100_000)]
Look = Annotated[int, Field(ge=1, le=1000)]
ErrorShare = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
ClassId = Annotated[int, Field(ge=0, le=999_999_999)]
# A class as JSON names it: the members of an object have text for names.
ClassNumber = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
Bytes = Annotated[int, Field(ge=0, le=_MAX_BIG), _BIG_COLUMN]
OptionalBytes = Annotated[Bytes | None, _BIG_COLUMN]
Summed = Annotated[int, Field(ge=0, le=_MAX_SUMMED), _BIG_COLUMN]
OptionalSummed = Annotated[Summed | None, _BIG_COLUMN]
Seed = Annotated[int, Field(ge=-_MAX_BIG - 1, le=_MAX_BIG), _BIG_COLUMN]
Seconds = Annotated[float, Field(ge=0, le=_MAX_S, allow_inf_nan=False)]
LatencySeconds = Annotated[float, Field(ge=1e-9, le=_MAX_S, allow_inf_nan=False)]
ClockSeconds = Annotated[float, Field(ge=-_MAX_S * 10, le=_MAX_S * 10, allow_inf_nan=False)]
Cpus = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
BitRate = Annotated[float, Field(ge=1, le=_MAX_BIT_PER_S, allow_inf_nan=False)]
MeasuredBitRate = Annotated[float, Field(ge=0, le=_MAX_BIT_PER_S, allow_inf_nan=False)]
OptionalBitRates = Annotated[Annotated[list[MeasuredBitRate], FIRST_WRONG] | None, _JSON_COLUMN]
OptionalSeconds = Annotated[Annotated[list[Seconds], FIRST_WRONG] | None, _JSON_COLUMN]
Direction = Annotated[Literal["up", "down"], _TEXT_COLUMN]
Verdict = Literal["VALID", "DOUBTFUL", "INVALID"]
RoundVerdict = Annotated[Verdict, _TEXT_COLUMN]
ArtifactStatus = Annotated[Literal["ready", "inapplicable", "failed"], _TEXT_COLUMN]
StrategyStatus = Annotated[Literal["applicable", "inapplicable"], _TEXT_COLUMN]
StoredAdjustment = Annotated[Adjustment, _TEXT_COLUMN]
AttemptStatus = Annotated[Literal["complete", "failed"], _TEXT_COLUMN]
# Where a drawn input comes from; none where every input of the pool is in the round, or no pool is known.
Stratum = Literal["body", "tail", "certainty"]
OptionalStratum = Annotated[Stratum | None, _TEXT_COLUMN]
SizeUnit = Annotated[Literal["bytes", "tokens", "elements"], _TEXT_COLUMN]
Metric = Annotated[Literal["top1", "miou", "agreement"], _TEXT_COLUMN]
Number = Annotated[float, Field(ge=-1e300, le=1e300, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Json = Annotated[dict[str, Any], AfterValidator(_bounded)]
JsonList = Annotated[list[Any], AfterValidator(_bounded)]
JsonObject = Annotated[Json, _OBJECT, _JSON_COLUMN]
OptionalJson = Annotated[Json | None, _JSON_COLUMN]
OptionalJsonObjects = Annotated[Annotated[list[Json], FIRST_WRONG] | None, _JSON_COLUMN]
ClassCounts = Annotated[
    dict[ClassNumber, Summed] | None,
    Field(description="Of how many items (of masks: pixels) each class is the truth"),
    _JSON_COLUMN,
]


class _Form(BaseModel):
    """The members of a JSON object that are read somewhere; others may be there."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Pass(_Form):
    name: Label
    options: dict[str, Any] = {}


@dataclass(frozen=True)
class ArtifactFile:
    """One file of an artifact; `part` counts from 0 along the placement."""

    part: Annotated[int, Field(ge=0, le=1000)]
    file: Label
    sha256: Label
    size_bytes: Summed


class _ArtifactFile(BaseModel, ArtifactFile):  # type: ignore[misc]  # as a form it is checked, not frozen
    model_config = ConfigDict(extra="forbid", strict=True)


class _Composition(_Form):
    bit_identical: bool


class _Proof(_Form):
    composition: _Composition | None = None


class _ArtifactDetails(_Form):
    proof: _Proof | None = None
    passes: list[dict[str, Any]] = []


class _EnvironmentDetails(_Form):
    versions: dict[str, str] = {}


class _Tier(_Form):
    name: Name
    cpus: Cpus | None = None
    memory_bytes: Bytes | None = None
    threads: Count | None = None
    provider: Label | None = None


class _Link(_Form):
    name: Name
    up_bit_per_s: BitRate | None = None
    down_bit_per_s: BitRate | None = None


class _Conditions(_Form):
    tiers: list[_Tier] = []
    links: list[_Link] = []
    placement: list[Name] = []
    codec: Label = "raw"


class _Stratum(_Form):
    pool: Count
    drawn: Count


class _Protocol(_Form):
    input_ids: list[str] = []
    select: Label | None = None
    inputs: Count | None = None
    tail: bool | None = None
    strata: dict[Literal["all", "body", "tail", "certainty"], _Stratum] = {}


@dataclass(frozen=True, kw_only=True)
class AccuracyDemand:
    """What a target demands of the accuracy: a floor, a largest drop against identity, or both."""

    min_pct: Percent | None = None
    max_drop_pp: Percent | None = None


class _SloAccuracy(BaseModel, AccuracyDemand):  # type: ignore[misc]  # as above
    model_config = ConfigDict(extra="forbid", strict=True)


def _formed(form: type[BaseModel]) -> AfterValidator:
    def check(value: dict[str, Any]) -> dict[str, Any]:
        form.model_validate(value)
        return value

    return AfterValidator(check)


def _percentiles(value: dict[str, float]) -> dict[str, float]:
    for name in value:
        if not _PERCENTILE.fullmatch(name) or not 0 < float(name) < 100:
            raise ValueError(f"{name[:50]!r} is not a percentile; write 50, 90, 95, 99 or 99.9")
    if len({float(name) for name in value}) < len(value):
        raise ValueError("names a percentile twice")
    return value


def check_placement(placement: str, tiers: Sequence[str]) -> None:
    """Raise ValueError where a placement does not name its tiers: families and tables read both as one."""
    if placement != "-".join(tiers):
        raise ValueError(f"placement {placement!r} does not name its tiers {list(tiers)!r}, joined by '-'")


def _different(values: Sequence[str]) -> Sequence[str]:
    if len(set(values)) < len(values):
        raise ValueError("names one twice")
    return values


Passes = Annotated[list[Annotated[Json, _formed(_Pass)]], FIRST_WRONG, _JSON_COLUMN]
ArtifactFiles = Annotated[list[Annotated[Json, _formed(_ArtifactFile)]], FIRST_WRONG, _LIST, _JSON_COLUMN]
ArtifactDetails = Annotated[Json, _formed(_ArtifactDetails), _OBJECT, _JSON_COLUMN]
EnvironmentDetails = Annotated[Json, _formed(_EnvironmentDetails), _OBJECT, _JSON_COLUMN]
Conditions = Annotated[Json, _formed(_Conditions), _OBJECT, _JSON_COLUMN]
Protocol = Annotated[Json, _formed(_Protocol), _OBJECT, _JSON_COLUMN]
Tiers = Annotated[list[Name], FIRST_WRONG, Field(min_length=1, max_length=64), AfterValidator(_different), _JSON_COLUMN]
SloLatency = Annotated[dict[str, Annotated[float, Field(gt=0, le=_MAX_S)]], AfterValidator(_percentiles), _JSON_COLUMN]
SloAccuracy = Annotated[dict[str, float], _formed(_SloAccuracy), _JSON_COLUMN]
