"""Rows from elsewhere by strategy: every cell is checked here, and every contradiction between rows is named."""

import math
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

from catalog.errors import ExchangeError
from catalog.evidence.allowed import is_moment, utc_text
from catalog.exchange.layouts import SUMMARIES
from catalog.exchange.rows import (
    ARTIFACT_COUNTS,
    NAME_RULE,
    ROUNDING,
    Batch,
    LinkRates,
    RoundRows,
    Row,
    Rows,
    StrategyName,
    StrategyRows,
    is_name,
)
from catalog.exchange.spellings import (
    LINK_COLUMN,
    METRICS,
    PART_NAMES,
    default_passes,
    name_near,
    part_column,
    sent_link,
    spelled_metric,
    spelled_operator,
    spelled_placement,
    spelled_tiers,
)
from catalog.statistics.families import KNOWN_PASSES
from catalog.units import counted

_PLACEMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*(-[A-Za-z0-9][A-Za-z0-9_.]*){0,7}")
# Nine digits fit a 32-bit column; `\d` would take the digits of other scripts, too.
_WHOLE = re.compile(r"[0-9]{1,9}")
# Bytes may be more: fifteen digits are exact in every format.
_BYTES = re.compile(r"[0-9]{1,15}")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_MAX_FIELD = 10_000
_MAX_NAME = 255
_LEAST_S, _MOST_S = 1e-9, 1e9
_WITH_UNIT = re.compile(r"[0-9][0-9.,]* ?[A-Za-z%][A-Za-z/%]*")


class _StatedSize(NamedTuple):
    """The bytes of an input, None where the cell is empty: as they are written, and in which row first."""

    text: str
    size: int | None
    number: int


@dataclass(frozen=True)
class _Group:
    """What rows with the same names have in common: their strategy, and what contradicts earlier rows."""

    name: StrategyName
    rows: StrategyRows
    links: LinkRates
    rounds: dict[int, RoundRows]
    sizes: dict[str, _StatedSize]
    conflicts: tuple[str, ...]


