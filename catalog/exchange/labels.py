"""What labels of others say of a strategy: cells, headers of wide tables, names of files, in the words of the study.

`Quantized Early-exit Partition`, `QE`, `ResNet / Mobile-Edge`, `Q_M`. Only what can mean one thing is understood.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from catalog.exchange.spellings import METRICS, STUDY_OPERATORS, TIERS

# What a word says of an operator: its passes, none of identity.
_PASS_WORDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("identity", "original", "baseline", "unmodified", "vanilla"), ()),
    **dict.fromkeys(("quantized", "quantised", "quantization", "quantisation", "quantize", "int8"), ("static_ptq",)),
    **dict.fromkeys(("earlyexit", "earlyexiting", "ee"), ("early_exit",)),
    **dict.fromkeys(("partition", "partitioned", "partitioning"), ("partition",)),
    "qe": ("static_ptq", "early_exit"),
    "qep": ("static_ptq", "early_exit", "partition"),
}
_TIER_WORDS: Mapping[str, tuple[str, ...]] = {
    **{tier: (tier,) for tier in TIERS},
    "me": ("mobile", "edge"),
    "ec": ("edge", "cloud"),
    "mc": ("mobile", "cloud"),
}
# The study's tables write a strategy as `Q_M` or `P_ME`; alone, `E` is an operator or a tier.
_OPERATOR_LETTERS = {"I": "identity", "Q": "quantized", "E": "earlyexit", "P": "partition", "QE": "qe", "QEP": "qep"}
_TIER_LETTERS = {"M": "mobile", "E": "edge", "C": "cloud", "ME": "me", "EC": "ec", "MC": "mc"}
_METRIC_WORDS: Mapping[str, str] = {
    **{metric: metric for metric in METRICS},
    **{"top_1": "top1", "top_5": "top5", "mean_iou": "miou"},
}
_REPETITION_WORDS = ("run", "rep", "repetition", "iteration", "iter", "trial")
# Two words that are one.
_PAIRS = {("early", "exit"): "earlyexit", ("early", "exiting"): "earlyexit", ("top", "1"): "top1", ("top", "5"): "top5"}
_PAIRS |= {("mean", "iou"): "miou", ("m", "iou"): "miou"}
# Words that say nothing of the strategy.
_FILLERS = frozenset(
    (
        *(
            "accuracies",
            "accuracy",
            "data",
            "deployed",
            "deployment",
            "device",
            "experiment",
            "hybrid",
            "in",
            "inference",
        ),
        *("latencies", "latency", "log", "logs", "measurements", "model", "models", "monolithic", "ms", "of", "on"),
        *("operator", "output", "percent", "pct", "raw", "result", "results", "s", "sec", "seconds", "strategy", "the"),
        *("tier", "tiers", "time", "times"),
    )
)
_WORD = re.compile(r"[A-Za-z0-9.]+")
_CAMEL = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")


@dataclass(frozen=True)
class Label:
    """What a text says: names by column, and the words that say nothing that is known here."""

    names: Mapping[str, str] = field(default_factory=dict)
    rest: str = ""


def read_label(text: str) -> Label:
    """Return what a text says of a strategy, its metric and repetition.

    Examples
    --------
    >>> read_label("ResNet Quantized Early-Exit (Mobile)")
    Label(names={'operator': 'quantized_early_exit', 'placement': 'mobile'}, rest='ResNet')
    >>> read_label("P_ME").names
    {'operator': 'partition', 'placement': 'mobile-edge'}
    >>> read_label("Run 3").names, read_label("Top-1% Edge").names
    ({'repetition': '3'}, {'placement': 'edge', 'metric': 'top1'})
    """
    passes: dict[str, None] | None = None
    tiers: list[str] = []
    names: dict[str, str] = {}
    rest: list[str] = []
    words = list(_words(text))
    for position, word in enumerate(words):
        lower = word.lower()
        number = words[position + 1] if position + 1 < len(words) else ""
        if lower in _PASS_WORDS:
            passes = (passes or {}) | dict.fromkeys(_PASS_WORDS[lower])
        elif lower in _TIER_WORDS:
            tiers += _TIER_WORDS[lower]
        elif lower in _METRIC_WORDS:
            names["metric"] = _METRIC_WORDS[lower]
        elif lower in _REPETITION_WORDS and number.isdecimal():
            names["repetition"] = number
        elif (position == 0 or words[position - 1].lower() not in _REPETITION_WORDS) and lower not in _FILLERS:
            rest.append(word)
    operator = None if passes is None else _operator_of(tuple(passes))
    if passes is not None and operator is None:
        rest.insert(0, "+".join(passes))
    if len(set(tiers)) < len(tiers):
        rest, tiers = [*tiers, *rest], []
    said = {"operator": operator, "placement": "-".join(tiers)}
    return Label({name: value for name, value in said.items() if value} | names, "_".join(rest))


def _operator_of(passes: Sequence[str]) -> str | None:
    """Return the study's operator of these passes, whose order is always the same."""
    return next((name for name, own in STUDY_OPERATORS.items() if set(own) == set(passes)), None)


