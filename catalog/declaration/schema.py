"""The catalog file as pydantic models: what may be written where, and what it becomes.

Names in the file carry human spellings (`memory: 512m`); attributes carry SI units (`memory_bytes`).
What a pass or a data set means is the runner's business: here they are kept as declared.

A testbed says where the tiers of a catalog live (docs/testbeds.md): one Docker engine for all tiers, whose links are
emulated, or a place for each tier, whose links are real unless they are slowed down. No secret stands in a catalog:
keys are those of `ssh` and of Docker's contexts, a token is read from a file.
"""

import ipaddress
import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StringConstraints,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from catalog.declaration.sweeps import Sweepable, or_list
from catalog.evidence.allowed import AnalysisOptions, DeclaredShare, Percentile
from catalog.units import parse_bit_rate, parse_duration, parse_size, parse_wait

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=63)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class Declared(BaseModel):
    """Root of the declarations: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)


Links = Literal["emulated", "real"]
# The testbed of a catalog that declares none: tiers on this machine, as `--launcher` chooses them.
EMULATED = "emulated"
LOCAL = "local"
_ENGINE_SCHEMES = ("ssh", "tcp", "unix")
_SERVER_SCHEMES = ("http", "https")
_CONTEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")
_ADDRESS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,252})")
_ENGINES = "local, a Docker context's name, ssh://USER@HOST, tcp://HOST:PORT or unix:///PATH"
_SERVERS = "http://HOST:PORT"


def _parts(url: str) -> SplitResult:
    """Split a URL; raise ValueError for an invalid port or host."""
    parts = urlsplit(url)
    _ = parts.port  # a property that checks the number
    # A name with a dash in front would be an option of `ssh`.
    for name in (parts.username, parts.hostname):
        if name is not None and not _is_address(name):
            raise ValueError(f"{name!r} is not the name of a user or a host")
    return parts


def _shown(place: str) -> str:
    """Return a place for a message, without a password."""
    return repr(re.sub(r"(?<=:)[^/@:]*(?=@)", "***", place))


_PASSWORD = "it has a password, which does not belong in a catalog"


def _engine_fault(place: str) -> str | None:
    """Return what is wrong with the place of a Docker engine; None if nothing is."""
    if "://" not in place:
        return None if _CONTEXT.fullmatch(place) else "it is not the name of a Docker context"
    try:
        parts = _parts(place)
    except ValueError as error:
        return str(error)
    if parts.password is not None:
        return _PASSWORD
    if parts.scheme in _SERVER_SCHEMES:
        return "http:// is a tier server, which serves one tier: name it under `tiers`"
    if parts.scheme not in _ENGINE_SCHEMES:
        return f"{parts.scheme}:// does not lead to a Docker engine"
    if parts.query or parts.fragment:
        return "it has a query"
    if parts.scheme == "unix":
        return None if not parts.netloc and len(parts.path) > 1 else "a socket is an absolute path, unix:///PATH"
    if not parts.hostname:
        return "it names no host"
    return "it names no port (2376 is usual)" if parts.scheme == "tcp" and parts.port is None else None


def _server_fault(place: str) -> str | None:
    """Return what is wrong with the place of a tier server; None if nothing is."""
    try:
        parts = _parts(place)
    except ValueError as error:
        return str(error)
    if parts.scheme != "http":
        return "a tier server is reached by http"
    if parts.username is not None:
        return "it names a user; a token is read from token_file or TIERWISE_TIER_TOKEN"
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        return "it is more than the address of a server"
    return None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _ADDRESS.fullmatch(text) is not None
    return True


class TierPlace(Declared):
    """Where one tier lives: a Docker engine that starts it as a container, or a tier server that already runs.

    `address` is how the other tiers reach it (by default the host of the URL), `port` the port of the engine's host
    that its container is published at (by default a free one), `token_file` holds the token of a tier server.
    """

    engine: Text | None = None
    server: Text | None = None
    address: Text | None = None
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] | None = None
    token_file: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_spelling(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"server" if value.startswith(("http://", "https://")) else "engine": value}
        return value

    @model_validator(mode="after")
    def _one_place(self) -> "TierPlace":
        if (self.engine is None) == (self.server is None):
            raise ValueError("a tier lives at one place: an engine or a server")
        if self.engine is not None and (fault := _engine_fault(self.engine)):
            raise ValueError(f"{_shown(self.engine)}: {fault}; allowed: {_ENGINES}")
        if self.server is not None and (fault := _server_fault(self.server)):
            raise ValueError(f"{_shown(self.server)}: {fault}; allowed: {_SERVERS}")
        if self.address is not None and not _is_address(self.address):
            raise ValueError(f"{self.address!r} is not an address; allowed: a name or an IP address, without a port")
        if self.server is None and self.token_file is not None:
            raise ValueError("token_file belongs to a tier server; an engine has the keys of ssh or of its context")
        if self.server is not None and self.port is not None:
            raise ValueError("port is that of a container; the port of a tier server stands in its URL")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(core_schema)]}

    @property
    def url(self) -> str:
        """The place as it is declared."""
        return self.engine or self.server or ""

    @property
    def host(self) -> str | None:
        """The host of the URL; None for an engine of this machine or a context, whose URL is known to Docker."""
        return urlsplit(self.url).hostname if "://" in self.url else None

    @property
    def is_unreachable(self) -> bool:
        """Return whether other tiers cannot know how to reach this one: its engine is reached over a local socket."""
        return self.address is None and (self.url == LOCAL or self.url.startswith("unix:"))


class TestbedSpec(Declared):
    """Where tiers live: one `engine` for all, whose links are emulated, or a place for each of the `tiers`.

    Links between places are `real`: they are probed and recorded, not shaped; `emulated` slows those between engines
    down to what is declared. Testbeds of one `replicas` class are of one kind and share their rounds.
    """

    # The test runner would take the name for a class of tests.
    __test__ = False

    engine: Text | None = None
    tiers: Annotated[Mapping[Name, TierPlace], Field(min_length=1)] | None = None
    links: Links = Field(default_factory=lambda values: "real" if values.get("tiers") else "emulated")
    replicas: Name | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "TestbedSpec":
        if (self.engine is None) == (self.tiers is None):
            raise ValueError("a testbed has either one engine for all tiers, or tiers with a place each")
        if self.engine is not None and (fault := _engine_fault(self.engine)):
            raise ValueError(f"{_shown(self.engine)}: {fault}; allowed: {_ENGINES}")
        if self.engine is not None and self.links == "real":
            raise ValueError("links: real needs a place for each tier (tiers:); the links of one engine are emulated")
        servers = [name for name, place in (self.tiers or {}).items() if place.server is not None]
        if servers and self.links == "emulated":
            raise ValueError(
                f"links: emulated slows what containers send, and {servers[0]} is a tier server: write links: real"
            )
        return self

    @property
    def places(self) -> tuple[str, ...]:
        """The engines and servers that it uses, as they are declared, each once."""
        places = [place.url for place in (self.tiers or {}).values()]
        return tuple(dict.fromkeys(places if self.engine is None else [self.engine]))


def in_order(testbed: TestbedSpec, tiers: Iterable[str]) -> TestbedSpec:
    """Return a checked testbed with its tiers in this order, the client's first."""
    places = testbed.tiers
    return testbed if places is None else testbed.model_copy(update={"tiers": {name: places[name] for name in tiers}})