class RowCollector:
    """Goes through the rows once; collects what they say, and notes in their problems what is wrong with them."""

    def __init__(self, rows: Rows, environment: str) -> None:
        self._rows = rows
        self._environment = environment
        self._gathered: dict[StrategyName, StrategyRows] = defaultdict(StrategyRows)
        self._groups: dict[tuple[str, ...], _Group] = {}
        # By environment and subject, then by input.
        self._sizes: dict[tuple[str, str], dict[str, _StatedSize]] = defaultdict(dict)
        # What was given for one strategy or artifact, and must be the same in all its rows.
        self._first_values: dict[tuple[object, ...], tuple[Any, int]] = {}
        # Inputs and small numbers recur in every round: each is checked once.
        self._inputs: dict[str, str] = {}
        self._repetitions: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._item_counts: dict[str, int] = {}
        # By column and name here, what rows write.
        self._renamed: dict[tuple[str, str], str] = {}
        self._percent_signs = False
        self._summaries = 0
        self._width = 0
        self._at: dict[str, int] = {}

    def gather(self) -> dict[StrategyName, StrategyRows]:
        """Return all rows by strategy; the order of the rows has no meaning and leaves no trace."""
        takes = {"latencies": self._take_latency, "accuracies": self._take_accuracy, "sizes": self._take_artifact}
        take = takes[self._rows.kind]
        for batch in self._rows.batches:
            if not batch.cells:
                continue
            if len(batch.cells[0]) != self._width:
                self._lay_out()
            if self._rows.kind == "latencies" and self._take_plain_latencies(batch):
                continue
            for row in batch.rows():
                if len(row.cells) != self._width:
                    self._lay_out()
                take(row)
                if self._rows.too_many_problems:
                    break
            if self._rows.too_many_problems:
                break
        if not self._rows.problems:
            self._rows.problems += [*self._duplicates(), *_metric_problems(self._gathered), *self._size_problems()]
            self._read_shares()
        if self._summaries:
            self._rows.remarks.append(f"{counted(self._summaries, 'row')} that sum up others are left out")
        if self._rows.kind == "latencies":
            _choose_rates(self._gathered)
        named = _with_spelled_tiers(self._gathered)
        return {strategy: _sorted(named[strategy]) for strategy in sorted(named)}

    def _read_shares(self) -> None:
        """Read accuracies as shares of 1 where none is above: as percent they would all be near nothing."""
        values = [value for members in self._gathered.values() for value in members.metrics.values()]
        if self._percent_signs or len(values) < 2 or not 0 < max(values) <= 1:
            return
        written = self._rows.written.get("value_pct", "value_pct")
        if "pct" in written.lower() or "%" in written or "percent" in written.lower():
            most = f"{written} is at most {max(values):g} in every row"
            self._rows.problems.append(f"{most}; expected percent, such as {100 * max(values):g}")
            return
        for members in self._gathered.values():
            members.metrics = {name: round(100 * value, 10) for name, value in members.metrics.items()}
        self._rows.remarks.append(f"accuracies of at most {max(values):g} are read as shares of 1")

    def _lay_out(self) -> None:
        """Look up where each column is; a row of JSON may have brought another one."""
        columns = self._rows.columns
        self._width = len(columns)
        self._at = {name: position for position, name in enumerate(columns)}
        self._units = {self._at[name]: unit for name, unit in self._rows.units.items()}
        self._links = [(match[1], at) for name, at in self._at.items() if (match := LINK_COLUMN.match(name))]
        self._sent = [(link, at) for name, at in self._at.items() if (link := sent_link(name)) is not None]
        self._parts = [(part, at) for name, at in self._at.items() if (part := part_column(name)) is not None]
        shared = ("subject", "operator", "placement", "environment", "passes", *ARTIFACT_COUNTS)
        positions = [at for name in shared if (at := self._at.get(name)) is not None]
        self._names_at = (*positions, *(at for _, at in self._links))
        self._names = itemgetter(*self._names_at)
        # Of accuracies, there are none: they are not looked at.
        self._at_input, self._at_repetition, self._at_latency = (
            self._at.get(name, -1) for name in ("input_id", "repetition", "latency_s")
        )
        self._at_round, self._at_size = self._at.get("round"), self._at.get("input_bytes")
        self._details = [
            at
            for name, at in self._at.items()
            if name == "measured_at" or sent_link(name) is not None or part_column(name)
        ]

    def _cell(self, row: Row, column: str) -> str:
        at = self._at.get(column)
        return "" if at is None else row.cells[at]

    def _take_plain_latencies(self, batch: Batch) -> bool:
        """Collect rows at once, column by column; False, and nothing is collected, where they need to be looked at.

        That is where a row may be wrong, and where there are columns that few files have.
        """
        cells = batch.cells
        if self._details or self._at_size is not None or set(map(len, cells)) != {self._width}:
            return False
        columns = list(zip(*cells, strict=True))
        latency_s = self._plain_seconds(columns[self._at_latency])
        repetitions = _plain_numbers(columns[self._at_repetition], self._repetitions, 0)
        texts = ("1",) * len(cells) if self._at_round is None else columns[self._at_round]
        rounds = _plain_numbers(texts if all(texts) else [text or "1" for text in texts], self._numbers, 1)
        inputs = columns[self._at_input]
        if latency_s is None or repetitions is None or rounds is None or not self._plain_inputs(inputs):
            return False
        starts = _starts([*(columns[at] for at in self._names_at), rounds])
        keys = [self._names(cells[start]) for start in starts]
        if not self._plain_groups([Row(batch.numbers[start], cells[start]) for start in starts], keys):
            return False
        for key, start, end in zip(keys, starts, [*starts[1:], len(cells)], strict=True):
            samples = self._groups[key].rounds[rounds[start]]
            samples.input_ids.extend(map(self._inputs.__getitem__, inputs[start:end]))
            samples.repetitions.extend(repetitions[start:end])
            samples.latency_s.extend(latency_s[start:end])
            samples.numbers.extend(batch.numbers[start:end])
        return True

    def _plain_seconds(self, texts: Sequence[str]) -> list[float] | None:
        """Return the latencies; None where one may be wrong, as `_number` would say of it."""
        together = "".join(texts)
        if not together.isascii() or "_" in together:
            return None
        try:
            values = list(map(float, texts))
        except ValueError:
            return None
        if unit := self._units.get(self._at_latency):
            values = [value * unit.factor / unit.divisor for value in values]
        # A sum is no number as soon as one of the values is none.
        if math.isnan(sum(values)) or not (min(values) >= _LEAST_S and max(values) <= _MOST_S):
            return None
        return values

    def _plain_inputs(self, texts: Sequence[str]) -> bool:
        """Tell whether all are names of inputs, and keep them among those that are checked."""
        new = set(texts) - self._inputs.keys()
        if any(not text or len(text) > 255 or not text.isprintable() or text.lower() in SUMMARIES for text in new):
            return False
        self._inputs.update((text, text) for text in new)
        return True

    def _plain_groups(self, batch: Sequence[Row], keys: Sequence[tuple[str, ...]]) -> bool:
        """Look up what rows with the same names have in common; False where something contradicts another row."""
        before = len(self._rows.problems)
        first = {key: row for key, row in zip(reversed(keys), reversed(batch), strict=True) if key not in self._groups}
        # In the order of the rows, of which the first one is named where a later one contradicts it.
        for row in sorted(first.values()):
            self._group(row)
        # Said again, with the row's number in its turn, when the rows are looked at one by one.
        del self._rows.problems[before:]
        groups = [self._groups.get(key) for key in set(keys)]
        return all(group is not None and not group.conflicts for group in groups)

    def _take_latency(self, row: Row) -> None:
        # A row in which something is wrong is reported and not collected.
        before = len(self._rows.problems)
        cells = row.cells
        if not any(cells) or cells[self._at_input].lower() in SUMMARIES:
            self._summaries += any(cells)
            return
        # What was checked before is looked up: but for the latencies, a million rows have few different cells.
        group = self._groups.get(self._names(cells)) or self._group(row)
        input_id = self._inputs.get(cells[self._at_input]) or self._input_id(row)
        repetition = self._repetitions.get(cells[self._at_repetition])
        if repetition is None:
            repetition = self._whole(row, "repetition", self._repetitions, minimum=0)
        number = 1
        if self._at_round is not None and cells[self._at_round]:
            number = self._numbers.get(cells[self._at_round]) or self._whole(row, "round", self._numbers, minimum=1)
        latency_s = self._number(row, self._at_latency, "seconds above 0", _LEAST_S, _MOST_S)
        if group is None or len(self._rows.problems) > before:
            return
        if self._at_size is not None:
            self._take_size(row, group, input_id)
        samples = group.rounds[number]
        if self._details:
            self._take_details(row, group, samples, latency_s)
        for conflict in group.conflicts:
            self._rows.problem(row, conflict)
        samples.input_ids.append(input_id)
        samples.repetitions.append(repetition)
        samples.latency_s.append(latency_s)
        samples.numbers.append(row.number)

    def _group(self, row: Row) -> _Group | None:
        """Return what the rows with these names have in common; None where something is wrong with a name."""
        key = self._names(row.cells)
        if key in self._groups:
            return self._groups[key]
        before = len(self._rows.problems)
        name = self._strategy(row)
        passes = self._passes(row)
        cut = "partition" in (default_passes(name.operator) if passes is None else passes)
        if cut and "-" not in name.placement and len(self._rows.problems) == before:
            self._problem(row, "placement", "two tiers joined by '-', such as mobile-edge: its operator cuts the model")
        stated = {column: self._bytes(row, column) for column in ARTIFACT_COUNTS}
        counts = {column: count for column, count in stated.items() if count is not None}
        links = {link: self._number(row, at, "bit/s above 0", 1, 1e15) for link, at in self._links if row.cells[at]}
        if len(self._rows.problems) > before:
            return None
        members = self._gathered[name]
        conflicts = [*self._artifact_conflicts(row, name, passes, counts)]
        rates = tuple(sorted(links.items()))
        rounds = members.settings.setdefault(rates, defaultdict(RoundRows))
        # Rates of the same links are settings to compare; other links are another way to go.
        if {link for link, _ in rates} != {link for link, _ in next(iter(members.settings))}:
            conflicts.append(f"other links than before for {name}; that is another environment")
        members.passes = passes if members.passes is None else members.passes
        members.counts = counts | members.counts
        sizes = self._sizes[name.environment, name.subject]
        group = _Group(name, members, rates, rounds, sizes, tuple(conflicts))
        self._groups[key] = group
        return group

    def _artifact_conflicts(
        self, row: Row, name: StrategyName, passes: tuple[str, ...] | None, counts: Mapping[str, int]
    ) -> Iterator[str]:
        """Yield what earlier rows say otherwise of the same artifact: an operator makes one of a subject's model."""
        artifact = (name.environment, name.subject, name.operator)
        named = f"{name.subject}/{name.operator} in {name.environment}"
        stated = {} if passes is None else {"passes": "+".join(passes)}
        for column, value in {**stated, **counts}.items():
            former, first = self._first_values.setdefault((column, *artifact), (value, row.number))
            if former != value:
                shown, before = value or "none", former or "none"
                yield f"{column} of {named} is {shown}, and {before} on {self._rows.at(first)}; keep one"

    def _passes(self, row: Row) -> tuple[str, ...] | None:
        """Return the passes that a row names, None where the cell is empty; only identity has none."""
        text, operator = self._cell(row, "passes"), self._operator(row)
        if not text:
            return None
        passes = () if text in ("none", "identity") else tuple(part.strip() for part in text.split("+"))
        unknown = [name for name in passes if name not in KNOWN_PASSES]
        if unknown or len(set(passes)) != len(passes):
            self._problem(row, "passes", f"some of {', '.join(KNOWN_PASSES)}, joined by '+', or none")
        elif (operator == "identity") != (not passes):
            allowed = "none for identity" if operator == "identity" else "at least one; only identity has none"
            self._problem(row, "passes", allowed)
        return passes

    def _input_id(self, row: Row) -> str:
        input_id = self._cell(row, "input_id")
        if not input_id or len(input_id) > 255 or not input_id.isprintable():
            self._problem(row, "input_id", "1 to 255 printable characters")
        else:
            self._inputs[input_id] = input_id
        return input_id

    def _take_size(self, row: Row, group: _Group, input_id: str) -> None:
        text = self._cell(row, "input_bytes")
        stated = group.sizes.get(input_id)
        if stated is None or stated.text != text:
            before = len(self._rows.problems)
            size = _StatedSize(text, self._bytes(row, "input_bytes"), row.number)
            if len(self._rows.problems) > before:
                return
            stated = group.sizes.setdefault(input_id, size)
            if stated.size != size.size:
                shown, former = ("empty" if value is None else value for value in (size.size, stated.size))
                where = self._rows.at(stated.number)
                self._rows.problem(row, f"input_bytes of {input_id} is {shown}, and {former} on {where}; keep one")
                return
        if stated.size is not None and input_id not in group.rows.sizes:
            group.rows.sizes[input_id] = stated.size

    def _take_details(self, row: Row, group: _Group, samples: RoundRows, latency_s: float) -> None:
        """Collect what optional columns say of a sample: when it was, what its tiers took, what its links moved."""
        moment = self._moment(row)
        if not samples.numbers:
            samples.measured_at = moment
        elif moment != samples.measured_at:
            shown, before = (text or "empty" for text in (moment, samples.measured_at))
            what = f"measured_at of this round of {group.name} is {shown}, and {before} before; keep one"
            self._rows.problem(row, what)
        parts = self._part_times(row, group)
        if sum(parts.values()) > latency_s * (1 + ROUNDING):
            took = f"the parts take {sum(parts.values()):g} s, longer than the latency of {latency_s:g} s"
            self._rows.problem(row, took)
        sent = self._sent_bytes(row, group)
        for columns, values, what in ((samples.parts, parts, "parts"), (samples.sent, sent, "bytes")):
            self._append(row, samples, columns, values, what)

    def _append(
        self, row: Row, samples: RoundRows, columns: dict[Any, list[Any]], values: Mapping[Any, Any], what: str
    ) -> None:
        count = len(samples.numbers)
        if count and columns.keys() != values.keys():
            self._rows.problem(
                row, f"other {what} are given than in the rows of this round before; give the same in all"
            )
            return
        for name, value in values.items():
            columns.setdefault(name, []).append(value)

    def _part_times(self, row: Row, group: _Group) -> dict[tuple[str, str], float]:
        tiers = group.name.placement.split("-")
        # Every tier that the links lead through does something, if only to hand on what it gets.
        route = {*tiers, *(tier for link, _ in group.links for tier in link.split("-"))}
        times: dict[tuple[str, str], float] = {}
        for (tier, duration), at in self._parts:
            if not row.cells[at]:
                continue
            column = self._rows.columns[at]
            if (tier and tier not in route) or (not tier and len(tiers) > 1):
                self._rows.problem(
                    row, f"{column} is of no tier of {group.name.placement}; name one, as in {tiers[0]}_{duration}"
                )
                continue
            seconds = self._number(row, at, "seconds from 0 on", 0, 1e9)
            if (tier or tiers[0], duration) in times:
                self._rows.problem(row, f"{column} is given twice, with and without the tier; keep one")
            times[tier or tiers[0], duration] = seconds
        # A tier of which anything is given did nothing in what is left out.
        for tier in {tier for tier, _ in times}:
            for duration in PART_NAMES:
                times.setdefault((tier, duration), 0.0)
        return times

    def _sent_bytes(self, row: Row, group: _Group) -> dict[str, int]:
        sent: dict[str, int] = {}
        for named, at in self._sent:
            if not row.cells[at]:
                continue
            link = named or self._only_link(group)
            if not link:
                self._rows.problem(
                    row, f"sent_bytes of {group.name} is of no single link; name it, as in edge-cloud_sent_bytes"
                )
                continue
            count = self._bytes(row, self._rows.columns[at], minimum=0)
            sent[link] = count or 0
        return sent

    def _only_link(self, group: _Group) -> str:
        """Return the link that a strategy uses: the one with a rate, or that between its two tiers."""
        links = group.links
        if len(links) == 1:
            return links[0][0]
        return group.name.placement if not links and group.name.placement.count("-") == 1 else ""

    def _moment(self, row: Row) -> str:
        text = self._cell(row, "measured_at")
        if not text:
            return ""
        moment = (
            f"{text}T00:00:00+00:00" if _DAY.fullmatch(text) else re.sub("[zZ]$", "+00:00", text).replace(" ", "T", 1)
        )
        try:
            if is_moment(moment) and datetime.fromisoformat(moment) <= datetime.now(UTC):
                return utc_text(datetime.fromisoformat(moment))
        except ValueError:
            pass
        self._problem(
            row, "measured_at", "a day or a moment in the past with its time zone, such as 2026-11-24T06:00:00Z"
        )
        return ""

    def _take_accuracy(self, row: Row) -> None:
        before = len(self._rows.problems)
        group = self._group(row)
        metric = spelled_metric(self._cell(row, "metric"))
        if metric not in METRICS:
            self._problem(row, "metric", "top1, top5, miou or agreement")
        at = self._at["value_pct"]
        # A percent sign says what the column is.
        plain = row.cells[at].removesuffix("%").rstrip()
        self._percent_signs |= plain != row.cells[at]
        stated = row._replace(cells=[*row.cells[:at], plain, *row.cells[at + 1 :]])
        value = self._number(stated, at, "a percentage from 0 to 100", 0, 100)
        items = self._whole(row, "items", self._item_counts, minimum=1) if self._cell(row, "items") else 0
        moment = self._moment(row)
        if group is None or len(self._rows.problems) > before:
            return
        strategy, members = group.name, group.rows
        for conflict in group.conflicts:
            self._rows.problem(row, conflict)
        _, first = self._first_values.setdefault((metric, strategy), (value, row.number))
        if first != row.number:
            self._rows.problem(row, f"{metric} of {strategy} is on {self._rows.at(first)} already; keep one")
        if members.metrics and members.items != items:
            shown, former = (count or "empty" for count in (items, members.items))
            self._rows.problem(row, f"items of {strategy} is {shown}, and {former} before; keep one")
        if members.metrics and members.measured_at != moment:
            shown, former = (text or "empty" for text in (moment, members.measured_at))
            self._rows.problem(row, f"measured_at of {strategy} is {shown}, and {former} before; keep one")
        members.metrics[metric], members.items, members.measured_at = value, items, moment

    def _take_artifact(self, row: Row) -> None:
        group = self._group(row)
        if not self._cell(row, "size_bytes"):
            self._problem(row, "size_bytes", "a whole number from 1 on")
        for conflict in () if group is None else group.conflicts:
            self._rows.problem(row, conflict)

    def _operator(self, row: Row) -> str:
        return spelled_operator(self._cell(row, "operator"))

    def _strategy(self, row: Row) -> StrategyName:
        operator = self._operator(row)
        names = {
            column: self._name(row, column, text)
            for column, text in (
                ("subject", self._cell(row, "subject")),
                ("operator", operator),
                ("environment", self._cell(row, "environment")),
            )
        }
        operator = names["operator"]
        placement = spelled_placement(self._cell(row, "placement"))
        if not _PLACEMENT.fullmatch(placement) or len(placement) > 255:
            self._problem(row, "placement", "a tier, or tiers joined by '-', such as mobile-edge")
        return StrategyName(names["environment"] or self._environment, names["subject"], operator, placement)

    def _name(self, row: Row, column: str, text: str) -> str:
        """Return a name; one with other characters, `ResNet 50`, as it may be written here, unless two become one."""
        if is_name(text) or (column == "environment" and not text):
            return text
        near = name_near(text)
        if not near or len(text) > _MAX_NAME:
            self._problem(row, column, NAME_RULE)
            return text
        former = self._renamed.setdefault((column, near), text)
        if former != text:
            self._rows.problem(row, f"{column} is {text!r} and {former!r} in other rows; both would be {near} here")
        elif f"{text!r} is called {near} here" not in self._rows.remarks:
            self._rows.remarks.append(f"{text!r} is called {near} here")
        return near

    def _whole(self, row: Row, column: str, checked: dict[str, int], *, minimum: int) -> int:
        """Return a whole number, and keep it among those that are checked."""
        text = self._cell(row, column)
        if _WHOLE.fullmatch(text) and int(text) >= minimum:
            return checked.setdefault(text, int(text))
        self._problem(row, column, f"a whole number from {minimum} on")
        # Any allowed value will do: with a problem, nothing of the file is stored.
        return minimum

    def _bytes(self, row: Row, column: str, *, minimum: int = 1) -> int | None:
        text = self._cell(row, column)
        if not text:
            return None
        if _BYTES.fullmatch(text) and int(text) >= minimum:
            return int(text)
        self._problem(row, column, f"a whole number from {minimum} on")
        return minimum

    def _number(self, row: Row, at: int, allowed: str, least: float, most: float) -> float:
        text, unit = row.cells[at], self._units.get(at)
        # float() takes `1_000` and the digits of other scripts as well; NaN and infinity are in no range.
        if text.isascii() and "_" not in text:
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if unit is not None:
                value = value * unit.factor / unit.divisor
            if least <= value <= most:
                return value
        if unit is not None:
            allowed = allowed.replace(unit.instead_of, unit.words)
        self._problem(row, self._rows.columns[at], f"{allowed}, with a decimal point" if "," in text else allowed)
        return 1.0

    def _problem(self, row: Row, column: str, allowed: str) -> None:
        got = self._cell(row, column)
        if len(got) > _MAX_FIELD:
            self._rows.problem(row, f"{column} is {len(got)} characters long, {_MAX_FIELD} are allowed")
            return
        if _WITH_UNIT.fullmatch(got):
            allowed = f"{allowed}, without its unit"
        elif column == "latency_s" and not got:
            allowed = f"{allowed}, or no row where nothing was measured"
        shown = repr(got if len(got) <= 40 else f"{got[:37]}…")
        self._rows.problem(row, f"{self._rows.written.get(column, column)} is {shown}; expected {allowed}")

    def _duplicates(self) -> Iterator[str]:
        """Sort every round, and yield the rows that say again what another one says."""
        at, help_text = self._rows.at, ""
        if self._rows.files and "repetition" in self._rows.written:
            help_text = (
                "; if every file is a round on freshly started tiers, say --column round=run, if it is a repetition, "
                "--ignore " + shlex.quote(self._rows.written["repetition"])
            )
        for members in self._gathered.values():
            for samples in (samples for rounds in members.settings.values() for samples in rounds.values()):
                for first, second in samples.sort():
                    already = f"this input, repetition and round is on {at(first)} already; keep one{help_text}"
                    yield f"{at(second)}: {already}"

    def _size_problems(self) -> Iterator[str]:
        """Yield subjects of which some inputs have a size and others none: a pool takes those of all."""
        for (environment, subject), sizes in self._sizes.items():
            kinds: dict[bool, str] = {}
            for input_id, stated in sizes.items():
                kinds.setdefault(stated.size is None, f"{input_id} on {self._rows.at(stated.number)}")
            if len(kinds) == 2:
                with_size, without = kinds[False], kinds[True]
                contradiction = (
                    f"input_bytes of {subject} in {environment} is given for {with_size} and not for {without}"
                )
                yield f"{contradiction}; give it for every input, or leave the column out"