def _words(text: str) -> Iterator[str]:
    words = [part for word in _WORD.findall(text) for part in _parts(word.strip("."))]
    if len(words) == 2 and words[0] in _OPERATOR_LETTERS and words[1] in _TIER_LETTERS:
        yield from (_OPERATOR_LETTERS[words[0]], _TIER_LETTERS[words[1]])
        return
    position = 0
    while position < len(words):
        pair = tuple(word.lower() for word in words[position : position + 2])
        joined = _PAIRS.get(pair)  # type: ignore[arg-type]
        yield joined or words[position]
        position += 2 if joined else 1


def _parts(word: str) -> Sequence[str]:
    """Return the words of one that is written in capitals, `EarlyExit`, or ends in a number, `run3`."""
    parts = _CAMEL.findall(word)
    if len(parts) > 1 and "".join(parts) == word:
        if parts[0].lower() in _REPETITION_WORDS and len(parts) == 2:
            return parts
        if all(part.lower() in {"early", "exit", "exiting", *_PASS_WORDS, *_TIER_WORDS} for part in parts):
            return parts
    return [word] if word else []


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
    >>> spelled_operator("Quantized Early-Exit"), spelled_operator("Hybrid (QE)"), spelled_operator("Mine")
    ('quantized_early_exit', 'quantized_early_exit', 'Mine')
    """
    text = re.sub(r"[\s_-]+", "_", name.strip().lower())
    if text in STUDY_OPERATORS:
        return text
    letters = _OPERATOR_LETTERS.get(name.strip(), name)
    label = read_label(letters)
    return label.names["operator"] if set(label.names) == {"operator"} and not label.rest else name


def spelled_placement(name: str) -> str:
    """Return tiers of the study as they are joined here; another name as it is.

    Examples
    --------
    >>> spelled_placement("Mobile Edge"), spelled_placement("mobile->edge"), spelled_placement("ME")
    ('mobile-edge', 'mobile-edge', 'mobile-edge')
    >>> spelled_placement("Edge"), spelled_placement("phone_2")
    ('Edge', 'phone_2')
    """
    if name.lower() in TIERS or (re.fullmatch(r"\w+(-\w+)+", name) and "_" not in name):
        # Those that a placement may be called; their case is settled for the whole file.
        return name
    label = read_label(_TIER_LETTERS.get(name, name))
    return label.names["placement"] if set(label.names) == {"placement"} and not label.rest else name


def spelled_metric(name: str) -> str:
    """Return a metric as it is called here; another name as it is.

    Examples
    --------
    >>> spelled_metric("Top-1"), spelled_metric("mIoU %"), spelled_metric("f1")
    ('top1', 'miou', 'f1')
    """
    label = read_label(name)
    return label.names["metric"] if set(label.names) == {"metric"} and not label.rest else name