def shared_engines(testbeds: Mapping[str, TestbedSpec]) -> list[str]:
    """Return a sentence for each engine or server that two testbeds name, which cannot measure at the same time."""
    users: dict[str, list[str]] = {}
    for name, testbed in testbeds.items():
        for place in testbed.places:
            users.setdefault(place.rstrip("/"), []).append(name)
    return [
        f"testbeds {' and '.join(names)} both use {place}: they cannot measure at the same time; name one of them"
        for place, names in users.items()
        if len(names) > 1
    ]


Task = Literal["classification", "segmentation", "any"]
Provider = Literal["cpu", "cuda"]

_QUANTITY = {"type": "string", "examples": ["200mbit"]}
BitRate = Annotated[int, BeforeValidator(parse_bit_rate), WithJsonSchema(_QUANTITY)]
Size = Annotated[int, BeforeValidator(parse_size), WithJsonSchema({"type": "string", "examples": ["512m", "4g"]})]
Duration = Annotated[
    float, BeforeValidator(parse_duration), WithJsonSchema({"type": "string", "examples": ["100ms", "1s"]})
]
Wait = Annotated[float, BeforeValidator(parse_wait), WithJsonSchema({"type": "string", "examples": ["30min", "2h"]})]
# Strict, here and below: pydantic would take `true` for 1 and the text "30" for 30.
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Percentage = Annotated[float, Field(strict=True, ge=0, le=100, allow_inf_nan=False)]


