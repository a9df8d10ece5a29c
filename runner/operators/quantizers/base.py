"""What a quantizing tool needs besides the model: settings and calibration inputs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Format = Literal["qdq", "qoperator"]
Feed = Mapping[str, NDArray[np.generic]]
Feeds = Iterable[Feed]


@dataclass(frozen=True)
class Settings:
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


@dataclass(frozen=True)
class FirstPart:
    """Calibration inputs of a whole model, or of its first part; can be iterated again."""

    input_name: str
    arrays: Sequence[NDArray[np.generic]]

    def __iter__(self) -> Iterator[Feed]:
        return ({self.input_name: array} for array in self.arrays)


@dataclass(frozen=True)
class NextPart:
    """Calibration inputs of a later part: the outputs of the float part before it, one at a time."""

    before: Path
    feeds: Feeds

    def __iter__(self) -> Iterator[Feed]:
        # Opened for each iteration and gone with it, so that the part before need not stay in memory.
        session = onnxruntime.InferenceSession(str(self.before), providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        return (dict(zip(names, session.run(names, feed), strict=True)) for feed in self.feeds)
