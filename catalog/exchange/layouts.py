"""Tables that others lay out in their own way, as rows: what `runner import` understands of CSV and JSON.

Columns of other names and units, a column for each strategy, tier or run, names in the file's name, rows without an
input or a repetition, rows that sum up the others. Only what can mean one thing is understood; the rest is refused with
the option that says it.
"""

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import NamedTuple

from catalog.declaration.checks import nearest
from catalog.errors import ExchangeError
from catalog.exchange.spellings import (
    LINK_COLUMN,
    OPTIONAL,
    REQUIRED,
    Kind,
    Label,
    Rate,
    column_unit,
    folded,
    is_column,
    read_label,
    read_rate,
    spelled_column,
    spelled_operator,
)
from catalog.units import counted

# What other scripts call the columns, without their units.
_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("model", "model_name", "network", "network_name", "subject_model", "dnn"), "subject"),
    **dict.fromkeys(("op", "operation", "technique", "transformation", "optimization", "variant"), "operator"),
    **dict.fromkeys(("deployment_operator", "operator_name", "model_variant"), "operator"),
    **dict.fromkeys(("tier", "tiers", "device", "location", "deployment_tier", "tier_name"), "placement"),
    **dict.fromkeys(("deployment_strategy", "deployment", "configuration", "config", "setup"), "strategy"),
    **dict.fromkeys(("input", "image", "img", "file", "filename", "sample", "picture", "request"), "input_id"),
    **dict.fromkeys(("image_id", "img_id", "sample_id", "request_id", "input_index", "image_index"), "input_id"),
    **dict.fromkeys(("image_name", "file_name", "input_name", "sample_name", "image_file", "image_path"), "input_id"),
    **dict.fromkeys(("image_no", "sample_no", "image_number", "sample_number", "sample_index"), "input_id"),
    **dict.fromkeys(("run", "rep", "iteration", "iter", "trial", "repeat", "run_id", "run_no"), "repetition"),
    **dict.fromkeys(("repetition_no", "repetition_id", "iteration_no", "trial_no", "run_number"), "repetition"),
    **dict.fromkeys(("metric_name", "accuracy_metric"), "metric"),
    **dict.fromkeys(("latency", "time", "duration", "elapsed", "elapsed_time", "total_time"), "latency"),
    **dict.fromkeys(("inference_time", "inference_latency", "response_time", "total_latency"), "latency"),
    **dict.fromkeys(("end_to_end_latency", "e2e_latency", "e2e", "round_trip_time", "latencies"), "latency"),
    **dict.fromkeys(("accuracy", "acc", "score"), "value"),
    **dict.fromkeys(("validation_samples", "validation_items"), "items"),
    **dict.fromkeys(("size", "model_size", "artifact_size"), "size"),
    **dict.fromkeys(("params", "num_parameters", "n_parameters"), "parameters"),
    **dict.fromkeys(("graph_nodes", "num_nodes", "n_nodes"), "nodes"),
    **dict.fromkeys(("input_size", "image_size", "image_bytes"), "input_size"),
}
# Columns of no meaning: what tools write to number the rows.
_ROW_NUMBERS = re.compile(r"(unnamed_\d+|index|#|idx)?")
_UNITS: Mapping[str, str] = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "µs", "μs", "microsecond", "microseconds"), "us"),
    **dict.fromkeys(("b", "byte", "bytes"), "bytes"),
    **dict.fromkeys(("kib", "mib", "kb", "mb"), ""),
    **dict.fromkeys(("%", "pct", "percent"), "pct"),
    **dict.fromkeys(("bps", "bit/s", "bits/s"), "bit_per_s"),
    **dict.fromkeys(("kbps", "kbit/s", "kbits/s"), "kbit_per_s"),
    **dict.fromkeys(("mbps", "mbit/s", "mbits/s"), "mbit_per_s"),
}
_SIZE_UNITS = ("b", "bytes", "kb", "kib", "mb", "mib")
_BYTES = {"bytes": 1, "kib": 2**10, "mib": 2**20}
SECONDS = ("s", "ms", "us")
# What `--set` may say beside the names of columns: of all latencies without a unit, of all rates without a link.
UNIT, LINK = "unit", "link"
_IN_BRACKETS = re.compile(r"[(\[]\s*(?:in\s+)?([^()\[\]]*?)\s*[)\]]")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WITH_UNIT = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?) ?([a-zµμ]+)", re.I)
_NOTHING = frozenset({"", "-", "–", "—", "na", "n/a", "nan", "null", "none"})
# Rows that say something of those above them have such a word in one of their cells.
SUMMARIES = frozenset(
    ("average", "avg", "count", "max", "mean", "median", "min", "std", "stdev", "sum", "total", "var")
)
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_NAMED = ("subject", "operator", "placement")
_EXAMPLES = {
    "subject": "resnet",
    "operator": "identity",
    "placement": "mobile-edge",
    "metric": "top1",
    "repetition": "0",
}
_NEAR = 0.75
# A file's name and so many folders above it less one may say names.
_FOLDERS = 4
# The placements that latencies have by subject and operator, both `folded`: those of accuracies and sizes without one.
Placements = Callable[[], Mapping[tuple[str, str], Sequence[str]]]


