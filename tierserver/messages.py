"""Every message of a tier's control channel, JSON lines on stdin and stdout, and of a tier server's control port.

The runner imports this module and little else of the package, so it needs only the standard library.
Each message is a frozen dataclass; `to_json` gives a JSON object, `from_json` reads one strictly (unknown or
missing keys and wrong types raise `MessageError`). Fields that are None are left out on the way out.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Literal, Self, TypeVar, dataclass_transform

# How tensors travel from tier to tier: see `tierserver.encoding`.
Codec = Literal["raw", "base64-json", "shuffle-zlib"]


class MessageError(ValueError):
    """A JSON object that is not the message it should be."""


_M = TypeVar("_M")


@dataclass_transform(frozen_default=True)
def message(cls: type[_M]) -> type[_M]:
    """Make a class a message, which the type checker takes for a frozen dataclass.

    At run time it is a plain one, because every tier makes all of these classes when it starts: to generate the methods
    of frozen ones took five times as long, a tenth of a start. `Message` compares, hashes and prints them.
    """
    return dataclass(eq=False, repr=False)(cls)


@message
class Message:
    """A dataclass that travels as a JSON object."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and _values(other) == _values(self)

    def __hash__(self) -> int:
        return hash(tuple(_values(self)))

    def __repr__(self) -> str:
        values = ", ".join(f"{item.name}={getattr(self, item.name)!r}" for item in fields(self))
        return f"{type(self).__name__}({values})"

    def to_json(self) -> dict[str, Any]:
        return {item.name: _encode(value) for item in fields(self) if (value := getattr(self, item.name)) is not None}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        return typing.cast(Self, _decode_message(cls, raw))


@message
class Command(Message):
    """A message the runner sends; its JSON object also holds `cmd` (the caller adds `id`)."""

    cmd: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        return {"cmd": self.cmd, **super().to_json()}


# -- what a tier has to serve -----------------------------------------------------------------------------------


@message
class Preprocess(Message):
    """From an encoded image to the graph's one input: value = (pixel * scale - mean) / std, per channel.

    With kind `tensors` the request holds the graph's inputs themselves (`tierserver.encoding`), and no other field
    matters.
    `shorter_side_crop` resizes until the picture covers height x width and keeps the centre; with `shorter_side` its
    shorter side becomes that many pixels first (ImageNet's 232, then the central 224).
    With `center` each channel's mean over this one image is subtracted instead of `mean`.
    `pad` keeps the picture whole, in the middle of a frame whose pixels have the value `padding`.
    With dtype `uint8` the pixels go in as they are and scale, mean and std are ignored.
    """

    color: Literal["gray", "rgb", "bgr"] = "rgb"
    height: int = 0
    width: int = 0
    resize: Literal["stretch", "shorter_side_crop", "pad"] = "stretch"
    shorter_side: int | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    center: bool = False
    layout: Literal["nchw", "nhwc"] = "nchw"
    dtype: Literal["float32", "float16", "uint8"] = "float32"
    padding: int = 0
    kind: Literal["image", "tensors"] = "image"


@message
class Postprocess(Message):
    """`top_k`: outputs `classes` INT64 [k], `scores` FP32 [k]; `label_map`: output `labels` UINT8 [H, W]; `tensors`:
    the graph's outputs as they are.

    A label is the largest of the classes' scores, which are the second axis, or with layout `nhwc` the last; with a
    `threshold` the graph has one score a pixel, and the label is 1 where it is higher and 0 elsewhere.

    A graph with dense upsampling gives [1, classes, cell * cell * h * w]: each of h x w cells holds cell x cell labels,
    and `height` x `width` is the map's size in labels.

    Scores are those of the graph's first output, or of `output`; with `last` they are [1, positions, classes], of which
    the last position counts, as the next token of a text does.
    """

    kind: Literal["top_k", "label_map", "tensors"]
    k: int = 5
    softmax: bool = False
    layout: Literal["nchw", "nhwc"] = "nchw"
    threshold: float | None = None
    cell: int = 1
    height: int | None = None
    width: int | None = None
    output: str | None = None
    last: bool = False


@message
class PartSpec(Message):
    """One model file a tier serves under `name`.

    `next` is the base URL of the tier that runs the following part; what goes there is written in `codec`.
    """

    name: str
    path: str
    threads: int = 1
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    preprocess: Preprocess | None = None
    postprocess: Postprocess | None = None
    next: str | None = None
    codec: Codec = "raw"


# -- commands ---------------------------------------------------------------------------------------------------


