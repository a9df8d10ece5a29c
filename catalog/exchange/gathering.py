"""Rows from elsewhere, checked one by one and gathered by strategy; every bad cell is told with its line."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from catalog.exchange.rows import LINK_COLUMN, Row, Rows
from catalog.keys import content_key

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_PLACEMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*(-[A-Za-z0-9][A-Za-z0-9_.]*){0,7}")
NAME_RULE = "letters, digits, '_', '.', '-', at most 63, a letter or digit first"
_WHOLE = re.compile(r"[0-9]{1,9}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


def is_name(text: str) -> bool:
    """Whether a subject, an operator or an environment may be called so."""
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True, order=True)
class Named:
    """A strategy in an environment, by the names that rows use."""

    environment: str
    subject: str
    operator: str
    placement: str

    def __str__(self) -> str:
        return f"{self.subject}/{self.operator}@{self.placement} in {self.environment}"


@dataclass
class Gathered:
    """Rows of one strategy: (input, repetition, seconds) by round, bit/s by link, percent by metric."""

    rounds: dict[int, list[tuple[str, int, float]]] = field(default_factory=lambda: defaultdict(list))
    links: dict[str, float] | None = None
    metrics: dict[str, float] = field(default_factory=dict)


class Gathering:
    """Goes through the rows once; collects what they say and, in `problems`, what is wrong with them."""

    def __init__(self, rows: Rows, environment: str) -> None:
        self.problems: list[str] = []
        self._rows = rows
        self._environment = environment
        self._links = [name for name in rows.columns if LINK_COLUMN.match(name)]
        self._gathered: dict[Named, Gathered] = defaultdict(Gathered)
        self._seen: dict[tuple[object, ...], str] = {}

    def gather(self) -> dict[Named, Gathered]:
        """Return all rows by strategy; the order of the rows has no meaning and leaves no trace."""
        take = self._take_latency if self._rows.kind == "latencies" else self._take_accuracy
        for row in self._rows.rows:
            before = len(self.problems)
            strategy = self._strategy(row)
            take(row, strategy, before)
        if not self.problems:
            self.problems += _metric_problems(self._gathered)
        return {strategy: _sorted(self._gathered[strategy]) for strategy in sorted(self._gathered)}

    def _take_latency(self, row: Row, strategy: Named, before: int) -> None:
        input_id = row.cells["input_id"]
        if not input_id or len(input_id) > 255 or not input_id.isprintable():
            self._problem(row, "input_id", "1 to 255 printable characters")
        repetition = self._whole(row, "repetition", minimum=0)
        number = self._whole(row, "round", minimum=1) if row.cells.get("round") else 1
        latency_s = self._number(row, "latency_s", "seconds above 0", lambda value: 1e-9 <= value <= 1e9)
        links = {
            name.removesuffix("_bit_per_s"): self._number(row, name, "bit/s above 0", lambda value: 1 <= value <= 1e15)
            for name in self._links
            if row.cells.get(name)
        }
        if len(self.problems) > before:
            return
        members = self._gathered[strategy]
        if members.links is None:
            members.links = links
        elif members.links != links:
            other = f"other link rates than before for {strategy}; that is another environment"
            self.problems.append(f"{row.place}: {other}")
        self._once(row, (strategy, number, input_id, repetition), "this input, repetition and round")
        members.rounds[number].append((input_id, repetition, latency_s))

    def _take_accuracy(self, row: Row, strategy: Named, before: int) -> None:
        metric = row.cells["metric"]
        if metric not in ("top1", "top5", "miou", "agreement"):
            self._problem(row, "metric", "top1, top5, miou or agreement")
        value = self._number(row, "value_pct", "a percentage from 0 to 100", lambda value: 0 <= value <= 100)
        if len(self.problems) > before:
            return
        self._once(row, (strategy, metric), f"{metric} of {strategy}")
        self._gathered[strategy].metrics[metric] = value

    def _strategy(self, row: Row) -> Named:
        for column in ("subject", "operator", "environment"):
            if (column != "environment" or row.cells.get(column)) and not is_name(row.cells[column]):
                self._problem(row, column, NAME_RULE)
        if not _PLACEMENT.fullmatch(row.cells["placement"]) or len(row.cells["placement"]) > 255:
            self._problem(row, "placement", "a tier, or tiers joined by '-', such as mobile-edge")
        where = row.cells.get("environment") or self._environment
        return Named(where, row.cells["subject"], row.cells["operator"], row.cells["placement"])

    def _whole(self, row: Row, column: str, *, minimum: int) -> int:
        text = row.cells[column]
        if _WHOLE.fullmatch(text) and int(text) >= minimum:
            return int(text)
        self._problem(row, column, f"a whole number from {minimum} on")
        return minimum

    def _number(self, row: Row, column: str, allowed: str, within: Callable[[float], bool]) -> float:
        text = row.cells[column]
        if _NUMBER.fullmatch(text) and within(value := float(text)):
            return value
        self._problem(row, column, f"{allowed}, with a decimal point" if "," in text else allowed)
        return 1.0

    def _once(self, row: Row, identity: tuple[object, ...], what: str) -> None:
        first = self._seen.setdefault(identity, row.place)
        if first != row.place:
            self.problems.append(f"{row.place}: {what} is on {first} already; keep one")

    def _problem(self, row: Row, column: str, allowed: str) -> None:
        got = row.cells[column]
        shown = repr(got if len(got) <= 40 else f"{got[:37]}…")
        self.problems.append(f"{row.place}: {column} is {shown}; expected {allowed}")


def _sorted(members: Gathered) -> Gathered:
    """By round, repetition and input, links and metrics by name."""
    return Gathered(
        {number: sorted(rows, key=lambda row: (row[1], row[0])) for number, rows in sorted(members.rounds.items())},
        None if members.links is None else dict(sorted(members.links.items())),
        dict(sorted(members.metrics.items())),
    )


def rows_digest(gathered: Mapping[Named, Gathered]) -> str:
    """Return the content key of rows: the same for the same rows in any order and spelling of their numbers."""
    rows = [
        {
            "strategy": vars(strategy),
            "links": members.links,
            "rounds": {str(number): rows for number, rows in members.rounds.items()},
            "metrics": members.metrics,
        }
        for strategy, members in gathered.items()
    ]
    return content_key({"kind": "rows", "rows": rows})


def _metric_problems(gathered: Mapping[Named, Gathered]) -> Iterator[str]:
    for strategy, members in gathered.items():
        primary = [name for name in members.metrics if name != "top5"]
        if members.metrics and len(primary) != 1:
            yield f"{strategy} has {' and '.join(members.metrics)}; expected one of top1 (with top5), miou, agreement"