@dataclass(frozen=True)
class RowOptions:
    """What the user says of rows: `columns` by the file's name of each, `constants` by the name here.

    `ignored` are columns that mean nothing; `inputs` is how many rows of a strategy are one repetition where no column
    says which input a row is of.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    inputs: int | None = None
    # The columns of the user that some file of the command has.
    used: set[str] = field(default_factory=set, compare=False)

    def __bool__(self) -> bool:
        return bool(self.columns or self.constants or self.ignored or self.inputs)


NO_OPTIONS = RowOptions()


@dataclass(frozen=True)
class Table:
    """A file's header and its first row, its name, and whether its numbers may have a decimal comma.

    `run` is what the name says of the run, by the word for it, where the file is one of several of a table.
    """

    header: Sequence[str]
    first: Sequence[str]
    file: str
    commas: bool = False
    run: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Meaning:
    """What a column is: the name here with its unit's ending, or what its header says of the rows made of its cells.

    `of_bytes` is what a size is multiplied by.
    """

    column: str = ""
    label: Label | None = None
    ask: str = ""
    of_bytes: int = 0

    @property
    def read(self) -> Callable[[str], str]:
        """How its cells are read."""
        return partial(_bytes_in, self.of_bytes) if self.of_bytes else str.strip


class _Cell(NamedTuple):
    """Where a row has a text, and how it is read."""

    position: int
    read: Callable[[str], str] = str.strip


# What a column of the rows is made of: a cell, or a text that all rows have.
_Source = _Cell | str


class Layout:
    """How a row of a file becomes rows.

    `columns` are theirs, `written` says how the file calls each, `remarks` what was not in so many words in the file.
    """

    def __init__(
        self,
        kind: Kind,
        variants: Sequence[Mapping[str, "_Source"]],
        header: Sequence[str],
        options: RowOptions,
        placements: Mapping[tuple[str, str], Sequence[str]],
    ) -> None:
        self.kind = kind
        self.remarks: list[str] = []
        self._variants = variants
        self._options = options
        self._placements = placements
        named = list(dict.fromkeys(name for variant in variants for name in variant))
        derived = ("input_id", "repetition") if kind == "latencies" else ("placement",)
        self._derived = [name for name in derived if name not in named]
        self.columns = [*named, *self._derived]
        self.written = {
            name: header[source.position]
            for name, source in variants[0].items()
            if isinstance(source, _Cell) and len(variants) == 1
        }
        # What tells rows apart whose order says the input or the repetition.
        plain = {name: _plain(name) for name in self.columns}
        names = (*_NAMED, "environment", "round", "input_id", "repetition")
        self._told_apart = {name for name in plain if plain[name] in names or LINK_COLUMN.match(plain[name])}
        self._summaries: Counter[str] = Counter()
        # How many rows there were before, of those that the order tells apart.
        self._counts: Counter[tuple[str, ...]] = Counter()

    def spread(self, cells: Sequence[str]) -> Iterator[list[str]]:
        """Yield the rows that a row of the file says."""
        summary = next((cell for cell in cells if cell.lower() in SUMMARIES), None)
        if summary is not None:
            self._summaries[summary] += 1
            return
        for variant in self._variants:
            texts = {
                name: source if isinstance(source, str) else source.read(cells[source.position])
                for name, source in variant.items()
            }
            # A cell of a wide table is empty where nothing was measured.
            if len(self._variants) > 1 and next(reversed(texts.values())).lower() in _NOTHING:
                continue
            yield from self._completed([texts.get(name, "") for name in self.columns])

    def _completed(self, row: list[str]) -> Iterator[list[str]]:
        if not self._derived:
            yield row
        elif self.kind != "latencies":
            subject, operator = (row[self.columns.index(name)] for name in ("subject", "operator"))
            for placement in self._placements.get((folded(subject), folded(spelled_operator(operator))), ("",)):
                yield [*row[:-1], placement]
        else:
            yield [*row[: -len(self._derived)], *self._by_order(row)]

    def _by_order(self, row: Sequence[str]) -> Iterator[str]:
        """Yield the input, the repetition or both, as the order of the rows says them."""
        key = tuple(text for name, text in zip(self.columns, row, strict=False) if name in self._told_apart)
        before = self._counts[key]
        self._counts[key] += 1
        if len(self._derived) == 2:
            inputs = self._options.inputs or 1
            yield from (str(before % inputs + 1), str(before // inputs))
        else:
            yield str(before + 1 if self._derived == ["input_id"] else before)

    def end(self) -> Iterator[str]:
        """Yield what all rows together show to be wrong; complete the remarks."""
        if self._summaries:
            words = ", ".join(sorted(self._summaries))
            self.remarks.append(f"{counted(self._summaries.total(), 'row')} that sum up others ({words}) are left out")
        if self._derived == ["input_id"] and len(self._counts) > 1 and max(self._counts.values()) == 1:
            written = self.written.get("repetition", "repetition")
            text = shlex.quote(written)
            yield (
                f"each value of {written!r} has one row of a strategy, so that it numbers the inputs or all rows; "
                f"say --column input_id={text}, or how many rows are one repetition: --ignore {text} --inputs 100"
            )
        elif self._derived == ["input_id"]:
            self.remarks.append(
                "rows name no input: the first row of every strategy and repetition is taken as input 1"
            )
        elif len(self._derived) == 2:
            self.remarks.append(f"{self._options.inputs} rows of a strategy are one repetition, in their order")
        elif self.written.get("repetition", "repetition").lower() not in ("repetition", "repetitions"):
            written = self.written["repetition"]
            self.remarks.append(
                f"{written!r} counts repetitions within one round; if each began on freshly started tiers, import with "
                f"--column round={shlex.quote(written)}"
            )


class LatenciesFirst(ExchangeError):
    """A file of accuracies or sizes that name no placement: those are known once there are latencies."""


def needs_layout(header: Sequence[str], options: RowOptions, run: Mapping[str, str], named: str) -> bool:
    """Tell whether a header is not one that rows have here already, or the file's name adds to it."""
    if options or not set(map(run_column, run)) <= set(map(spelled_column, header)):
        return True
    if any(map(read_rate, _named_parts(named))) and not any(map(LINK_COLUMN.match, map(_plain, header))):
        return True
    return all(not _is_own_header(header, kind) for kind in REQUIRED)


