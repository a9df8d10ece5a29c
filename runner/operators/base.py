"""The interface of a pass, and the options that a catalog may declare for each.

A pass takes model files and gives model files, or a refusal that names the obstacle in the model. The options are
checked without the libraries that the passes need.
"""

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runner.errors import OperatorError

# One input of a model: an array, or an array for each input that it takes, in their order.
CalibrationInput = NDArray[np.generic] | tuple[NDArray[np.generic], ...]


def in_order(inputs: CalibrationInput) -> tuple[NDArray[np.generic], ...]:
    """Return the arrays in the order of the model's inputs."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


_LONG_WORD = re.compile(r"\S{61,}")
_MOST_LISTED = 8


class PassRefusal(OperatorError):
    """The model does not allow this pass: the strategy is inapplicable, not failed.

    Names of hundreds of characters, as converters make them, are shortened in the middle.
    """

    def __init__(self, text: str) -> None:
        super().__init__(_LONG_WORD.sub(lambda word: f"{word[0][:30]}…{word[0][-29:]}", text))


# The packages whose code decides whether a model allows a pass.
_DECIDING = ("artifacts", "graph", "operators")


@cache
def passes_code() -> str:
    """Return a digest of the code that decides whether a model allows a pass.

    A refusal is no measurement: a version of Tierwise that can do more tries again what an earlier one refused, though
    the versions of the passes, which stand for what they make, are the same.
    """
    digest = hashlib.sha256()
    root = Path(__file__).parent.parent
    for file in sorted(file for package in _DECIDING for file in (root / package).rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def listed(names: Iterable[str]) -> str:
    """Return names between commas; of many, the first and the last few and how many there are.

    Examples
    --------
    >>> listed("abc"), listed("abcdefghijkl")
    ('a, b, c', 'a, b, c, d, …, i, j, k, l (12 in all)')
    """
    every = list(names)
    if len(every) <= _MOST_LISTED:
        return ", ".join(every)
    half = _MOST_LISTED // 2
    return ", ".join([*every[:half], "…", *every[-half:]]) + f" ({len(every)} in all)"


def beside_control_flow(nodes: Sequence[str], participle: str) -> str:
    """Say for the end of a refusal that what is inside control flow is not skipped or cut; nothing without any."""
    if not nodes:
        return ""
    return (
        f"; nothing inside {listed(nodes)} is {participle}: export the model without control flow, "
        "such as one branch of an If alone"
    )


@dataclass(frozen=True)
class Context:
    """What a pass may use besides the model.

    Parameters
    ----------
    workdir
        An empty directory for the files the pass writes.
    calibration
        Pre-processed model inputs, each of the model's input shape; empty when the pass does not ask for them.
    environments
        Where a pass keeps a separate environment that its tool needs; it survives the run.
    """

    workdir: Path
    calibration: Sequence[CalibrationInput] = field(default=())
    environments: Path = Path(".tierwise/envs")


@dataclass(frozen=True)
class AppliedPass:
    """The result of a pass: the files in the order they run, and details of the change as JSON values.

    `reference` is a model that computes the same in another way, to compare the result with.
    """

    parts: tuple[Path, ...]
    details: Mapping[str, object] = field(default_factory=dict)
    reference: Path | None = None


class Pass(Protocol):
    """One step of an operator.

    `name` and `version` enter the artifact's content key, together with `options()`, resolved for this host.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def calibration_samples(self) -> int:
        """How many calibration inputs the pass needs; 0 for none."""
        ...

    # Resolved, because `auto` stands for different artifacts on different hosts, which need different keys.
    def options(self) -> Mapping[str, object]:
        """Return every option, defaults included, resolved for this host."""
        ...

    def apply(self, parts: Sequence[Path], context: Context) -> AppliedPass:
        """Rewrite the parts (one file, or several once partitioned); raise Refusal if the model forbids it."""
        ...


class StaticPtqOptions(BaseModel):
    """Options of the pass as the catalog declares them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: Literal["onnxruntime", "neural-compressor"] = "onnxruntime"
    format: Literal["qdq", "qoperator"] = "qdq"
    calibration_samples: int = Field(default=100, ge=1, le=10_000)
    per_channel: bool = True
    reduce_range: bool | Literal["auto"] = "auto"


class EarlyExitOptions(BaseModel):
    """Options of the pass as the catalog declares them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The study skips two: so its prose and its sizes, where Algorithm 1 as printed skips all of a long run.
    blocks: int = Field(default=2, ge=1, le=1000)


class PartitionOptions(BaseModel):
    """Options of the pass as the catalog declares them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    balance: Literal["size"] = "size"
    cut: Literal["paper", "any"] = "paper"


# Keyed by text: the classes of the passes, which hold these names, import onnx.
PASS_OPTIONS: Mapping[str, type[BaseModel]] = {
    "static_ptq": StaticPtqOptions,
    "early_exit": EarlyExitOptions,
    "partition": PartitionOptions,
}


def check_options(name: str, options: Mapping[str, object]) -> BaseModel:
    """Check the declaration of a pass and return its options, the defaults included.

    Raises
    ------
    OperatorError
        When the pass or one of its options is unknown, with what is allowed.

    Examples
    --------
    >>> check_options("early_exit", {"blocks": 3})
    EarlyExitOptions(blocks=3)
    """
    declared = PASS_OPTIONS.get(name)
    if declared is None:
        near = difflib.get_close_matches(name, PASS_OPTIONS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise OperatorError(f"unknown pass {name!r}; this version has: {', '.join(PASS_OPTIONS)}.{hint}")
    try:
        return declared.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise OperatorError(f"pass {name!r}, option {where!r}: {first['msg']}, got {first.get('input')!r}") from error


Format = Literal["qdq", "qoperator"]


@dataclass(frozen=True)
class QuantizationSettings:
    """How to quantize, every option resolved.

    Parameters
    ----------
    format
        `qdq` keeps the float operators between pairs of QuantizeLinear and DequantizeLinear, `qoperator` replaces
        them by integer operators.
    per_channel
        One scale per output channel of a weight instead of one per weight.
    reduce_range
        Weights of seven bits instead of eight.
    """

    format: Format
    per_channel: bool
    reduce_range: bool
