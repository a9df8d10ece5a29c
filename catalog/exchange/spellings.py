"""How rows from elsewhere spell what they say: columns with their units, and the study's tiers, metrics and operators.

Labels of others, cells, headers of wide tables, names of files, are put in the words of the study: `Quantized
Early-exit Partition`, `QE`, `ResNet / Mobile-Edge`, `Q_M`. Only what can mean one thing is understood. What other
spellings of columns mean is in `layouts.py`.

The names of an import's files say together which environment they are of, and which are runs:
`identity_mobile_run1.csv`, `identity_mobile_run2.csv` or `run1/identity_mobile.csv`, `run2/identity_mobile.csv` differ
in the number of a run alone: they are one table in several files.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from catalog.errors import ExchangeError

Kind = Literal["latencies", "accuracies", "sizes"]
REQUIRED: Mapping[Kind, tuple[str, ...]] = {
    "latencies": ("subject", "operator", "placement", "input_id", "repetition", "latency_s"),
    "accuracies": ("subject", "operator", "placement", "metric", "value_pct"),
    "sizes": ("subject", "operator", "placement", "size_bytes"),
}
# What a tier does within a sample, as `PartTimes` names it.
PART_NAMES = ("preprocess_s", "compute_s", "postprocess_s", "serialise_s")
_SHARED = ("environment", "passes", "size_bytes", "parameters", "nodes", "measured_at")
OPTIONAL: Mapping[Kind, tuple[str, ...]] = {
    "latencies": ("round", *_SHARED, "input_bytes", "sent_bytes", *PART_NAMES),
    "accuracies": ("items", *_SHARED),
    "sizes": ("environment", "passes", "parameters", "nodes"),
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


# What a word says of an operator: its passes, none of identity.
_PASS_WORDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("identity", "original", "baseline", "unmodified", "vanilla"), ()),
    **dict.fromkeys(("quantized", "quantised", "quantization", "quantisation", "quantize", "int8"), ("static_ptq",)),
    **dict.fromkeys(("earlyexit", "earlyexiting", "ee"), ("early_exit",)),
    **dict.fromkeys(("partition", "partitioned", "partitioning"), ("partition",)),
    **dict.fromkeys(("qe", "qee"), ("static_ptq", "early_exit")),
    **dict.fromkeys(("qep", "qeep"), ("static_ptq", "early_exit", "partition")),
}
_TIER_WORDS: Mapping[str, tuple[str, ...]] = {
    **{tier: (tier,) for tier in TIERS},
    "me": ("mobile", "edge"),
    "ec": ("edge", "cloud"),
    "mc": ("mobile", "cloud"),
}
# The study's tables write a strategy as `Q_M` or `P_ME`; alone, `E` is an operator or a tier.
_OPERATOR_LETTERS = {"I": "identity", "Q": "quantized", "E": "earlyexit", "P": "partition", "QE": "qe", "QEP": "qep"}
_OPERATOR_LETTERS |= {"EE": "earlyexit", "QEE": "qe", "QEEP": "qep"}
_TIER_LETTERS = {"M": "mobile", "E": "edge", "C": "cloud", "ME": "me", "EC": "ec", "MC": "mc"}
_METRIC_WORDS: Mapping[str, str] = {
    **{metric: metric for metric in METRICS},
    **{"top_1": "top1", "top_5": "top5", "mean_iou": "miou"},
}
_REPETITION_WORDS = ("run", "rep", "repetition", "iteration", "iter", "trial")
# A rate in a text, with a word beside it that says no more; the 8 bits of a quantized model are none.
_RATE_WORD = r"(?:at|bandwidth|bw|limit|link|net|network|rate|speed|uplink|wan)"
_RATE = re.compile(
    rf"(?:(?<![a-z]){_RATE_WORD}[ _=-]*)?"
    r"(([0-9]+(?:\.[0-9]+)?)[ _-]*(?:([kmg])bits?(?:/s|_per_s|_s)?|([kmg])?(?:bps|bits?/s))(?![a-z]))"
    rf"(?:[ _-]*{_RATE_WORD}(?![a-z]))?",
    re.I,
)
_RATE_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
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


@dataclass(frozen=True)
class Rate:
    """A rate in a text: as it is written there, in bit/s, and the text without it."""

    written: str
    bit_per_s: str
    rest: str


def read_rate(text: str) -> Rate | None:
    """Return the first rate that a text says; None where it says none.

    Examples
    --------
    >>> read_rate("cloud_bw2.5Mbps")
    Rate(written='2.5Mbps', bit_per_s='2500000', rest='cloud_ ')
    >>> read_rate("resnet_8bit") is None
    True
    """
    match = _RATE.search(text)
    if match is None:
        return None
    factor = _RATE_FACTORS[(match[3] or match[4] or "").lower()]
    # 2.5 Mbit/s are a whole number of bits.
    return Rate(match[1], f"{round(float(match[2]) * factor)}", text.replace(match[0], " "))


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


def folded(name: str) -> str:
    """Return what spellings of a name have in common: its letters and digits, in lower case.

    Examples
    --------
    >>> folded("ResNet-50") == folded("resnet_50") == folded("RESNET 50")
    True
    """
    return "".join(filter(str.isalnum, name.lower()))


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


_SUFFIXES = frozenset((".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt", ".log"))
# Files that lie beside evidence and hold none.
_ABOUT = re.compile(r"(readme|licen[cs]e|notes?|requirements)\b", re.I)
_WORDS = "run|rep|repetition|iteration|iter|trial|round"
_RUN = re.compile(rf"(?:^|(?<=[\W_]))({_WORDS})[\s_-]*([0-9]{{1,6}})(?=[\W_]|$)", re.I)
# Without a word for it, a number is that of a run at the end of a name, or where it is all of the name.
_NUMBER = re.compile(r"(?:^|(?<=[\s_-]))()([0-9]{1,6})$")


@dataclass(frozen=True)
class RunFile:
    """A file, the path without the number of its run, and the number by the word for it, such as `run` or `round`.

    `rates` are those that the path says, and `group` is the path without them.
    """

    file: Path
    named: str
    run: Mapping[str, str] = field(default_factory=dict)
    rates: tuple[str, ...] = ()
    group: str = ""


def files_in(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return files and those that folders hold, in the order of their names and numbers.

    Raises
    ------
    ExchangeError
        Where a folder holds no file that may be evidence.
    """
    files: dict[Path, None] = {}
    for path in paths:
        members = [path] if not path.is_dir() else sorted(_members(path), key=_natural)
        if not members:
            raise ExchangeError(str(path), [f"holds no file of evidence: {', '.join(sorted(_SUFFIXES))}, also as .gz"])
        files |= dict.fromkeys(members)
    return tuple(files)