def _named_parts(named: str) -> Sequence[str]:
    """Return what a file's path may say names by: its own without the suffix, then the folders above it."""
    return Path(named.removesuffix(".gz")).with_suffix("").parts[: -_FOLDERS - 1 : -1]


def run_column(word: str) -> str:
    """Return the column that a word for a run means: only a round is said to have begun on freshly started tiers."""
    return "round" if word == "round" else "repetition"


def _is_own_header(header: Sequence[str], kind: Kind) -> bool:
    names = [_own_column(name, kind) for name in header]
    return None not in names and set(REQUIRED[kind]) <= {_plain(name) for name in names if name}


def _own_column(name: str, kind: Kind) -> str | None:
    """Return the name of a column as rows have it here, with the ending of its unit; None for another one."""
    column = spelled_column(name)
    return column if is_column(_plain(column), kind) or is_column(column, kind) else None


def _plain(column: str) -> str:
    """Return a column's name in the unit that is used here."""
    other = column_unit(column)
    return other[0] if other else column


def lay_out(table: Table, options: RowOptions, placements: Placements, *, file: str) -> Layout:
    """Find out what a file's columns mean.

    Raises
    ------
    ExchangeError
        Where a column means nothing that is known here, or where a name, an input or a unit is said by nothing.
    """
    builder = _LayoutBuilder(table, options, placements)
    layout = builder.layout()
    if builder.problems and builder.lacks_placements:
        raise LatenciesFirst(file, builder.problems)
    if builder.problems:
        raise ExchangeError(file, builder.problems)
    return layout