def _warmup_kind(value: object) -> str:
    return "word" if isinstance(value, str) else "passes"


# The discriminator chooses one member, so that a misspelt word is not reported as "expected a whole number" too.
Warmup = Annotated[
    Annotated[Annotated[int, Field(strict=True, ge=0, le=1000)], Tag("passes")]
    | Annotated[Literal["steady"], Tag("word")],
    Discriminator(_warmup_kind),
]

_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,3})?)")


def _axis_kind(value: object) -> str:
    return "word" if isinstance(value, str) else "axis"


# An axis of the model's input that counts samples; `new`: the array has one more, in front; `none`: it has no samples.
SampleAxis = Annotated[
    Annotated[Annotated[int, Field(strict=True, ge=0, le=63)], Tag("axis")]
    | Annotated[Literal["new", "none"], Tag("word")],
    Discriminator(_axis_kind),
]


class DatasetFiles(Declared):
    """A user's data set: a directory of images, with a file of labels or a directory of masks, or tensors.

    `mask_values` are the gray levels that stand for class 0, 1, ... where a mask does not hold the numbers themselves.
    `sample_axis` says by input of the model where its array has the samples, if its number of axes does not show it:
    along an axis of the input (0, 1, ...), along a new one in front (`new`), or nowhere (`none`: the same for all).
    """

    images: Text | None = None
    labels: Text | None = None
    masks: Text | None = None
    mask_values: tuple[Annotated[int, Field(strict=True, ge=0, le=65535)], ...] | None = None
    tensors: Text | None = None
    sample_axis: Mapping[Text, SampleAxis] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "DatasetFiles":
        if (self.images is None) == (self.tensors is None):
            raise ValueError("a dataset has either images: DIR or tensors: FILE.npz")
        if self.labels is not None and self.masks is not None:
            raise ValueError("a dataset has either labels (classification) or masks (segmentation), not both")
        if self.tensors is not None and (self.labels or self.masks):
            raise ValueError("labels of tensors are the array `labels` in the same file; remove labels and masks")
        if self.sample_axis is not None and self.tensors is None:
            raise ValueError("sample_axis is about the arrays of tensors: FILE.npz; remove it")
        if self.mask_values is not None and self.masks is None:
            raise ValueError("mask_values says what the gray levels of masks mean: add masks: DIR, or remove it")
        return self


def _dataset_kind(value: object) -> str:
    return "files" if isinstance(value, (Mapping, DatasetFiles)) else "name"


def _as_numbers(value: object) -> object:
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


Side = Annotated[int, Field(strict=True, ge=1, le=16_384)]
Numbers = Annotated[
    tuple[Annotated[float, Field(strict=True, allow_inf_nan=False)], ...],
    BeforeValidator(_as_numbers),
    Field(min_length=1, max_length=3),
]


class PreprocessSpec(Declared):
    """How an image becomes the model's input; what is left out is read from the model.

    value = (pixel * scale - mean) / std for each channel, pixels from 0 to 255; `size` is height and width.
    """

    size: Annotated[tuple[Side, Side], WithJsonSchema({"type": "array", "items": {"type": "integer"}})] | None = None
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    shorter_side: Side | None = None
    padding: Annotated[int, Field(strict=True, ge=0, le=255)] = 0
    scale: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    mean: Numbers = (0.0,)
    std: Numbers = (1.0,)
    channel_order: Literal["rgb", "bgr"] | None = None
    layout: Literal["nchw", "nhwc"] | None = None