def _with_spelled_tiers(gathered: Mapping[StrategyName, StrategyRows]) -> Mapping[StrategyName, StrategyRows]:
    """Return the rows with the study's tiers as they are called here, where a file writes them in another case."""
    placed = {tier for name in gathered for tier in name.placement.split("-")}
    linked = {
        tier
        for members in gathered.values()
        for rates in (*members.settings, tuple((members.links or {}).items()))
        for link, _ in rates
        for tier in link.split("-")
    }
    # A column names its link as no placement does: then it is the link of those in lower case.
    spelled = {**spelled_tiers(linked - placed), **spelled_tiers(placed)}
    if not spelled:
        return gathered

    def here(tiers: str) -> str:
        return "-".join(spelled.get(tier, tier) for tier in tiers.split("-"))

    for members in gathered.values():
        members.links = members.links and {here(link): rate for link, rate in members.links.items()}
        members.settings = {
            tuple((here(link), rate) for link, rate in rates): rounds for rates, rounds in members.settings.items()
        }
        for rows in (rows for rounds in (members.rounds, *members.settings.values()) for rows in rounds.values()):
            rows.parts = {(here(tier), part): values for (tier, part), values in rows.parts.items()}
            rows.sent = {here(link): counts for link, counts in rows.sent.items()}
    return {replace(name, placement=here(name.placement)): members for name, members in gathered.items()}


