"""What a pass is: model files in, model files out, or a refusal that names what was found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runner.errors import OperatorError


class Refusal(OperatorError):
    """The model does not allow this pass: the strategy is inapplicable, not failed."""


@dataclass(frozen=True)
class Context:
    """What a pass may draw on besides the model.

    Parameters
    ----------
    workdir
        An empty directory for the files the pass writes.
    calibration
        Pre-processed model inputs, each of the model's input shape; empty when no pass of the pipeline asks for them.
    environments
        Where a pass keeps an environment that its tool needs for itself; survives the run.
    """

    workdir: Path
    calibration: Sequence[NDArray[np.generic]] = field(default=())
    environments: Path = Path(".tierwise/envs")


@dataclass(frozen=True)
class Applied:
    """What a pass made: the files in the order they run, and what it did in words and numbers JSON can hold.

    `reference` is a model that computes the same in another way, for what was made to be compared with.
    """

    parts: tuple[Path, ...]
    details: Mapping[str, object] = field(default_factory=dict)
    reference: Path | None = None


class Pass(Protocol):
    """One step of an operator.

    `name` and `version` enter the artifact's content key, as do `options()`, every one resolved for this host.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def calibration_samples(self) -> int:
        """How many calibration inputs it wants; 0 for none."""
        ...

    def options(self) -> Mapping[str, object]:
        """Every option, defaults included, resolved for this host."""
        ...

    def apply(self, parts: Sequence[Path], context: Context) -> Applied:
        """Rewrite the parts (one file, or several once partitioned); raises Refusal where the model forbids it."""
        ...