def _meaning(name: str) -> _Meaning:
    """Return what a header says its column is."""
    for kind in REQUIRED:
        if own := _own_column(name, kind):
            return _Meaning(own)
    text, unit = _without_unit(name)
    quantity = _quantity(text)
    if _ROW_NUMBERS.fullmatch(quantity):
        return _Meaning()
    base = _NAMES.get(quantity) or _NAMES.get(_quantity(_CAMEL.sub("_", text)), quantity)
    if base in ("latency", "size", "input_size", "value", "strategy"):
        return _measured(base, unit)
    if any(base in (*REQUIRED[kind], *OPTIONAL[kind]) for kind in REQUIRED):
        return _Meaning(base)
    return _of_tiers(name, text, unit)


def _measured(base: str, unit: str) -> _Meaning:
    if base == "latency":
        return _Meaning(f"latency_{unit}" if unit in SECONDS else "latency")
    if base in ("size", "input_size"):
        column = "size_bytes" if base == "size" else "input_bytes"
        factor = _BYTES.get(unit, 0)
        ask = "" if factor else f"say its unit, with --column {base}_mib=… (of 1048576 bytes) or {base}_bytes=…"
        return _Meaning(column, ask=ask, of_bytes=factor)
    return _Meaning("value_pct" if base == "value" else "strategy")


def _of_tiers(name: str, text: str, unit: str) -> _Meaning:
    """Return what a header says that names tiers, operators, metrics, runs or a rate: a column of a wide table."""
    rate = read_rate(name)
    label = read_label(text if rate is None else rate.rest)
    if rate is not None:
        names = {name: value for name, value in label.names.items() if name != "placement"}
        link = {LINK: label.names["placement"]} if "placement" in label.names else {}
        names |= {**link, "rate": rate.bit_per_s}
        return _Meaning(unit if unit in SECONDS else "", Label(names))
    if unit.endswith("bit_per_s"):
        link_of = label.names.get("placement", "")
        return _Meaning(f"{link_of}_{unit}" if "-" in link_of else f"_{unit}")
    if label.names:
        return _Meaning(unit, label)
    return _Meaning(ask="unknown")


def is_measured(name: str) -> bool:
    """Tell whether a name is that of a latency or a percentage."""
    return _meaning(name).column.startswith(("latency", "value_pct"))


def _without_unit(name: str) -> tuple[str, str]:
    """Split the unit off a header: `Latency (ms)`, `latency in seconds`, `mobile_edge_mbps`, `Top-1%`."""
    text, unit = name.strip(), ""
    if (brackets := _IN_BRACKETS.search(text)) is not None:
        if brackets[1].lower() in _UNITS:
            unit = brackets[1].lower()
            text = text.replace(brackets[0], " ").strip()
    elif text.endswith("%"):
        text, unit = text[:-1], "%"
    else:
        words = re.split(r"[\s_,]+", _CAMEL.sub("_", text))
        if len(words) > 1 and words[-1].lower() in _UNITS:
            unit = words[-1].lower()
            text = re.sub(r"[\s_,]+(in)?[\s_]*$", "", text[: len(text) - len(words[-1])])
    return text, unit if unit in _SIZE_UNITS[2:] else _UNITS.get(unit, "")


def _quantity(text: str) -> str:
    return re.sub(r"[\s_:.,()\[\]/-]+", "_", text.lower()).strip("_")


