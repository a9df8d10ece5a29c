"""How scripts of others spell columns, tiers, operators and metrics, and what these are called here.

Only what can mean one thing is understood; what may mean several is refused with a suggestion.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

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
_OPERATOR_SPELLINGS = {
    "quantization": "quantized",
    "quantised": "quantized",
    "partitioned": "partition",
    "partitioning": "partition",
    "quantized_early_exit_partitioned": "quantized_early_exit_partition",
}
# Columns of other scripts that may mean several things here: suggested, not understood.
_SUGGESTIONS = {
    **dict.fromkeys(("model", "model_name", "network"), "'subject'"),
    **dict.fromkeys(("op", "technique", "transformation"), "'operator'"),
    **dict.fromkeys(("tier", "tiers", "device", "deployment", "location"), "'placement'"),
    **dict.fromkeys(("input", "image", "image_id", "file", "filename", "sample", "sample_id"), "'input_id'"),
    **dict.fromkeys(("run", "iteration", "trial", "repeat"), "'repetition' or 'round'"),
    **dict.fromkeys(("latency", "time", "duration", "inference_time", "response_time"), "'latency_s' or 'latency_ms'"),
    **dict.fromkeys(("accuracy", "value", "score", "accuracy_pct"), "'value_pct', in percent, beside 'metric'"),
    **dict.fromkeys(("size", "model_size", "size_mb", "size_mib"), "'size_bytes'"),
    **dict.fromkeys(("bandwidth", "bandwidth_mbps", "rate"), "a rate with its link, 'mobile-edge_mbit_per_s'"),
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


def suggestion(column: str) -> str | None:
    """Return what a column of another script may be called here; None where nothing is near."""
    return _SUGGESTIONS.get(spelled_column(column))


def spelled_tiers(tiers: Iterable[str]) -> dict[str, str]:
    """Return the tiers that are the study's three in another case, and what they are called here.

    A file that has a tier in two cases means two tiers.

    Examples
    --------
    >>> spelled_tiers(["Mobile", "edge", "Phone"]), spelled_tiers(["Edge", "edge", "EDGE"])
    ({'Mobile': 'mobile'}, {})
    """
    names = set(tiers)
    counts = Counter(name.lower() for name in names)
    spelled = {name: name.lower() for name in sorted(names) if name != name.lower()}
    return {name: here for name, here in spelled.items() if here in TIERS and counts[here] == 1}


def spelled_operator(name: str) -> str:
    """Return an operator of the study as it is called here; another name as it is.

    Examples
    --------
    >>> spelled_operator("Quantized Early-Exit"), spelled_operator("Partitioning"), spelled_operator("Mine")
    ('quantized_early_exit', 'partition', 'Mine')
    """
    text = re.sub(r"[\s_-]+", "_", name.strip().lower())
    text = _OPERATOR_SPELLINGS.get(text, text)
    return text if text in STUDY_OPERATORS else name


def spelled_metric(name: str) -> str:
    """Return a metric as it is called here; another name as it is.

    Examples
    --------
    >>> spelled_metric("Top-1"), spelled_metric("mIoU"), spelled_metric("f1")
    ('top1', 'miou', 'f1')
    """
    text = re.sub(r"[\s_-]+", "", name.lower())
    return text if text in METRICS else name


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
