"""What was recorded under one content key, or below one measurement: for bundles, plans and the answers about a key."""

from collections.abc import Sequence
from typing import Any

from catalog.evidence.queries import MEASUREMENT_COUNTS, Reader, exact_mean, fetch, fetch_stored, fetch_value
from catalog.evidence.records import LatencyExtent


def analysis_stored(reader: Reader, evidence_key: str) -> bool:
    """Tell whether there is an analysis that rests on exactly this evidence."""
    return fetch_value(reader, "SELECT 1 FROM analysis WHERE evidence_key = :key", key=evidence_key) is not None


_UNANALYSED = f"""
SELECT 1 FROM strategy s JOIN environment e ON e.id = s.environment_id
WHERE e.imported_file_id IS NOT NULL AND s.declared
  AND EXISTS (
    SELECT 1 FROM (SELECT latency_key FROM measurement WHERE {MEASUREMENT_COUNTS}) m
    WHERE m.latency_key = s.latency_key
  )
  AND NOT EXISTS (SELECT 1 FROM analysis a WHERE a.environment_id = s.environment_id AND a.subject = s.subject)
LIMIT 1
"""


def imported_unanalysed(reader: Reader) -> bool:
    """Tell whether imported latencies lack an analysis: those of a large import are analysed by the first reader."""
    return fetch_value(reader, _UNANALYSED) is not None


def measured_pool(reader: Reader, latency_key: str) -> dict[str, int]:
    """Return the size of each input of the pool that rounds under a key drew from; nothing where none is stored."""
    query = (
        "SELECT i.input_id, i.size FROM pool_input i JOIN input_pool p ON p.id = i.pool_id "
        "WHERE p.key IN (SELECT pool_key FROM measurement WHERE latency_key = :key)"
    )
    return dict(fetch(reader, query, key=latency_key))


def environment_key(reader: Reader, environment_id: int) -> str:
    """Return the key of an environment that is there."""
    return str(fetch_value(reader, "SELECT key FROM environment WHERE id = :id", id=environment_id))


def stored_strategy(reader: Reader, subject: str, operator: str, placement: str, environment: str) -> Any:
    """Return a strategy's row in the environment of that key, declared now or not; None where there is none."""
    condition = (
        "WHERE subject = :subject AND operator = :operator AND placement = :placement "
        "AND environment_id = (SELECT id FROM environment WHERE key = :environment)"
    )
    names = {"subject": subject, "operator": operator, "placement": placement, "environment": environment}
    # One at most: the four names are unique together.
    return next(iter(fetch_stored(reader, "strategy", condition, **names)), None)


def has_measurement(reader: Reader, latency_key: str) -> bool:
    """Tell whether anything was measured under a key, whatever its outcome."""
    return fetch_value(reader, "SELECT 1 FROM measurement WHERE latency_key = :key", key=latency_key) is not None


def has_accuracy(reader: Reader, accuracy_key: str) -> bool:
    """Tell whether an accuracy was attempted under a key, whatever its outcome."""
    return fetch_value(reader, "SELECT 1 FROM accuracy WHERE key = :key", key=accuracy_key) is not None


def measurements_under(reader: Reader, latency_key: str) -> Sequence[Any]:
    """Return every attempt under a key, by round and in the order they were made."""
    return fetch_stored(reader, "measurement", "WHERE latency_key = :key ORDER BY round, id", key=latency_key)


def input_orders(reader: Reader, latency_key: str) -> tuple[tuple[str, ...], ...]:
    """Return each order of input ids that was sent under a key, once."""
    # Imported rows have a protocol without input ids.
    return tuple(dict.fromkeys(tuple(row.protocol.get("input_ids", ())) for row in _protocols(reader, latency_key)))


def input_rules(reader: Reader, latency_key: str) -> tuple[dict[str, object], ...]:
    """Return the rules by which rounds under a key drew their inputs; none where all rounds send the same."""
    rules = [
        {name: row.protocol.get(name) for name in ("select", "inputs", "tail")}
        for row in _protocols(reader, latency_key)
    ]
    return tuple(rule for index, rule in enumerate(rules) if rule["select"] and rule not in rules[:index])


def _protocols(reader: Reader, latency_key: str) -> Sequence[Any]:
    return fetch_stored(reader, "measurement", "WHERE latency_key = :key", columns=("protocol",), key=latency_key)


def latency_extent(reader: Reader, measurement_id: int) -> LatencyExtent:
    """Return how many samples a measurement has and between what they lie."""
    mean = exact_mean("latency_s")
    query = f"SELECT COUNT(*), MIN(latency_s), {mean}, MAX(latency_s) FROM sample WHERE measurement_id = :measurement"
    return LatencyExtent(*fetch(reader, query, measurement=measurement_id)[0])


def tier_runs_of(reader: Reader, measurement_id: int) -> Sequence[Any]:
    """Return the tiers of a measurement."""
    return fetch_stored(reader, "tier_run", "WHERE measurement_id = :measurement", measurement=measurement_id)


def link_probes_of(reader: Reader, measurement_id: int) -> Sequence[Any]:
    """Return the link probes of a measurement."""
    return fetch_stored(reader, "link_probe", "WHERE measurement_id = :measurement", measurement=measurement_id)


def newest_accuracy(reader: Reader, accuracy_key: str) -> Any:
    """Return the latest attempt under a key; None without one."""
    # By the number, because the clock may have been set back; an earlier attempt may have failed.
    rows = fetch_stored(reader, "accuracy", "WHERE key = :key ORDER BY id DESC LIMIT 1", key=accuracy_key)
    return next(iter(rows), None)