def _starts(columns: Sequence[Sequence[object]]) -> list[int]:
    """Return where the rows have other values than the row before; most files have those of a round together."""
    size = len(columns[0])
    if all(column.count(column[0]) == size for column in columns):
        return [0]
    return [0, *(at for at, (former, row) in enumerate(pairwise(zip(*columns, strict=True)), 1) if former != row)]


def _plain_numbers(texts: Sequence[str], checked: dict[str, int], minimum: int) -> list[int] | None:
    """Return whole numbers, and keep them among those that are checked; None where one is wrong."""
    new = set(texts) - checked.keys()
    if any(not _WHOLE.fullmatch(text) or int(text) < minimum for text in new):
        return None
    checked.update((text, int(text)) for text in new)
    return list(map(checked.__getitem__, texts))


def _choose_rates(gathered: Mapping[StrategyName, StrategyRows]) -> None:
    """Move the samples at the rates that answers are about out of the settings.

    Strategies of a subject are compared at rates that most of them have; of as frequent ones, at the fastest.
    """
    frequent: dict[tuple[str, str], Counter[tuple[str, float]]] = defaultdict(Counter)
    for name, members in gathered.items():
        for rates in members.settings:
            frequent[name.environment, name.subject].update(rates)
    for name, members in gathered.items():
        counts = frequent[name.environment, name.subject]
        chosen = max(members.settings, key=lambda rates: [(counts[link], link[1]) for link in rates])
        members.links, members.rounds = dict(chosen), members.settings.pop(chosen)


def _sorted(members: StrategyRows) -> StrategyRows:
    """Sort by round, links and metrics by name; the samples of each round are sorted already."""
    members.rounds = dict(sorted(members.rounds.items()))
    members.settings = {rates: dict(sorted(rounds.items())) for rates, rounds in sorted(members.settings.items())}
    members.metrics = dict(sorted(members.metrics.items()))
    members.sizes = dict(sorted(members.sizes.items()))
    return members


def _metric_problems(gathered: Mapping[StrategyName, StrategyRows]) -> Iterator[str]:
    for strategy, members in gathered.items():
        primary = [name for name in members.metrics if name != "top5"]
        if members.metrics and len(primary) != 1:
            yield f"{strategy} has {' and '.join(members.metrics)}; expected one of top1 (with top5), miou, agreement"


def gather_rows(rows: Rows, environment: str, *, file: str) -> Mapping[StrategyName, StrategyRows]:
    """Check every row; raises ExchangeError with the place of each bad one."""
    gathered = RowCollector(rows, environment).gather()
    if rows.problems:
        raise ExchangeError(file, rows.problems)
    if not gathered:
        raise ExchangeError(file, ["has no rows"])
    return gathered