class _LayoutBuilder:
    """Finds the source of each column of the rows: a column of the file, its name, or the user's word."""

    def __init__(self, table: Table, options: RowOptions, placements: Placements) -> None:
        self._table = table
        self._options = options
        self._placements = placements
        # Looked up where they are needed: to read evidence takes a while.
        self._stored_placements: Mapping[tuple[str, str], Sequence[str]] = {}
        self.problems: list[str] = []
        self.lacks_placements = False
        self._remarks: list[str] = []
        # By the name here; of a wide table also by what the header of each column says.
        self._sources: dict[str, _Source] = {}
        self._wide: list[tuple[int, _Meaning]] = []
        self._unknown: list[int] = []

    def layout(self) -> Layout:
        """Return the layout; it is of no use where there are problems."""
        declared = [self._declared(name) for name in self._table.header]
        for position, name in enumerate(self._table.header):
            # What the user says comes before what a header seems to say.
            meaning = declared[position] or _meaning(name)
            said = meaning.column in {other.column for other in declared if other and other.column}
            self._assign(position, _Meaning(ask="unknown") if said and declared[position] is None else meaning)
        kind = self._kind()
        for name, text in self._options.constants.items():
            # Another file of the command may be of the other kind.
            if is_column(_plain(spelled_column(name)), kind):
                self._sources[spelled_column(name)] = text
        if self._says("latency") or self._says(REQUIRED[kind][-1]):
            # One column has all that was measured: others are no part of a wide table.
            self._unknown += [position for position, _ in self._wide]
            self._wide = []
        self._read_labels()
        self._read_file_name(kind)
        value = self._find_unit() if kind == "latencies" else REQUIRED[kind][-1]
        self._find_links()
        self._check_options(kind)
        self._check(kind)
        return self._layout(kind, value)

    def _check_options(self, kind: Kind) -> None:
        """Note what the user says of columns that are none."""
        for name in self._options.constants:
            plain = _plain(spelled_column(name))
            if name not in (UNIT, LINK) and not any(is_column(plain, either) for either in REQUIRED):
                self.problems.append(f"--set {name}=…: no column; {nearest(name, (*REQUIRED[kind], *OPTIONAL[kind]))}")
        for column, name in self._options.columns.items():
            meaning = _meaning(name)
            if meaning.ask or not meaning.column:
                allowed = nearest(name, (*REQUIRED[kind], *OPTIONAL[kind]))
                self.problems.append(f"--column {name}={column}: no column; {allowed}")
            # Another file of the command may have the column, and this one what it is under its own name.
            plain = _plain(meaning.column)
            if column in self._table.header or column in self._table.run:
                self._options.used.add(column)
            elif plain in REQUIRED[kind] and not self._says(plain):
                self.problems.append(f"--column {name}={column}: the file has {', '.join(self._table.header)}")

    def _declared(self, name: str) -> _Meaning | None:
        if name in self._options.ignored:
            return _Meaning()
        here = self._options.columns.get(name)
        return None if here is None else _meaning(here)

    def _assign(self, position: int, meaning: _Meaning) -> None:
        name = self._table.header[position]
        if meaning.label is not None:
            self._wide.append((position, meaning))
        elif meaning.ask == "unknown":
            self._unknown.append(position)
        elif meaning.ask:
            self.problems.append(f"column {name!r}: {meaning.ask.replace('…', shlex.quote(name))}")
        elif meaning.column:
            self._assign_column(position, meaning)

    def _assign_column(self, position: int, meaning: _Meaning) -> None:
        cell, former = _Cell(position, meaning.read), self._sources.get(meaning.column)
        if not isinstance(former, _Cell):
            self._sources[meaning.column] = cell
            return
        names = [self._table.header[at] for at in (former.position, position)]
        exact = [spelled_column(name) == meaning.column for name in names]
        if all(exact):
            self.problems.append(
                f"column {meaning.column!r} is there 2 times, as {names[0]!r} and {names[1]!r}; keep one"
            )
            return
        if not any(exact):
            ignore = " or ".join(f"--ignore {shlex.quote(name)}" for name in names)
            self.problems.append(f"{names[0]!r} and {names[1]!r} both mean {meaning.column!r}; leave one out: {ignore}")
            return
        self._sources[meaning.column] = former if exact[0] else cell
        self._unknown.append(position if exact[0] else former.position)

    def _kind(self) -> Kind:
        if any(name.startswith("latency") for name in self._sources):
            return "latencies"
        said = {*self._sources, *self._options.constants, *_names_of(self._wide)}
        if said & {"metric", "value_pct"}:
            return "accuracies"
        # What names an input without a latency that is known by its name is no table of sizes.
        return "sizes" if "size_bytes" in said and not said & {"input_id", "repetition"} else "latencies"

    def _first(self, position: int) -> str:
        return self._table.first[position].strip() if position < len(self._table.first) else ""

    def _says(self, name: str) -> bool:
        """Tell whether something says a column of the rows, in whatever unit."""
        return any(_plain(source) == name for source in self._sources) or name in _names_of(self._wide)

    def _read_labels(self) -> None:
        """Read the cells that name an operator and tiers at once, and tiers that are called an environment."""
        for column in ("strategy", "operator", "environment"):
            cell = self._sources.get(column)
            if not isinstance(cell, _Cell) or (column != "strategy" and self._says("placement")):
                continue
            label = read_label(self._first(cell.position))
            names = {*label.names, *(("subject",) if label.rest else ())}
            if column != "strategy" and "placement" not in names:
                continue
            del self._sources[column]
            for name in names:
                if name == column or not self._says(name):
                    self._sources[name] = _Cell(cell.position, partial(_in_label, name))

    def _read_file_name(self, kind: Kind) -> None:
        """Take names and rates that no column says from the path, `10mbit/resnet/identity_cloud.csv`."""
        missing = [name for name in _NAMED if not self._says(name)]
        names: dict[str, str] = {}
        rates: list[tuple[Rate, str]] = []
        complete = not missing
        for place, part in enumerate(_named_parts(self._table.file)):
            label, rate = _label_of_part(part)
            if rate is not None and rate.written not in self._options.ignored:
                rates.append((rate, link := _link_of(label)))
                # The link of the rate, unless nothing else says the tiers.
                label = Label() if link else label
            # Above a file that says its subject, a folder of a tier says no more than that.
            complete |= "subject" in names and bool(label.rest)
            if complete:
                continue
            names = {**label.names, **names}
            # A file may be all that there is of a subject; a folder is of one whose strategies the names below say.
            if label.rest and (names or (missing == ["subject"] and place == 0)):
                names.setdefault("subject", label.rest)
            complete = set(missing) <= set(names)
        if "placement" in missing and "placement" not in names and any(link for _, link in rates):
            names["placement"] = next(link for _, link in rates if link)
            rates = [(rate, "") for rate, _ in rates]
        if kind == "latencies":
            self._read_rates(rates)
        names |= {self._options.columns.get(word, run_column(word)): text for word, text in self._table.run.items()}
        of_runs = ("repetition", "round")
        read = {name: names[name] for name in (*missing, *of_runs) if name in names and not self._says(name)}
        words = [word for word in self._table.run if "repetition" in read and word not in self._options.columns]
        if words and run_column(words[0]) == "repetition":
            self._remarks.append(
                f"{words[0]!r} in the files' names counts repetitions within one round; if each began on freshly "
                f"started tiers, import with --column round={words[0]}"
            )
        self._sources |= read
        said = ", ".join(f"{name} {text}" for name, text in read.items() if not (self._table.run and name in of_runs))
        if said:
            self._remarks.append(f"by the file's name: {said}")

    def _read_rates(self, rates: Sequence[tuple[Rate, str]]) -> None:
        """Take the rates of links that the path says, where no column says any."""
        columns = any(name.endswith("_bit_per_s") for name in self._sources)
        if columns or any("rate" in _names_in(meaning) for _, meaning in self._wide):
            return
        for rate, link in rates:
            link = link or self._options.constants.get(LINK, "")
            stated = self._sources.setdefault(f"{link}_bit_per_s", rate.bit_per_s)
            leave_out = f"or leave it out: --ignore {shlex.quote(rate.written)}"
            if not link:
                advice = f"say it: --set {LINK}=edge-cloud, {leave_out}"
                self.problems.append(
                    f"nothing says of which link the rate {rate.written!r} in the file's path is; {advice}"
                )
                del self._sources["_bit_per_s"]
            elif stated != rate.bit_per_s:
                self.problems.append(f"{rate.written!r} in the file's path is a second rate of {link}; {leave_out[3:]}")
            else:
                self._remarks.append(f"by the file's path: {link} at {rate.written}")

    def _find_unit(self) -> str:
        """Find the unit of latencies, by header, first cell or the user's word; return the name of their column."""
        latency = self._sources.pop("latency", None)
        at = latency.position if isinstance(latency, _Cell) else self._wide[0][0] if self._wide else None
        if at is None:
            return "latency_s"
        of_headers = {meaning.column for _, meaning in self._wide} or {""}
        of_cell = _WITH_UNIT.fullmatch(self._first(at))
        cells = _UNITS.get(of_cell[2].lower(), "") if of_cell else ""
        unit = min(of_headers) or self._options.constants.get(UNIT) or cells
        if unit not in SECONDS or len(of_headers) > 1:
            name, stated = self._table.header[at], self._options.constants.get(UNIT)
            wrong = stated is not None and stated not in SECONDS
            problem = f"--set {UNIT}={stated} is no unit" if wrong else "nothing says the unit"
            self.problems.append(f"{problem} of {name!r}; say it: --set {UNIT}=s (or ms, us)")
            unit = "s"
        if latency is not None:
            self._sources[f"latency_{unit}"] = _Cell(at, partial(_number_in, cells))
        return f"latency_{unit}"

    def _find_links(self) -> None:
        """Name the link of rates whose header names none."""
        link = self._options.constants.get(LINK)
        nameless = [name for name in self._sources if name.startswith("_")]
        if link is None and (nameless or ("rate" in _names_of(self._wide) and LINK not in _names_of(self._wide))):
            self.problems.append(f"nothing says of which link the rates are; say it: --set {LINK}=edge-cloud")
        for name in nameless:
            # Where the user did not say it, any link will do: nothing is read then.
            self._sources[f"{link or 'mobile-edge'}{name}"] = self._sources.pop(name)

    def _check(self, kind: Kind) -> None:
        """Note what is unknown, and what nothing says."""
        cells = {name: source.position for name, source in self._sources.items() if isinstance(source, _Cell)}
        unknown = {*self._unknown, *(at for name, at in cells.items() if not is_column(_plain(name), kind))}
        self.problems += [
            unknown_column(self._table.header[at], kind, briefly=place > 0) for place, at in enumerate(sorted(unknown))
        ]
        missing = [name for name in REQUIRED[kind] if not self._says(name)]
        if self._wide:
            missing.remove(REQUIRED[kind][-1])
        if kind != "latencies" and "placement" in missing and (placements := self._placements()):
            self._stored_placements = placements
            missing.remove("placement")
        self.lacks_placements = kind != "latencies" and "placement" in missing
        if kind == "latencies" and (len({"input_id", "repetition"} & set(missing)) < 2 or self._options.inputs):
            # The order of the rows says the other one.
            missing = [name for name in missing if name not in ("input_id", "repetition")]
        if missing:
            columns = f"missing column{'s' * (len(missing) > 1)} {', '.join(missing)}"
            self.problems.append(f"{columns}; {kind} need {', '.join(REQUIRED[kind])}")
            # How many rows are a repetition says both.
            said = [name for name in missing if name != "repetition" or "input_id" not in missing]
            self.problems += [_how_to_say(name, kind) for name in said]

    def _layout(self, kind: Kind, value: str) -> Layout:
        """Return how rows are made: of each column of a wide table one, else one."""
        variants = []
        for position, meaning in self._wide or [(-1, _Meaning())]:
            names = _names_in(meaning)
            if rate := names.pop("rate", None):
                names[f"{names.pop(LINK, None) or self._options.constants.get(LINK)}_bit_per_s"] = rate
            wide = {value: _Cell(position, partial(_number_in, meaning.column))} if position >= 0 else {}
            variants.append({**self._sources, **names, **wide})
        if self._table.commas:
            variants = [_with_points(variant) for variant in variants]
        layout = Layout(kind, variants, self._table.header, self._options, self._stored_placements)
        layout.remarks += self._remarks
        return layout


