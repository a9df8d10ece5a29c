"""What makes a stored row unusable: every row is checked as a file's entries are (`allowed.py`)."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model, model_validator
from sqlalchemy import Connection, select, text

from catalog.evidence import allowed, records, tables
from catalog.evidence.changes import OWNERS, RowDigests
from catalog.units import counted
from migrations.views import VIEWS

# What an analysis wrote is declared in its tables alone, whose types say nothing of what is allowed.
_COLUMNS: Mapping[str, Any] = {
    "subject": allowed.Name,
    "placement": allowed.Name,
    "created_at": allowed.Moment,
    "rounds": allowed.Rounds,
}
_SPECIAL: Mapping[tuple[str, str], Any] = {
    # As a number: a catalog may write it as a text with a percent sign, a row may not.
    ("analysis", "equivalent_within"): allowed.Share,
    ("analysis_pair", "verdict"): Literal["equivalent", "different", "unresolved"],
    ("analysis_slo", "status"): Literal["proven", "likely", "open", "estimated", "infeasible", "unmeasured"],
    ("race_departure", "reason"): Literal["misses", "beaten"],
    ("race_departure", "look"): allowed.Look,
    # No strategy answers a target that is infeasible.
    ("analysis_slo", "placement"): allowed.Name | None,
}
_ANALYSES = ("analysis_strategy", "analysis_family", "analysis_pair", "analysis_drop")
# Parents before children; each with the table that a column refers to.
PARENTS: Mapping[str, Mapping[str, str]] = {
    "imported_file": {},
    "environment": {"imported_file_id": "imported_file"},
    "artifact": {},
    "strategy": {"environment_id": "environment"},
    "input_pool": {},
    "pool_input": {"pool_id": "input_pool"},
    "measurement": {"environment_id": "environment", "imported_file_id": "imported_file"},
    "tier_run": {"measurement_id": "measurement"},
    "link_probe": {"measurement_id": "measurement"},
    "sample": {"measurement_id": "measurement"},
    "sample_part": {"sample_id": "sample"},
    "sample_link": {"sample_id": "sample"},
    "accuracy": {"environment_id": "environment", "imported_file_id": "imported_file"},
    "accuracy_item": {"accuracy_id": "accuracy"},
    "accuracy_class_item": {"accuracy_id": "accuracy"},
    "slo": {},
    "subject_slo": {},
    "analysis": {"environment_id": "environment"},
    **{name: {"analysis_id": "analysis"} for name in _ANALYSES},
    "analysis_slo": {"environment_id": "environment"},
    "race_departure": {"environment_id": "environment"},
}
_ROWS: Mapping[str, Any] = {
    str(mapped.__tablename__): mapped
    for mapped in vars(tables).values()
    if isinstance(mapped, type) and issubclass(mapped, tables.EvidenceTable) and mapped is not tables.EvidenceTable
}
# Tables of many small rows are checked by the database itself, in the bounds that their records declare.
_BULK: Mapping[str, type[Any]] = {
    "pool_input": records.PoolInputRecord,
    "sample": records.SampleBase,
    "sample_part": records.PartTimes,
    "sample_link": records.LinkBytes,
    "accuracy_item": records.ItemHits,
    "accuracy_class_item": records.ClassPixels,
}


@dataclass(frozen=True)
class _Bounds:
    """A column with its kind as JSON Schema calls it: the least and the most, of a text its length.

    `choices` are all values of a text that may have no others.
    """

    column: str
    kind: str
    least: float
    most: float
    choices: tuple[str, ...] = ()
    optional: bool = False


@cache
def _bounds(table: str) -> tuple[_Bounds, ...]:
    bounds = []
    for name, annotation in get_type_hints(_BULK[table], include_extras=True).items():
        whole = TypeAdapter(annotation).json_schema()
        # Of a value that may be missing, JSON Schema lists the kinds, the missing one last.
        optional, schema = "anyOf" in whole, whole.get("anyOf", [whole])[0]
        if "enum" in schema:
            bounds.append(_Bounds(name, "string", 0, 0, tuple(schema["enum"]), optional))
        elif schema["type"] == "string":
            least, most = schema.get("minLength", 1), schema["maxLength"]
            bounds.append(_Bounds(name, "string", least, most, optional=optional))
        else:
            least, most = schema.get("minimum", 0), schema.get("maximum", 1)
            bounds.append(_Bounds(name, schema["type"], least, most, optional=optional))
    return tuple(bounds)


Unsound = Mapping[str, Mapping[Any, str]]


@dataclass(frozen=True)
class _Dialect:
    """How a database says that a value is of a kind."""

    sqlite: bool

    def sound(self, table: str) -> str:
        """Return the condition that a row of a bulk table meets."""
        terms = [self._holds(bounds) for bounds in _bounds(table)]
        if table == "accuracy_class_item":
            terms.append("intersection_px <= union_px")
        return " AND ".join(terms)

    def quoted(self, value: Any) -> str:
        """Return the name of a row as a literal."""
        if isinstance(value, int):
            return str(value)
        if self.sqlite:
            return f"CAST(x'{str(value).encode(errors='surrogateescape').hex()}' AS TEXT)"
        return "'" + str(value).replace("'", "''") + "'"

    def _holds(self, bounds: _Bounds) -> str:
        within = self._within(bounds)
        return f"({bounds.column} IS NULL OR ({within}))" if bounds.optional else within

    def _within(self, bounds: _Bounds) -> str:
        column, least, most = bounds.column, bounds.least, bounds.most
        if bounds.choices:
            return f"{column} IN ({', '.join(map(self.quoted, bounds.choices))})"
        if bounds.kind == "string":
            # Only what is not plain ASCII is decoded: a call per row would take longer than the whole check.
            # CASE, because SQLite evaluates both sides of an OR inside a function's argument.
            plain = f"CASE WHEN {column} GLOB '*[^ -~]*' THEN is_utf8(CAST({column} AS BLOB)) ELSE TRUE END"
            typed = f"typeof({column}) = 'text' AND {plain} AND " if self.sqlite else ""
            return f"{typed}length({column}) BETWEEN {least} AND {most}"
        if bounds.kind == "boolean":
            return f"{column} IN (0, 1)" if self.sqlite else f"{column} IS NOT NULL"
        types = "'integer'" if bounds.kind == "integer" else "'integer', 'real'"
        typed = f"typeof({column}) IN ({types}) AND " if self.sqlite else ""
        return f"{typed}{column} BETWEEN {least!r} AND {most!r}"


def _dialect(connection: Connection) -> _Dialect:
    return _Dialect(connection.dialect.name == "sqlite")


def unsound_rows(connection: Connection) -> dict[str, dict[Any, str]]:
    """Return by table the unsound rows with the reason; what belongs to such a row goes with it, unnamed."""
    dialect = _dialect(connection)
    unsound: dict[str, dict[Any, str]] = defaultdict(dict)
    present: dict[str, set[Any]] = {}
    gone: dict[str, set[Any]] = {}
    for table, parents in PARENTS.items():
        if table in _BULK:
            unsound[table] |= _bulk(connection, dialect, table, next(iter(parents)))
            continue
        present[table], gone[table] = set(), set()
        for row in map(dict, connection.execute(select(_ROWS[table].__table__)).mappings()):
            name = row["name"] if table == "slo" else row["id"]
            owners = {parent: row[column] for column, parent in parents.items() if row[column] is not None}
            if any(owner in gone[parent] for parent, owner in owners.items()):
                gone[table].add(name)
                continue
            orphan = next((parent for parent, owner in owners.items() if owner not in present[parent]), None)
            reason = _reason(table, row) if orphan is None else f"its {orphan} {owners[orphan]} is not there"
            if reason is not None:
                unsound[table][name] = reason
            (present if reason is None else gone)[table].add(name)
        if table == "measurement":
            empty = _without_samples(connection, dialect) & present[table]
            unsound[table] |= dict.fromkeys(empty, "complete, and without a sample that can be used")
            present[table] -= empty
            gone[table] |= empty
    return unsound


# Of more new rows than this, all are checked: their names are part of each statement.
_MOST_NEW = 5000


def new_rows_are_sound(connection: Connection, digests: RowDigests, former: RowDigests) -> bool:
    """Tell whether the rows that are not those of a former check are sound, with all that is below them.

    Parameters
    ----------
    connection : Connection
    digests, former : dict of dict
        Of all rows that own others, now and when they were last checked (`changes.row_digests`).
    """
    new = {
        table: [row for row, digest in rows.items() if former.get(table, {}).get(row) != digest]
        for table, rows in digests.items()
    }
    if sum(map(len, new.values())) > _MOST_NEW:
        return False
    # A row whose parent went away belongs to nothing, though it is as it was.
    if any(former.get(table, {}).keys() - digests[table].keys() for table in ("environment", "imported_file")):
        return False
    return all(
        _are_sound(connection, table, parents, new, digests) for table, parents in PARENTS.items()
    ) and not _without_samples(connection, _dialect(connection), new["measurement"])


def _are_sound(
    connection: Connection,
    table: str,
    parents: Mapping[str, str],
    new: Mapping[str, Sequence[Any]],
    digests: RowDigests,
) -> bool:
    """Tell whether the new rows of a table are sound: its own, or those below new rows of its parent."""
    dialect = _dialect(connection)
    if table in OWNERS:
        condition = _one_of(dialect, OWNERS[table], new[table])
    else:
        column, parent = next(iter(parents.items()))
        # Of a sample, what is above it is its measurement.
        owner = "measurement" if parent == "sample" else parent
        condition = _one_of(dialect, "measurement_id" if parent == "sample" else column, new[owner])
        if parent == "sample":
            condition = f"{column} IN (SELECT id FROM sample WHERE {condition})"
        if table in _BULK:
            return not _bulk(connection, dialect, table, column, condition)
    rows = connection.execute(select(_ROWS[table].__table__).where(text(condition)))
    return all(_is_sound(table, dict(row), parents, digests) for row in rows.mappings())


def _is_sound(table: str, row: Mapping[str, Any], parents: Mapping[str, str], digests: RowDigests) -> bool:
    owners = [(parent, row[column]) for column, parent in parents.items() if row[column] is not None]
    return all(owner in digests[parent] for parent, owner in owners) and _reason(table, row) is None


def _one_of(dialect: _Dialect, column: str, rows: Sequence[Any]) -> str:
    return f"{column} IN ({', '.join(map(dialect.quoted, rows))})" if rows else "1 = 0"


def _reason(table: str, row: Mapping[str, Any]) -> str | None:
    """Return the first thing that is wrong with a row."""
    try:
        _checker(table).model_validate({f"v_{name}": value for name, value in row.items()})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])).removeprefix("v_")
        return f"{place}: {first['msg'].removeprefix('Value error, ')}"
    started_at, finished_at = row.get("started_at"), row.get("finished_at")
    if started_at and finished_at and datetime.fromisoformat(finished_at) < datetime.fromisoformat(started_at):
        return "finished_at: before it started"
    if table == "accuracy" and row["status"] == "complete":
        primary = "miou_pct" if row["metric_primary"] == "miou" else "top1_pct"
        return f"{primary}: is missing" if row[primary] is None else None
    return None


def _bulk(
    connection: Connection, dialect: _Dialect, table: str, parent: str, condition: str = "1 = 1"
) -> dict[Any, str]:
    """Count the unsound rows of a table of many small rows, by their parent."""
    unsound = f"NOT COALESCE({dialect.sound(table)}, FALSE)"
    query = f"SELECT {parent}, COUNT(*) FROM {table} WHERE {condition} AND {unsound} GROUP BY {parent}"
    words = ", ".join(bounds.column for bounds in _bounds(table))
    return {
        f"of {parent.removesuffix('_id')} {owner}": f"{counted(count, 'row')} with values out of range ({words})"
        for owner, count in connection.exec_driver_sql(query)
    }


def _without_samples(connection: Connection, dialect: _Dialect, measurements: Sequence[Any] | None = None) -> set[Any]:
    """Return complete measurements, of all or of some, of which no sample is left."""
    among = "1 = 1" if measurements is None else _one_of(dialect, "id", measurements)
    query = (
        f"SELECT id FROM measurement WHERE {among} AND status = 'complete' AND NOT EXISTS "
        f"(SELECT 1 FROM sample WHERE measurement_id = measurement.id AND {dialect.sound('sample')})"
    )
    return {row[0] for row in connection.exec_driver_sql(query)}


@cache
def _checker(table: str) -> type[BaseModel]:
    """Create a model of one row; its fields are prefixed because a column may be called as a method of a model is."""
    fields: dict[str, Any] = {}
    row = _ROWS[table]
    declared = {name for base in row.__mro__ for name in vars(base).get("__dataclass_fields__", ())}
    for name, column in row.model_fields.items():
        if name in declared and (table, name) not in _SPECIAL:  # its type in records.py already says what it may be
            fields[f"v_{name}"] = (column.rebuild_annotation(), ...)
            continue
        kind = _SPECIAL.get((table, name)) or _COLUMNS.get(name) or _plain(name, column.annotation)
        optional = NoneType in get_args(column.annotation) and name != "id"
        fields[f"v_{name}"] = (kind | None if optional else kind, ...)
    config = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    validators: dict[str, Any] = {}
    if table == "strategy":
        validators["placed"] = model_validator(mode="after")(_check_strategy)
    return create_model(f"{table}_row", __config__=config, __validators__=validators, **fields)


def _check_strategy(row: Any) -> Any:
    allowed.check_placement(row.v_placement, row.v_tiers)
    return row


def _plain(name: str, annotation: Any) -> Any:
    """Return a column's own type, in bounds, where nothing more is known of it."""
    if get_origin(annotation) is list:
        return allowed.JsonList
    if get_origin(annotation) is dict:
        return allowed.Json
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType] or [annotation]
    if bool in kinds:
        return bool
    if int in kinds:
        return allowed.Bytes
    if float in kinds:
        return allowed.Seconds if name.endswith("_s") and not name.startswith(("low", "high")) else allowed.Number
    return allowed.Text if str in kinds else allowed.Json


def shadows(connection: Connection, unsound: Unsound) -> Iterator[str]:
    """Yield the statements after which a connection sees sound rows only, through the views of the schema too."""
    yield from shadowed_tables(connection, unsound)
    for name, query in VIEWS.items():
        yield f"CREATE TEMP VIEW {name} AS {query}"


def shadowed_tables(connection: Connection, unsound: Unsound) -> Iterator[str]:
    """Yield the statements that put a view without the unsound rows in place of each table."""
    dialect = _dialect(connection)
    schema = "main" if dialect.sqlite else "public"
    for table, parents in PARENTS.items():
        terms = [dialect.sound(table)] if table in _BULK else []
        rows = [] if table in _BULK else [dialect.quoted(row) for row in unsound.get(table, {})]
        if rows:
            terms.append(f"{'name' if table == 'slo' else 'id'} NOT IN ({', '.join(rows)})")
        for column, parent in parents.items():
            none = f"{column} IS NULL OR " if column == "imported_file_id" else ""
            terms.append(f"({none}{column} IN (SELECT id FROM {parent}))")
        where = f" WHERE {' AND '.join(terms)}" if terms else ""
        yield f"CREATE TEMP VIEW {table} AS SELECT * FROM {schema}.{table}{where}"
