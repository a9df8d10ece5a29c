"""How to quantize, with every option resolved."""

from dataclasses import dataclass
from typing import Literal

Format = Literal["qdq", "qoperator"]


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
