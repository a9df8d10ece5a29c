"""What changed since the evidence was last read: a digest of every row that owns others, and of each subject.

What is below a measurement, an accuracy, a pool or an analysis is stored with it and never changed: what is measured or
imported again comes with another row above it. So a row above that is as it was says the same of all that is below, of
which there is a hundred times as much. Other programs may do anything to a file: of what is below its rows, numbers and
sums are compared as well, but for the ids of inputs and what single samples sent. A server computes sums in no fixed
order of its rows and does without.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from catalog.evidence.queries import Reader, fetch_stored, is_file, stream
from catalog.statistics.families import client_tier, condition_chains, tier_order

# Each with the column that names a row.
OWNERS: Mapping[str, str] = {
    "imported_file": "id",
    "environment": "id",
    "artifact": "id",
    "strategy": "id",
    "input_pool": "id",
    "measurement": "id",
    "accuracy": "id",
    "slo": "name",
    "subject_slo": "id",
    "analysis": "id",
    "analysis_slo": "id",
    "race_departure": "id",
}
# Of a subject in an environment, by its id.
SubjectPlace = tuple[str, int]
RowDigests = dict[str, dict[Any, int]]


# Of what another program may have changed below a row of the table: its number, and what tells its values apart. A sum
# weighted by the place of each row changes when two rows exchange their values.
_BELOW = (
    (
        "measurement",
        "SELECT measurement_id, COUNT(*), TOTAL(latency_s), TOTAL(latency_s * seq) FROM sample GROUP BY measurement_id",
    ),
    (
        "measurement",
        "SELECT measurement_id, COUNT(*), TOTAL(memory_peak_bytes), TOTAL(peak_rss_bytes), TOTAL(cold_start_s) "
        "FROM tier_run GROUP BY measurement_id",
    ),
    (
        "accuracy",
        "SELECT accuracy_id, COUNT(*), TOTAL(top1), TOTAL(top5), TOTAL(top1 * rowid), TOTAL(top5 * rowid) "
        "FROM accuracy_item GROUP BY accuracy_id",
    ),
    (
        "accuracy",
        "SELECT accuracy_id, COUNT(*), TOTAL(intersection_px), TOTAL(union_px), TOTAL(intersection_px * rowid), "
        "TOTAL(union_px * rowid) FROM accuracy_class_item GROUP BY accuracy_id",
    ),
    ("input_pool", "SELECT pool_id, COUNT(*), TOTAL(size), TOTAL(size * rowid) FROM pool_input GROUP BY pool_id"),
)
_POOLS = "SELECT m.id, p.id FROM measurement m JOIN input_pool p ON p.key = m.pool_key"


def row_digests(reader: Reader) -> RowDigests:
    """Return by table and row what tells whether it is the row that it was, within this process."""
    digests = {table: dict(_digests(reader, table, name)) for table, name in OWNERS.items()}
    if is_file(reader):
        for table, query in _BELOW:
            for row in stream(reader, query):
                # Of an owner that is not there is what belongs to nothing.
                if row[0] in digests[table]:
                    digests[table][row[0]] = hash((digests[table][row[0]], row))
        for measurement, pool in stream(reader, _POOLS):
            own, drawn_from = digests["measurement"][measurement], digests["input_pool"][pool]
            digests["measurement"][measurement] = hash((own, drawn_from))
    return digests


def _digests(reader: Reader, table: str, name: str) -> Iterator[tuple[Any, int]]:
    if is_file(reader):
        for row in stream(reader, f"SELECT {name}, * FROM {table}"):
            yield row[0], hash(row)
    else:
        # A driver parses JSON, which has no hash; the text of a row has one.
        for row in stream(reader, f"SELECT {name}, CAST({table} AS TEXT) FROM {table}"):
            yield row[0], hash(row)


@dataclass
class CheckedRows:
    """The rows that were found sound, by their digests; None before the first check, and after one that failed."""

    digests: RowDigests | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Tiers:
    """The tiers of an environment from the client on, and the client's where anything says which it is."""

    order: tuple[str, ...]
    client: str | None


def environment_tiers(reader: Reader) -> dict[int, _Tiers]:
    """Return the tiers by environment, over all subjects: they must not depend on which subjects are read."""
    placements: dict[int, set[tuple[str, ...]]] = defaultdict(set)
    chains: dict[int, set[Any]] = defaultdict(set)
    for row in fetch_stored(reader, "strategy", columns=("environment_id", "tiers")):
        placements[row.environment_id].add(tuple(row.tiers))
    # Thousands of measurements repeat a few conditions, which are one object each.
    conditions = fetch_stored(reader, "measurement", columns=("environment_id", "conditions"))
    for environment_id, stated in {
        (row.environment_id, id(row.conditions)): (row.environment_id, row.conditions) for row in conditions
    }.values():
        chains[environment_id].update(condition_chains(stated))
    statements = {key: (placed, chains[key]) for key, placed in placements.items()}
    return {key: _Tiers(tier_order(*facts), client_tier(*facts)) for key, facts in statements.items()}


# Without the moment of the last plan, which changes nothing that is answered.
_DECLARED = """
SELECT subject, environment_id, latency_key, accuracy_key, artifact_key, id, operator, placement, status, reason, task,
       rounds, CAST(tiers AS TEXT), CAST(passes AS TEXT)
FROM strategy WHERE declared
"""


@dataclass(frozen=True)
class EvidenceDigests:
    """What tells whether evidence is what it was: of each subject in each environment, and of each accuracy by id."""

    subjects: Mapping[SubjectPlace, int] = field(default_factory=dict)
    accuracies: Mapping[int, int] = field(default_factory=dict)


def evidence_digests(reader: Reader) -> EvidenceDigests:
    """Return a digest of all rows that the evidence of each subject comes from, within this process.

    These are the strategies, their measurements, accuracies and artifacts, and what is said of the environment and of
    imported files.
    """
    digests = row_digests(reader)
    by_latency = _by_key(reader, "measurement", "latency_key", digests)
    by_accuracy = _by_key(reader, "accuracy", "key", digests)
    by_artifact = _by_key(reader, "artifact", "key", digests)
    # The names of files depend on each other, where two are called alike.
    files = hash(frozenset(digests["imported_file"].items()))
    tiers = environment_tiers(reader)
    members: dict[SubjectPlace, list[Any]] = defaultdict(list)
    for subject, environment_id, latency, accuracy, artifact, *rest in stream(reader, _DECLARED):
        below = frozenset(by_latency[latency]), frozenset(by_accuracy[accuracy]), frozenset(by_artifact[artifact])
        members[subject, environment_id].append((latency, accuracy, artifact, *rest, *below))
    subjects = {
        place: hash((frozenset(rows), files, tiers.get(place[1]), digests["environment"].get(place[1])))
        for place, rows in members.items()
    }
    return EvidenceDigests(subjects, digests["accuracy"])


def _by_key(reader: Reader, table: str, column: str, digests: RowDigests) -> Mapping[str, set[tuple[int, int]]]:
    by_key: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for number, key in stream(reader, f"SELECT id, {column} FROM {table}"):
        by_key[key].add((number, digests[table][number]))
    return by_key
