"""The options that a catalog may declare for each pass, checked without the libraries that the passes need."""

import difflib
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runner.errors import OperatorError


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


def check_options(name: str, options: Mapping[str, object]) -> None:
    """Check the declaration of a pass.

    Raises
    ------
    OperatorError
        When the pass or one of its options is unknown, with what is allowed.

    Examples
    --------
    >>> check_options("early_exit", {"blocks": 2})
    """
    declared = PASS_OPTIONS.get(name)
    if declared is None:
        near = difflib.get_close_matches(name, PASS_OPTIONS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise OperatorError(f"unknown pass {name!r}; this version has: {', '.join(PASS_OPTIONS)}.{hint}")
    try:
        declared.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise OperatorError(f"pass {name!r}, option {where!r}: {first['msg']}, got {first.get('input')!r}") from error