def _members(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or _ABOUT.match(path.name) or not path.is_file():
            continue
        if Path(_without_gz(path)).suffix.lower() in _SUFFIXES:
            yield path


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return what sorts `run2` before `run10`."""
    parts = re.split(r"([0-9]+)", str(path))
    return [(int(part), "") if position % 2 else (0, part) for position, part in enumerate(parts)]


def common_name(files: Sequence[Path]) -> str:
    """Return what the environment of files is called: as the first of a pair or a set, or as the folder of many.

    Examples
    --------
    >>> common_name([Path("phone.csv"), Path("phone-accuracy.csv")])
    'phone'
    >>> common_name([Path("lab/resnet_mobile.csv"), Path("lab/fcn_mobile.csv")])
    'lab'
    """
    first, *others = (file.name.split(".")[0] for file in files)
    # Latencies and their accuracies, or a file and others that add to its name.
    added = len(others) < 2 or all(stem == first or re.match(rf"{re.escape(first)}[\W_]", stem) for stem in others)
    if added and not (others and read_label(first).names):
        return first
    return _folder(files).name


def _folder(files: Sequence[Path]) -> Path:
    """Return the folder below which all files are."""
    return Path(os.path.commonpath([file.absolute().parent for file in files]))


def run_groups(files: Sequence[Path], first_line: Callable[[Path], bytes]) -> tuple[tuple[RunFile, ...], ...]:
    """Return files as they are imported together: they differ in a run's number or a rate and have the same columns.

    Parameters
    ----------
    files : sequence of Path
    first_line : callable
        Returns what a file begins with, empty where it is no table of rows.
    """
    depth = len(_folder(files).parts)
    groups: dict[str, list[RunFile]] = defaultdict(list)
    for file in files:
        member = _split(file, _RUN, depth)
        groups[member.group].append(member)
    alone = [members[0].file for members in groups.values() if len(members) == 1]
    groups = {named: members for named, members in groups.items() if len(members) > 1}
    numbered: dict[str, list[RunFile]] = defaultdict(list)
    for file in alone:
        # What nothing else shares is no run of several; a number may be one without a word.
        member = _split(file, _NUMBER, depth)
        numbered[member.group].append(member)
    places = {file: position for position, file in enumerate(files)}
    divided = (part for members in (*groups.values(), *numbered.values()) for part in _divided(members, first_line))
    return tuple(sorted(divided, key=lambda part: places[part[0].file]))


def _divided(members: Sequence[RunFile], first_line: Callable[[Path], bytes]) -> Iterator[tuple[RunFile, ...]]:
    """Yield files together where they are runs with the same columns, else one by one."""
    runs = {(tuple(member.run.items()), member.rates) for member in members}
    if ((), ()) not in runs and 1 < len(members) == len(runs):
        # Without numbers: a log begins with one, and so do rows without a header.
        lines = {re.sub(rb"[0-9.]+", b"", first_line(member.file)) for member in members}
        if len(lines) == 1 and lines != {b""}:
            yield tuple(members)
            return
    for member in members:
        yield (RunFile(member.file, str(member.file)),)


def _split(file: Path, pattern: re.Pattern[str], depth: int) -> RunFile:
    """Take the number of a run out of a path; the first folders have those of none, because all files are in them."""
    run: dict[str, str] = {}
    rates: list[str] = []
    parts, shared = [], []
    path = Path(_without_gz(file)).with_suffix("")
    above = depth - len(file.absolute().parts) + len(path.parts)
    for position, part in enumerate(path.parts):
        if position >= above and (match := pattern.search(part)):
            run[match[1].lower() or "run"] = str(int(match[2]))
            part = f"{part[: match.start()]}{part[match.end() :]}".strip(" _-.") or "-"
        parts.append(part)
        if position >= above and (rate := read_rate(part)):
            rates.append(rate.bit_per_s)
            part = rate.rest
        shared.append(part)
    return RunFile(file, str(Path(*parts)), run, tuple(rates), str(Path(*shared)))


def _without_gz(file: Path) -> str:
    return str(file).removesuffix(".gz")