InputShape = Annotated[tuple[Annotated[int, Field(strict=True, ge=1)] | Text, ...], Field(max_length=16)]


class InputSpec(Declared):
    """What a model's file does not say of its inputs.

    `shape` is for inputs for which it declares none: `[any, 3, 224, 224]`, or by name if there are several. A number is
    a length; any text stands for a length that is free. `states` names the inputs that take what outputs gave at the
    run before, each with its output; an empty mapping says that there are none. `past` is how many tokens a decoder has
    seen before each sample.
    """

    shape: InputShape | Annotated[Mapping[Text, InputShape], Field(min_length=1)] | None = None
    states: Mapping[Text, Text] | None = None
    past: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 0

    @model_validator(mode="after")
    def _states_apart(self) -> "InputSpec":
        if len(set((self.states or {}).values())) < len(self.states or {}):
            raise ValueError("an output is the next value of one state; name it once in `states`")
        return self


class SubjectSpec(Declared):
    """A model under study, its task and the data it is judged on.

    `input` gives the shapes of inputs for which the model's file declares none. `output` says of task `any` what a
    first output [1, N] is: scores of classes, or values such as an embedding.
    """

    model: Text
    task: Task
    dataset: Annotated[
        # The discriminator chooses one member, so that a mistake in a mapping is not reported as "expected text" too.
        Annotated[Text, Tag("name")] | Annotated[DatasetFiles, Tag("files")], Discriminator(_dataset_kind)
    ]
    preprocess: PreprocessSpec | None = None
    input: InputSpec | None = None
    output: Literal["scores", "values"] | None = None

    @model_validator(mode="after")
    def _output_of_any(self) -> "SubjectSpec":
        if self.output is not None and self.task != "any":
            raise ValueError("output goes with `task: any`; remove it: the other tasks say what the output is")
        return self


class PassSpec(Declared):
    """One pass of an operator: `static_ptq`, or `{early_exit: {blocks: 2}}` in the file."""

    name: Name
    # A mutable default is safe here: pydantic copies it for each model.
    options: Mapping[str, JsonValue] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_spelling(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value, "options": {}}
        if not isinstance(value, Mapping) or len(value) != 1:
            raise ValueError("a pass is a name (static_ptq) or one name with its options (early_exit: {blocks: 2})")
        ((name, options),) = value.items()
        if options is not None and not isinstance(options, Mapping):
            raise ValueError(f"the options of pass {name!r} are a mapping such as {{blocks: 2}}, got {options!r}")
        return {"name": name, "options": dict(options or {})}

    def __hash__(self) -> int:
        # Options may hold lists and compare equal in any order, so only the name is hashed.
        return hash(self.name)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        return {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": {"type": "object"}},
            ]
        }


# How many parts each pass makes of a model; a pass that is missing here is not checked.
PARTS_MADE: Mapping[str, int] = {"static_ptq": 1, "early_exit": 1, "partition": 2}
# The passes that take one model, not the parts that a pass before them made.
TAKING_ONE_MODEL = frozenset({"early_exit", "partition"})


def parts_made(passes: Iterable[PassSpec]) -> int | None:
    """Return how many parts the passes make of one model, None where a pass is unknown.

    Examples
    --------
    >>> partition, unknown = (PassSpec.model_validate(name) for name in ("partition", "of_another_version"))
    >>> parts_made([]), parts_made([partition]), parts_made([unknown])
    (1, 2, None)
    """
    names = [step.name for step in passes]
    return math.prod(PARTS_MADE[name] for name in names) if PARTS_MADE.keys() >= set(names) else None


def _as_sequence(value: object) -> object:
    return [value] if isinstance(value, str) else value


