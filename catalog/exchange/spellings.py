"""The columns of rows from elsewhere with their units, and the study's names of tiers, metrics and operators.

What other spellings of columns mean is in `layouts.py`, of what is in their cells in `labels.py`.
"""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

Kind = Literal["latencies", "accuracies"]
REQUIRED: Mapping[Kind, tuple[str, ...]] = {
    "latencies": ("subject", "operator", "placement", "input_id", "repetition", "latency_s"),
    "accuracies": ("subject", "operator", "placement", "metric", "value_pct"),
}
# What a tier does within a sample, as `PartTimes` names it.
PART_NAMES = ("preprocess_s", "compute_s", "postprocess_s", "serialise_s")
_SHARED = ("environment", "passes", "size_bytes", "parameters", "nodes", "measured_at")
OPTIONAL: Mapping[Kind, tuple[str, ...]] = {
    "latencies": ("round", *_SHARED, "input_bytes", "sent_bytes", *PART_NAMES),
    "accuracies": ("items", *_SHARED),
}
LINK_COLUMN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9_.]*-[A-Za-z0-9_.-]+)_bit_per_s$")
TIERS = ("mobile", "edge", "cloud")
METRICS = ("top1", "top5", "miou", "agreement")
# What the study's operators do, as the catalogs here call them.
STUDY_OPERATORS: Mapping[str, tuple[str, ...]] = {
    "identity": (),
    "quantized": ("static_ptq",),
    "early_exit": ("early_exit",),
    "partition": ("partition",),
    "quantized_early_exit": ("static_ptq", "early_exit"),
    "quantized_early_exit_partition": ("static_ptq", "early_exit", "partition"),
}


class ColumnUnit(NamedTuple):
    """What the cells of a column are in: words for it in place of others, and how it becomes the unit used here."""

    words: str
    instead_of: str
    factor: float = 1
    divisor: float = 1


# By the end of a column's name: the end that it has here, and the unit of its cells. A division is exact where the
# product with a reciprocal is not.
_UNITS: Mapping[str, tuple[str, ColumnUnit]] = {
    "_ms": ("_s", ColumnUnit("milliseconds", "seconds", divisor=1e3)),
    "_us": ("_s", ColumnUnit("microseconds", "seconds", divisor=1e6)),
    "_kbit_per_s": ("_bit_per_s", ColumnUnit("kbit/s", "bit/s", factor=1e3)),
    "_mbit_per_s": ("_bit_per_s", ColumnUnit("Mbit/s", "bit/s", factor=1e6)),
}
_OF_TIERS = re.compile(r"(.+)_((?:[km]?bit_per|preprocess|compute|postprocess|serialise)_[mu]?s|sent_bytes)", re.I)


def is_column(name: str, kind: Kind) -> bool:
    """Tell whether rows of a kind may have a column of this name."""
    if name in REQUIRED[kind] or name in OPTIONAL[kind]:
        return True
    named = LINK_COLUMN.match(name), sent_link(name), part_column(name)
    return kind == "latencies" and any(match is not None for match in named)


def sent_link(column: str) -> str | None:
    """Return the link of a column of bytes, `mobile-edge_sent_bytes`; empty text for the only one, `sent_bytes`."""
    if column == "sent_bytes":
        return ""
    link = column.removesuffix("_sent_bytes")
    return link if link != column and "-" in link else None


def part_column(column: str) -> tuple[str, str] | None:
    """Return tier and duration of a column such as `edge_compute_s`; the tier is empty where it is the only one."""
    for name in PART_NAMES:
        if column == name:
            return "", name
        if column.endswith(f"_{name}") and len(column) > len(name) + 1:
            return column.removesuffix(f"_{name}"), name
    return None


def spelled_column(name: str) -> str:
    """Return a column's name without the case of its letters and without blanks; the names of tiers keep theirs.

    Examples
    --------
    >>> spelled_column("Input ID"), spelled_column("Mobile-Edge_Mbit_per_s")
    ('input_id', 'Mobile-Edge_mbit_per_s')
    """
    text = re.sub(" +", "_", name.strip())
    of_tiers = _OF_TIERS.fullmatch(text)
    return f"{of_tiers[1]}_{of_tiers[2].lower()}" if of_tiers else text.lower()


def column_unit(column: str) -> tuple[str, ColumnUnit] | None:
    """Return what a column in another unit is called here and its unit; None for one that ends in no such unit.

    Examples
    --------
    >>> column_unit("latency_ms")[0], column_unit("latency_s")
    ('latency_s', None)
    """
    for end, (plain, unit) in _UNITS.items():
        if column.endswith(end):
            return column.removesuffix(end) + plain, unit
    return None


def name_near(text: str) -> str:
    """Return a name near to one that is not allowed, `ResNet-152` for `ResNet 152`; empty text where none is.

    Examples
    --------
    >>> name_near("ResNet 152 (v1)"), name_near("…")
    ('ResNet-152-v1', '')
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.")[:63]


def default_passes(operator: str) -> tuple[str, ...]:
    """Return what an operator does by its name: the study's six are known, another one is a pass of its own name."""
    return STUDY_OPERATORS.get(operator, (operator,))