def _label_of_part(part: str) -> tuple[Label, Rate | None]:
    """Return what a file's name or a folder above it says, and the rate in it."""
    rate = read_rate(part)
    return read_label(part if rate is None else rate.rest), rate


def _link_of(label: Label) -> str:
    """Return the link that a label names beside a rate, if it says nothing else."""
    tiers = label.names.get("placement", "")
    return tiers if tiers.count("-") == 1 and len(label.names) == 1 and not label.rest else ""


def _names_in(meaning: _Meaning) -> dict[str, str]:
    """Return what the header of a column of a wide table says."""
    label = meaning.label or Label()
    return {**label.names, **({"subject": label.rest} if label.rest else {})}


def _names_of(wide: Sequence[tuple[int, _Meaning]]) -> set[str]:
    """Return the names that all headers of a wide table say."""
    names = [set(_names_in(meaning)) for _, meaning in wide]
    return set.intersection(*names) if names else set()


def _in_label(name: str, cell: str) -> str:
    label = read_label(cell)
    return label.rest if name == "subject" else label.names.get(name, "")


def _number_in(unit: str, cell: str) -> str:
    """Return a cell without the unit that its column has."""
    stated = _WITH_UNIT.fullmatch(cell.strip())
    return stated[1] if stated and unit and _UNITS.get(stated[2].lower()) == unit else cell