class TierSpec(Declared, Sweepable):
    """What a tier may use; `provider` lists execution providers, the first that the host has is taken.

    `cpus` and `memory` may list values, each of which is a setting of its own.
    """

    SWEPT: ClassVar[Mapping[str, str]] = {"cpus": "cpus", "memory": "memory_bytes"}

    cpus: Annotated[float, Field(strict=True, gt=0, le=1024, allow_inf_nan=False, json_schema_extra=or_list)]
    memory_bytes: Size = Field(alias="memory", json_schema_extra=or_list)
    provider: Annotated[
        tuple[Provider, ...],
        BeforeValidator(_as_sequence),
        Field(min_length=1),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"enum": ["cpu", "cuda"]}}]}),
    ] = ("cpu",)


class LinkSpec(Declared, Sweepable):
    """A link between two tiers: `bandwidth` for both directions, or `up` and `down` apart.

    `bandwidth` may list values, each of which is a setting of its own.
    `up` is the direction of the name (`mobile-edge`: from mobile to edge). `tolerance` is the relative deviation of
    the measured payload rate from the declared one beyond which a measurement is INVALID.
    """

    SWEPT: ClassVar[Mapping[str, str]] = {"bandwidth": "bandwidth"}

    bandwidth: BitRate | None = Field(default=None, json_schema_extra=or_list)
    up: BitRate | None = None
    down: BitRate | None = None
    delay_s: Duration = Field(default=0.0, alias="delay")
    tolerance: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.05

    @model_validator(mode="after")
    def _one_way_of_saying_it(self) -> "LinkSpec":
        both = self.up is not None and self.down is not None
        if (self.bandwidth is None) != both or (self.bandwidth is not None and (self.up or self.down)):
            raise ValueError("a link declares either bandwidth, or both up and down")
        return self

    @property
    def up_bit_per_s(self) -> int:
        """Payload rate in the direction of the name."""
        # Declared rates are at least 1, and the validator has made sure of one: 0 only satisfies the type.
        return self.up or self.bandwidth or 0

    @property
    def down_bit_per_s(self) -> int:
        """Payload rate against the direction of the name."""
        return self.down or self.bandwidth or 0


class StrategySpec(Declared):
    """Every listed operator on every listed placement."""

    operators: Annotated[tuple[str, ...], Field(min_length=1)]
    placements: Annotated[tuple[str, ...], Field(min_length=1)]


class ExperimentSpec(Declared):
    """How a strategy is measured; `codec` is how tensors travel (docs/transport.md).

    `select: systematic` draws other inputs in every round, spread by their size; `random` and `largest` send the same
    ones in all rounds. `warmup` counts passes over the inputs, or is `steady`: until the latency no longer falls.

    With `precision`, rounds (and, unless they are systematic, inputs) are added until the interval of `percentile` is
    that narrow (half its width, relative), or `max_time` of a fill is over. With `race`, `rounds` are those of the
    first look, and further rounds measure only the strategies that can still prove or change an answer.
    """

    inputs: Count = 30
    # Not `systematic`: a file from before there was a choice means what it meant when its evidence was measured.
    select: Literal["systematic", "random", "largest"] = "random"
    seed: Annotated[int, Field(strict=True, ge=0, le=2**31)] = 1
    rounds: Annotated[int, Field(strict=True, ge=1, le=1000)] = 3
    repetitions: Annotated[int, Field(strict=True, ge=1, le=1000)] = 1
    warmup: Warmup = Field(default_factory=lambda values: "steady" if values.get("select") == "systematic" else 1)
    codec: Literal["raw", "base64-json", "shuffle-zlib"] = "raw"
    # Off in a file that does not say: it means what it meant when its evidence was measured.
    race: Annotated[bool, Field(strict=True)] = False
    precision: DeclaredShare | None = None
    percentile: Percentile = 90.0
    max_time_s: Wait | None = Field(default=None, alias="max_time")

    @property
    def systematic(self) -> bool:
        """Whether each round draws inputs of its own."""
        return self.select == "systematic"

    @model_validator(mode="after")
    def _spread_takes_two(self) -> "ExperimentSpec":
        if self.systematic and self.inputs < 2:
            raise ValueError(f"select: systematic needs inputs: 2 or more, got {self.inputs}")
        return self

    @model_validator(mode="after")
    def _one_rule_for_further_rounds(self) -> "ExperimentSpec":
        if self.race and self.precision is not None:
            raise ValueError(
                "race and precision are two rules for further rounds: a race adds them until the answers are decided, "
                "precision until every interval is narrow; remove one"
            )
        if self.race and "percentile" in self.model_fields_set:
            raise ValueError("percentile belongs to precision; a race takes those of the SLOs: remove percentile")
        return self

    @model_validator(mode="after")
    def _precision_is_attainable(self) -> "ExperimentSpec":
        if self.precision is None:
            # Whether `percentile` was written: its default is always there.
            if (self.max_time_s is not None and not self.race) or "percentile" in self.model_fields_set:
                raise ValueError(
                    "percentile and max_time belong to precision: add `precision: 5%`, or remove them; "
                    "max_time also goes with `race: true`"
                )
            return self
        # More rounds bring other inputs, so that few in each are no limit.
        if self.systematic:
            return self
        # Imported here: the package of statistics costs more than reading a whole catalog file.
        from catalog.statistics.intervals import inputs_needed

        # An interval needs both bounds; below the median the lower one takes more inputs.
        needed = inputs_needed(max(self.percentile, 100 - self.percentile))
        if self.inputs < needed:
            raise ValueError(f"precision at p{self.percentile:g} needs inputs: {needed} or more, got {self.inputs}")
        return self


