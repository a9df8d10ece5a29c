"""The interface of a pass: model files in, model files out, or a refusal that names the obstacle in the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runner.errors import OperatorError


class PassRefusal(OperatorError):
    """The model does not allow this pass: the strategy is inapplicable, not failed."""


@dataclass(frozen=True)
class Context:
    """What a pass may use besides the model.

    Parameters
    ----------
    workdir
        An empty directory for the files the pass writes.
    calibration
        Pre-processed model inputs, each of the model's input shape; empty when no pass of the pipeline asks for them.
    environments
        Where a pass keeps a separate environment that its tool needs; it survives the run.
    """

    workdir: Path
    calibration: Sequence[NDArray[np.generic]] = field(default=())
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