@message
class Load(Command):
    """Serve exactly these parts and relay exactly these routes (tier name -> base URL), instead of the present ones."""

    cmd: ClassVar[str] = "load"
    parts: tuple[PartSpec, ...] = ()
    routes: Mapping[str, str] = field(default_factory=dict)


@message
class Digest(Command):
    """Hash these files as the tier reads them; its result is a `DigestResult`."""

    cmd: ClassVar[str] = "digest"
    paths: tuple[str, ...] = ()


@message
class Unload(Command):
    """Serve nothing any more."""

    cmd: ClassVar[str] = "unload"


@message
class Probe(Command):
    """Time the link to the tier at base URL `url`; its result is a `LinkProbe`.

    Of `large_bytes` that flow over the link, the first `small_bytes` are the start of the transfer and are not timed.
    Both are for both directions unless `down_small_bytes` and `down_large_bytes` set those from that tier.
    """

    cmd: ClassVar[str] = "probe"
    url: str
    small_bytes: int
    large_bytes: int
    repetitions: int = 3
    down_small_bytes: int | None = None
    down_large_bytes: int | None = None


# Well below the 30 samples of a usual round; a round that is not steady by then is measured and marked.
MOST_WARMUP_INFERENCES = 10


@message
class SteadyWarmup(Message):
    """Warm up with input `first` once, then with `repeated` until its latency no longer falls.

    It lasts at least `least_s`, past the first periods of a CPU controller and what a small model still gains in its
    first dozen inferences, and ends after `most` inferences that took as long.
    """

    first: str
    repeated: str
    least_s: float = 0.15
    most: int = MOST_WARMUP_INFERENCES


@message
class Measure(Command):
    """Send every input `repetitions` times after `warmup` discarded passes; `url` None means in-process.

    With `steady` the warm-up is that one, and no passes. Without repetitions it only warms up, and the next `measure`
    of the same strategy goes on over the same connection.
    What goes to another tier is written in `codec`, and so is its answer.
    """

    cmd: ClassVar[str] = "measure"
    model: str
    inputs_dir: str
    input_ids: tuple[str, ...]
    url: str | None = None
    repetitions: int = 1
    warmup: int = 1
    codec: Codec = "raw"
    steady: SteadyWarmup | None = None


@message
class Evaluate(Command):
    """Score a part served in this tier over a validation set; `k` is the k of the second hit (top-5)."""

    cmd: ClassVar[str] = "evaluate"
    model: str
    items_file: str
    k: int = 5


@message
class Stats(Command):
    """Read the tier's counters; its result is a `StatsResult`."""

    cmd: ClassVar[str] = "stats"


COMMANDS: Mapping[str, type[Command]] = {
    command.cmd: command for command in (Load, Digest, Unload, Probe, Measure, Evaluate, Stats)
}


def parse_command(raw: Mapping[str, Any]) -> Command:
    """Return the command in a line from stdin (with its `id`, `cmd` and `token` keys)."""
    name = raw.get("cmd")
    if not isinstance(name, str) or name not in COMMANDS:
        raise MessageError(f"unknown command {name!r}; known: {', '.join(COMMANDS)}")
    return COMMANDS[name].from_json({key: value for key, value in raw.items() if key not in ("cmd", "id", "token")})


# -- events and results -----------------------------------------------------------------------------------------


@message
class Ready(Message):
    """The first line a tier prints; `event` is "ready"."""

    name: str
    port: int
    pid: int
    python: str
    onnxruntime: str
    providers: tuple[str, ...]
    # A field and not a ClassVar, since it travels in the message: readers tell events apart by it.
    event: Literal["ready"] = "ready"


@message
class TierFacts(Message):
    """What `python -m tierserver.machine` prints: the machine and the kernel under a tier, and the engine inside it.

    `machine` tells two machines apart without naming them; empty where the system has no identifier.
    """

    cpu_model: str
    vnni: bool
    boot_id: str
    onnxruntime: str
    providers: tuple[str, ...]
    architecture: str = ""
    cpus: int = 0
    memory_bytes: int = 0
    kernel: str = ""
    machine: str = ""


@message
class SamplePart(Message):
    """What one tier reports of itself for one request, by its own clock.

    A tier that only sends the request and reads the answer has `serialise_s` alone.
    """

    tier: str
    preprocess_s: float
    compute_s: float
    postprocess_s: float
    serialise_s: float


@message
class SampleLink(Message):
    """Bytes of one request on one link, HTTP head and body: `sent_bytes` go from the first tier to the second."""

    # Without the headers of TCP and IP, which a socket does not see.
    link: str
    sent_bytes: int
    received_bytes: int