class AccuracyTarget(Declared):
    """A floor, or a drop against identity in percentage points."""

    max_drop_pp: Percentage | None = Field(default=None, alias="max_drop")
    min_pct: Percentage | None = Field(default=None, alias="min")


class SloSpec(Declared):
    """A named target: `latency` maps percentiles (`p90`) to durations."""

    latency: Mapping[str, Duration] = {}
    accuracy: AccuracyTarget = AccuracyTarget()

    @field_validator("latency", mode="before")
    @classmethod
    def _percentiles(cls, value: Any) -> Any:
        for name in value if isinstance(value, Mapping) else ():
            match = _PERCENTILE.fullmatch(str(name))
            if match is None or float(match[1]) == 0:
                raise ValueError(f"{name!r} is not a percentile; write p50, p90, p95, p99 or p99.9")
        return value

    @property
    def latency_s(self) -> Mapping[float, float]:
        """Upper limits in seconds by percentile (90.0 for `p90`)."""
        return {float(name[1:]): limit for name, limit in self.latency.items()}


def _no_boolean(value: object) -> object:
    """Refuse a boolean: in Python `True == 1`; in a file `version: true` is a mistake."""
    return str(value) if isinstance(value, bool) else value


class AnalysisSpec(Declared, AnalysisOptions):  # type: ignore[misc]  # mypy does not see that declarations are frozen
    """What decides between strategies (docs/statistics.md)."""

    # A catalog says `confidence`, everything else as scipy does.
    model_config = ConfigDict(alias_generator=lambda name: name.removesuffix("_level"), serialize_by_alias=True)


class CatalogFile(Declared):
    """The whole file. The first tier is the client's: latency is measured from there."""

    version: Annotated[Literal[1], BeforeValidator(_no_boolean)]
    subjects: Annotated[Mapping[Name, SubjectSpec], Field(min_length=1)]
    operators: Annotated[Mapping[Name, tuple[PassSpec, ...]], Field(min_length=1)]
    tiers: Annotated[Mapping[Name, TierSpec], Field(min_length=1)]
    links: Mapping[Name, LinkSpec] = {}
    strategies: Annotated[tuple[StrategySpec, ...], Field(min_length=1)]
    experiment: ExperimentSpec = ExperimentSpec()
    analysis: AnalysisSpec = AnalysisSpec()
    slos: Mapping[Name, SloSpec] = {}
    testbeds: Mapping[Name, TestbedSpec] = {}
