"""Many measurements and accuracies at once, in the caller's transaction: what the import of a file stores.

A fill stores a round at a time (`writing.py`) and asks the database for every number; here numbers are reserved before
the rows are written, and rows of plain values go to the driver as they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import repeat
from typing import Any

from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from catalog.errors import DuplicateEvidenceError
from catalog.evidence.queries import ACCURACY_COUNTS, MEASUREMENT_COUNTS
from catalog.evidence.records import ClassPixels, ItemHits, LinkBytes, PartTimes, SampleBase
from catalog.evidence.tables import (
    Accuracy,
    AccuracyClassItem,
    AccuracyItem,
    EvidenceTable,
    LinkProbe,
    Measurement,
    Sample,
    SampleLink,
    SamplePart,
    TierRun,
    column,
    table_of,
)

# Parents before children, because references are checked row by row.
_ORDER: Sequence[type[EvidenceTable]] = (
    *(Measurement, TierRun, LinkProbe, Sample, SamplePart, SampleLink),
    *(Accuracy, AccuracyItem, AccuracyClassItem),
)
# Tables whose rows are tuples of plain values, in this order: the parent's number, then what the record declares.
_PLAIN: Mapping[type[EvidenceTable], tuple[str, ...]] = {
    Sample: ("id", "measurement_id", *(fact.name for fact in fields(SampleBase))),
    SamplePart: ("sample_id", *(fact.name for fact in fields(PartTimes))),
    SampleLink: ("sample_id", *(fact.name for fact in fields(LinkBytes))),
    AccuracyItem: ("accuracy_id", *(fact.name for fact in fields(ItemHits))),
    AccuracyClassItem: ("accuracy_id", *(fact.name for fact in fields(ClassPixels))),
}
# Rows that wait in memory: more of them save no time.
_ROWS_AT_ONCE = 20_000
_Columns = Sequence[Sequence[Any]]


@dataclass(frozen=True)
class SampleArrays:
    """The samples of a measurement as columns in the order of `SampleBase` after `seq`.

    `parts` and `links` have by name the positions of the samples and the columns of `PartTimes` and `LinkBytes`.
    """

    columns: _Columns
    parts: Mapping[str, tuple[Sequence[int], _Columns]]
    links: Mapping[str, tuple[Sequence[int], _Columns]]

    def __len__(self) -> int:
        return len(self.columns[0])


class BulkWriter:
    """What is stored within one transaction; `flush` writes what still waits."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._rows: dict[type[EvidenceTable], list[Any]] = {table: [] for table in _ORDER}
        self._waiting = 0
        self._last: dict[type[EvidenceTable], int] = {}
        counts = select(column(Measurement, "latency_key"), column(Measurement, "round"))
        self._rounds = {tuple(row) for row in session.execute(counts.where(text(MEASUREMENT_COUNTS)))}
        complete = select(column(Accuracy, "key")).where(text(ACCURACY_COUNTS))
        self._accuracies = set(session.execute(complete).scalars())

    def add_measurement(
        self,
        values: Mapping[str, Any],
        *,
        tier_runs: Iterable[object] = (),
        link_probes: Iterable[object] = (),
        samples: SampleArrays | None = None,
    ) -> None:
        """Store one strategy in one round with everything below it.

        Raises
        ------
        DuplicateEvidenceError
            When evidence of this key and round that counts is stored already. Nothing is stored then.
        """
        if values["status"] == "complete" and values["verdict"] != "INVALID":
            name = values["latency_key"], values["round"]
            _refuse_duplicate(name, self._rounds, f"round {name[1]} of latency {name[0][:12]}…")
        number = self._reserve(Measurement, 1)[0]
        self._put(Measurement, [{**values, "id": number}])
        self._put(TierRun, [{**vars(row), "measurement_id": number} for row in tier_runs])
        self._put(LinkProbe, [{**vars(row), "measurement_id": number} for row in link_probes])
        if samples is not None:
            self._add_samples(number, samples)

    def add_accuracy(
        self, values: Mapping[str, Any], *, hits: Iterable[Sequence[Any]] = (), pixels: Iterable[Sequence[Any]] = ()
    ) -> None:
        """Store an accuracy with its items, in the order of `ItemHits` and `ClassPixels`; raises as above."""
        if values["status"] == "complete":
            _refuse_duplicate(values["key"], self._accuracies, f"accuracy {values['key'][:12]}…")
        number = self._reserve(Accuracy, 1)[0]
        self._put(Accuracy, [{**values, "id": number}])
        self._put(AccuracyItem, [(number, *row) for row in hits])
        self._put(AccuracyClassItem, [(number, *row) for row in pixels])

    def flush(self) -> None:
        """Write what waits."""
        try:
            for table in _ORDER:
                rows = self._rows[table]
                if rows and table in _PLAIN:
                    self._session.connection().exec_driver_sql(self._statement(table), rows)
                elif rows:
                    self._session.execute(insert(table_of(table)), rows)
                self._rows[table] = []
        except IntegrityError as error:
            raise DuplicateEvidenceError("another process has stored the same evidence meanwhile; try again") from error
        self._waiting = 0

    def _add_samples(self, measurement_id: int, samples: SampleArrays) -> None:
        numbers = self._reserve(Sample, len(samples))
        rows = zip(numbers, repeat(measurement_id), range(len(samples)), *samples.columns, strict=False)
        self._put(Sample, rows)
        for table, by_name in ((SamplePart, samples.parts), (SampleLink, samples.links)):
            for name, (positions, columns) in by_name.items():
                owners = (numbers[position] for position in positions)
                self._put(table, zip(owners, repeat(name), *columns, strict=False))

    def _put(self, table: type[EvidenceTable], rows: Iterable[Any]) -> None:
        waiting = self._rows[table]
        before = len(waiting)
        waiting.extend(rows)
        self._waiting += len(waiting) - before
        if self._waiting > _ROWS_AT_ONCE:
            self.flush()

    def _reserve(self, table: type[EvidenceTable], count: int) -> Sequence[int]:
        """Return numbers that no row has and no other process will give."""
        if self._session.connection().dialect.name != "sqlite":
            return self._sequence(table, count)
        if table not in self._last:
            # Nobody else writes before this transaction, which has written already, ends.
            self._last[table] = self._session.execute(select(func.max(column(table, "id")))).scalar_one() or 0
        first = self._last[table] + 1
        self._last[table] += count
        return range(first, first + count)

    def _sequence(self, table: type[EvidenceTable], count: int) -> Sequence[int]:
        """Take as many numbers from a server's sequence, which gives none of them twice."""
        name = table_of(table).name
        query = text(f"SELECT nextval(pg_get_serial_sequence('{name}', 'id')) FROM generate_series(1, :count)")
        return self._session.execute(query, {"count": count}).scalars().all()

    def _statement(self, table: type[EvidenceTable]) -> str:
        """Return an INSERT in the driver's own words: SQLAlchemy would look at every value of a million rows."""
        names = _PLAIN[table]
        place = "?" if self._session.connection().dialect.name == "sqlite" else "%s"
        return f"INSERT INTO {table_of(table).name} ({', '.join(names)}) VALUES ({', '.join([place] * len(names))})"


def _refuse_duplicate(name: Any, stored: set[Any], what: str) -> None:
    if name in stored:
        raise DuplicateEvidenceError(f"{what} is already known, complete and valid; it is not measured twice")
    stored.add(name)