@message
class Sample(Message):
    """One timed inference."""

    seq: int
    input_id: str
    repetition: int
    latency_s: float
    parts: tuple[SamplePart, ...]
    links: tuple[SampleLink, ...]
    output_digest: str


@message
class SampleEvent(Message):
    """Streamed by `measure`, one per sample."""

    sample: Sample
    event: Literal["sample"] = "sample"


@message
class ItemsEvent(Message):
    """Streamed by `evaluate`, about one per second."""

    done: int
    total: int
    event: Literal["items"] = "items"


@message
class LoadResult(Message):
    """Per part name: seconds to create its session, SHA-256 of its file, and graph nodes per execution provider.

    The nodes are those the runtime assigned after it simplified the graph; empty if it does not report them.
    """

    cold_start_s: Mapping[str, float]
    model_sha256: Mapping[str, str]
    provider_nodes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@message
class DigestResult(Message):
    """SHA-256 by path, without the files that cannot be read."""

    sha256: Mapping[str, str]


@message
class UnloadResult(Message):
    """The empty result of `unload`."""


@message
class ProbeDirection(Message):
    """The timed stretch of a transfer, and the rate at which bytes arrived in it.

    `small_bytes` had arrived after `small_s`, `large_bytes` after `large_s`, counted from the first arrival.
    """

    small_s: float
    large_s: float
    rate_bit_per_s: float
    small_bytes: int
    large_bytes: int


@message
class LinkProbe(Message):
    """What the probe of a link found: both directions, and the time of an empty round trip."""

    up: ProbeDirection
    down: ProbeDirection
    rtt_s: float


@message
class MeasureResult(Message):
    """How many samples were streamed, what the warm-up took, and whether one until steady ended so."""

    samples: int
    warmup: tuple[Sample, ...] = ()
    steady: bool | None = None


@message
class ItemScore(Message):
    """One validation item: the two hits (classification), or pixels per class (segmentation)."""

    item_id: str
    top1: bool | None = None
    top5: bool | None = None
    intersections: tuple[int, ...] | None = None
    unions: tuple[int, ...] | None = None


@message
class EvaluateResult(Message):
    """The scores of all validation items, in their order."""

    items: tuple[ItemScore, ...]


@message
class CgroupStats(Message):
    """The CPU controller's counters since the tier's start."""

    # The names are the kernel's own (Documentation/scheduler/sched-bwc.rst).
    nr_periods: int
    nr_throttled: int
    throttled_s: float


@message
class MemoryStats(Message):
    """The memory controller's counters since the tier's start: hits of the limit, kills, the most it held."""

    limit_events: int
    oom_kills: int
    # None before Linux 5.19, which brought memory.peak to cgroup v2.
    peak_bytes: int | None = None


@message
class HostStats(Message):
    """The machine under the tier since its boot: CPU seconds of all CPUs together."""

    boot_id: str
    cpus: int
    busy_s: float
    steal_s: float


@message
class StatsResult(Message):
    """A tier's counters now; `instance` changes when it is restarted, `waited_s` is ready to run but not running."""

    cpu_seconds: float
    peak_rss_bytes: int
    threads: int
    load_average: tuple[float, ...]
    instance: str
    pid: int
    # A process id means something only in its namespace: a container's first process is 1 there.
    pid_namespace: str
    wall_s: float
    monotonic_s: float
    major_faults: int
    waited_s: float | None = None
    cgroup: CgroupStats | None = None
    memory: MemoryStats | None = None
    host: HostStats | None = None


@message
class ErrorInfo(Message):
    """`error` of a failed command: the class of the error and its message."""

    type: str
    message: str


def _values(message: Any) -> list[Any]:
    return [getattr(message, item.name) for item in fields(message)]


# -- codec ------------------------------------------------------------------------------------------------------


def _encode(value: Any) -> Any:
    if isinstance(value, Message):
        return value.to_json()
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    return value


_Read = Callable[[Any], Any]


class _Fields:
    """The fields of a message class, and what reads each of them."""

    def __init__(self, cls: type[Message]) -> None:
        hints = typing.get_type_hints(cls)
        self.readers = {item.name: _reader(hints[item.name], f"{cls.__name__}.{item.name}") for item in fields(cls)}
        self.names = self.readers.keys()
        self.needed = {item.name for item in fields(cls) if item.default is MISSING and item.default_factory is MISSING}


# Annotations are texts here and evaluating them is slow, while a measurement reads thousands of samples.
_fields_by_class: dict[type[Message], _Fields] = {}