def _with_points(variant: Mapping[str, _Source]) -> dict[str, _Source]:
    """Return the sources of a row whose numbers may have a decimal comma."""
    texts = {*_NAMED, "input_id", "environment", "passes", "measured_at"}
    return {
        name: source
        if isinstance(source, str) or name in texts
        else source._replace(read=partial(_with_point, source.read))
        for name, source in variant.items()
    }


def _with_point(read: Callable[[str], str], cell: str) -> str:
    """Return a number with a decimal comma as one with a point; files with other separators have the comma."""
    text = cell.strip()
    return read(text.replace(",", ".") if _DECIMAL_COMMA.match(text) and text.count(",") == 1 else text)


def _bytes_in(factor: int, cell: str) -> str:
    stated = _WITH_UNIT.fullmatch(cell)
    try:
        return str(round(float(stated[1] if stated and stated[2].lower() in _SIZE_UNITS else cell) * factor))
    except (ValueError, OverflowError):
        return cell


def unknown_column(name: str, kind: Kind, *, briefly: bool = False) -> str:
    """Say that a column means nothing that is known here, what is allowed unless that was said, and what helps."""
    links = "; or a link such as mobile-edge_bit_per_s" if kind == "latencies" else ""
    # A file of others has columns that mean nothing here, such as `comment`, which is no misspelt `placement`.
    allowed = nearest(name, (*REQUIRED[kind], *OPTIONAL[kind]), cutoff=_NEAR)
    text = shlex.quote(name)
    near = get_close_matches(_quantity(name), (*_NAMES, *REQUIRED[kind]), n=1, cutoff=_NEAR)
    here = _NAMES.get(near[0], near[0]) if near else "NAME"
    said = f"say what it is with --column {here}={text}, or leave it out with --ignore {text}"
    return f"unknown column {name!r}; {said}" if briefly else f"unknown column {name!r}; {allowed}{links}; {said}"


def _how_to_say(name: str, kind: Kind) -> str:
    if name == "placement" and kind != "latencies":
        return (
            f"placement: say its column, --column placement=COLUMN; without one, {kind} are those of every "
            "placement with latencies: import both at once, or name the environment of the latencies with --environment"
        )
    if name == "input_id":
        return (
            "input_id: which input a row is of; say its column, --column input_id=COLUMN, or how many rows of a "
            "strategy, in their order, are one repetition: --inputs 100"
        )
    if name in ("latency_s", "value_pct"):
        column = "latency_ms" if name == "latency_s" else name
        return f"{name}: what was measured; say its column, --column {column}=COLUMN"
    return f"{name}: say its column, --column {name}=COLUMN, or the same for all rows, --set {name}={_EXAMPLES[name]}"