def _decode_message(cls: type[Message], raw: Any) -> Message:
    if not isinstance(raw, Mapping):
        raise MessageError(f"{cls.__name__}: expected an object, got {type(raw).__name__}")
    declared = _fields_by_class.get(cls)
    if declared is None:
        declared = _fields_by_class[cls] = _Fields(cls)
    if not declared.needed <= raw.keys() <= declared.names:
        raise _misnamed(cls, raw, declared)
    readers = declared.readers
    return cls(**{key: readers[key](value) for key, value in raw.items()})


def _misnamed(cls: type[Message], raw: Mapping[str, Any], declared: _Fields) -> MessageError:
    if unknown := sorted(raw.keys() - declared.names):
        allowed = ", ".join(declared.names) or "nothing"
        return MessageError(f"{cls.__name__}: unknown {', '.join(unknown)}; allowed: {allowed}")
    return MessageError(f"{cls.__name__}: missing {', '.join(sorted(declared.needed - raw.keys()))}")


def _reader(hint: Any, where: str) -> _Read:
    """Return what reads a value of a type; made once, because to look at a type takes longer than to read a value."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        # `X | None` is the only union that a message may hold.
        inner = _reader(next(argument for argument in arguments if argument is not type(None)), where)
        return lambda value: None if value is None else inner(value)
    if origin is Literal:
        return functools.partial(_decode_choice, arguments, where)
    if origin is tuple:
        return functools.partial(_decode_items, _reader(arguments[0], where), hint, where)
    if origin is Mapping:
        return functools.partial(_decode_mapping, _reader(arguments[1], where), hint, where)
    if is_dataclass(hint):
        return functools.partial(_decode_message, typing.cast(type[Message], hint))
    return functools.partial(_decode_scalar, hint, where)


def _decode_choice(allowed: tuple[Any, ...], where: str, value: Any) -> Any:
    if value not in allowed:
        raise MessageError(f"{where}: got {value!r}; allowed: {', '.join(map(repr, allowed))}")
    return value


def _decode_items(read: _Read, hint: Any, where: str, value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return _decode_scalar(hint, where, value)
    try:
        return tuple([read(item) for item in value])
    except MessageError:
        # Read again with their places, for the message alone.
        for index, item in enumerate(value):
            _reader(typing.get_args(hint)[0], f"{where}[{index}]")(item)
        raise


def _decode_mapping(read: _Read, hint: Any, where: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return _decode_scalar(hint, where, value)
    try:
        return {key: read(item) for key, item in value.items()}
    except MessageError:
        for key, item in value.items():
            _reader(typing.get_args(hint)[1], f"{where}[{key!r}]")(item)
        raise


def _decode_scalar(hint: Any, where: str, value: Any) -> Any:
    # Compared by type, because `isinstance` would let True through as an int.
    if type(value) is hint:
        return value
    # JSON has one kind of number: a float may arrive without a fraction. A bool is an int to `isinstance`.
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = (
        hint.__name__ if isinstance(hint, type) else "a list" if typing.get_origin(hint) is tuple else "an object"
    )
    raise MessageError(f"{where}: expected {expected}, got {type(value).__name__}")


# Raised whenever a message, a path of the control port, or the meaning of a sample changes.
CONTROL_PROTOCOL = 2
# In every request, so that no web page can make one, and in every answer, so that other servers are recognized.
PROTOCOL_HEADER = "tierwise-control"
HOLDER_HEADER = "tierwise-holder"
DEFAULT_PORT = 8000
# Each side writes this often, and takes the other for gone after the lease without a word.
BEAT_S = 5.0
LEASE_S = 20.0


@message
class ServerFacts(Message):
    """What a tier server is; `version` is that of its package, `cache_bytes` the most that its files may take."""

    protocol: int
    version: str
    data_port: int
    cache_bytes: int
    facts: TierFacts


@message
class Hold(Message):
    """Take or renew the one reservation of a tier server; `who` names its holder to others."""

    holder: str
    who: str


@message
class Release(Message):
    """Give the reservation back."""

    holder: str


@message
class FileDigests(Message):
    """SHA-256 of files: those in question, or in the answer those that the cache does not have."""

    sha256: tuple[str, ...]


@message
class Launch(Message):
    """Start a fresh tier with these files (name in commands -> SHA-256) and none besides."""

    name: str
    threads: int
    memory_bytes: int
    engine: bool = True
    files: Mapping[str, str] = field(default_factory=dict)


@message
class LaunchEnded(Message):
    """The last line of a launch: how its process ended, and the end of its log."""

    code: int
    log_tail: str
    event: str = "ended"
