"""From a document to rows: the latencies or accuracies that are declared and count, as CSV that `rows.py` reads.

Rows are in an order of their own, by names and numbers, so that rows which were imported are written as they were.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from catalog.evidence.allowed import utc_text
from catalog.exchange.document import AccuracyEntry, Document, EnvironmentEntry, MeasurementEntry, StrategyEntry
from catalog.exchange.row_collector import ARTIFACT_COUNTS, ROUNDING, artifact_counts
from catalog.exchange.rows_to_document import LAUNCHER
from catalog.exchange.spellings import PART_NAMES, REQUIRED, Kind, default_passes
from catalog.statistics.families import KNOWN_PASSES

NumberT = TypeVar("NumberT", int, float)


def rows_csv(document: Document, kind: Kind) -> str:
    """Write latencies or accuracies as CSV: what is declared and counts.

    Parameters
    ----------
    document : Document
    kind : {"latencies", "accuracies"}

    Returns
    -------
    str
        With a header; for latencies a column per link with the declared upward rate and one with the bytes sent, and
        the parts of each tier. Single items, bytes received and provenance have no place in rows; the document has
        them.
    """
    names = {environment.key: _place(environment) for environment in document.environments}
    rows = list(_latencies(document, names) if kind == "latencies" else _accuracies(document, names))
    columns = {name for row in rows for name in row}
    # A column of which nothing is known would be empty in every row.
    optional = [name for name in ("input_bytes", "items", "measured_at", "passes", *ARTIFACT_COUNTS) if name in columns]
    fixed = [*REQUIRED[kind], *(("round",) if kind == "latencies" else ()), "environment", *optional]
    of_links_and_tiers = sorted(columns - set(fixed))
    text = io.StringIO(newline="")
    # The module's default ends lines with \r\n on every system.
    writer = csv.DictWriter(text, [*fixed, *of_links_and_tiers], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _place(environment: EnvironmentEntry) -> str:
    """Return a short name: that of a foreign environment, else the start of the key."""
    # `foreign_document` keeps the name of a foreign environment as its host.
    return environment.host if environment.launcher == LAUNCHER else environment.key.rpartition(":")[2][:16]


def _latencies(document: Document, names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    facts, moments = _operator_facts(document), _import_moments(document)
    declared = {strategy.latency_key: _operator_of(strategy) for strategy in document.strategies if strategy.declared}
    for measurement in sorted(document.measurements, key=lambda entry: _measurement_order(entry, names)):
        operator = declared.get(measurement.latency_key)
        if operator is None and measurement.environment in moments:
            # Rows at other rates of the links are settings of the strategy, under keys of their own.
            operator = measurement.environment, measurement.subject, measurement.operator
        if not measurement.counts or measurement.samples is None or operator not in facts:
            continue
        shared = {
            "subject": measurement.subject,
            "operator": measurement.operator,
            "placement": measurement.placement,
            "round": measurement.round,
            "environment": names[measurement.environment],
            **_measured_at(measurement, moments),
            **facts[operator],
            **_rates(measurement),
        }
        yield from (shared | sample for sample in _samples(document, measurement))


def _measurement_order(entry: MeasurementEntry, names: Mapping[str, str]) -> tuple[object, ...]:
    # Not by their keys, which an import changes.
    return (
        (names[entry.environment], entry.subject, entry.operator, entry.placement),
        sorted(_rates(entry).items()),
        (entry.round, entry.started_at),
    )


def _rates(measurement: MeasurementEntry) -> dict[str, float]:
    """Return the declared upward rates of the links, by column; a whole number is written as one."""
    rates = {link["name"]: float(link["up_bit_per_s"]) for link in measurement.conditions.get("links", ())}
    return {f"{link}_bit_per_s": int(rate) if rate.is_integer() else rate for link, rate in rates.items()}


def _import_moments(document: Document) -> dict[str, set[str]]:
    """Return by foreign environment the moments of imports, which rows that told no moment of theirs got instead."""
    files = {file.imported_at for file in document.files}
    moments = {
        environment.key: files | {environment.created_at}
        for environment in document.environments
        if environment.launcher == LAUNCHER
    }
    for strategy in document.strategies:
        if strategy.environment in moments:
            moments[strategy.environment].add(strategy.updated_at)
    return moments


def _measured_at(entry: MeasurementEntry | AccuracyEntry, moments: Mapping[str, set[str]]) -> dict[str, str]:
    if entry.started_at in moments.get(entry.environment, ()):
        return {}
    return {"measured_at": utc_text(datetime.fromisoformat(entry.started_at))}


def _samples(document: Document, measurement: MeasurementEntry) -> list[dict[str, Any]]:
    """Return the cells that each sample of a measurement has for itself."""
    samples = measurement.samples
    assert samples is not None
    ids, sizes = document.ids[samples.ids], _encoded_sizes(document, measurement)
    rows: list[dict[str, Any]] = [
        {"input_id": ids[position], "repetition": repetition, "latency_s": latency_s}
        for position, repetition, latency_s in zip(samples.input, samples.repetition, samples.latency_s, strict=True)
    ]
    for row in rows:
        row |= {"input_bytes": sizes[row["input_id"]]} if row["input_id"] in sizes else {}
    parts = _part_cells(measurement, len(rows))
    for column, values in (parts | _sent_cells(measurement, len(rows))).items():
        for row, value in zip(rows, values, strict=True):
            row[column] = value
    return sorted(rows, key=lambda row: (row["repetition"], row["input_id"]))


def _part_cells(measurement: MeasurementEntry, count: int) -> dict[str, list[float]]:
    """Return what the tiers took, by column; 0 where a tier did nothing, as after an early exit."""
    samples = measurement.samples
    assert samples is not None
    route = {tier for link in measurement.conditions.get("links", ()) for tier in link["name"].split("-")}
    parts = {
        f"{tier}_{name}": _everywhere(getattr(columns, name), columns.at, count, 0.0)
        for tier, columns in samples.parts.items()
        if tier in route or tier in measurement.placement.split("-")
        for name in PART_NAMES
    }
    busy_s = map(sum, zip(*parts.values(), strict=True))
    # An import refuses parts that are longer than their sample, as of tiers that work at the same time.
    if any(busy > whole * (1 + ROUNDING) for busy, whole in zip(busy_s, samples.latency_s, strict=False)):
        return {}
    return parts


def _sent_cells(measurement: MeasurementEntry, count: int) -> dict[str, list[int]]:
    samples = measurement.samples
    assert samples is not None
    return {
        f"{link}_sent_bytes": _everywhere(columns.sent_bytes, columns.at, count, 0)
        for link, columns in samples.links.items()
    }


def _everywhere(values: Sequence[NumberT], at: Sequence[int] | None, count: int, zero: NumberT) -> list[NumberT]:
    """Return a value for every sample, zero for those that have none."""
    placed = dict(zip(range(count) if at is None else at, values, strict=True))
    return [placed.get(position, zero) for position in range(count)]


def _encoded_sizes(document: Document, measurement: MeasurementEntry) -> dict[str, int]:
    """Return the bytes of each input of a measurement's pool; none where they are not known."""
    pool = document.pools.get(measurement.pool_key or "")
    return {} if pool is None or pool.unit != "bytes" else dict(zip(document.ids[pool.ids], pool.size, strict=True))


def _accuracies(document: Document, names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    facts, moments = _operator_facts(document), _import_moments(document)
    complete = {accuracy.key: accuracy for accuracy in document.accuracies if accuracy.status == "complete"}
    for strategy in sorted(document.strategies, key=lambda entry: _strategy_order(entry, names)):
        accuracy = complete.get(strategy.accuracy_key)
        if accuracy is None or not strategy.declared:
            continue
        primary = accuracy.miou_pct if accuracy.metric_primary == "miou" else accuracy.top1_pct
        for metric, value in ((accuracy.metric_primary, primary), ("top5", accuracy.top5_pct)):
            # Rows have top5 beside top1 alone (docs/exchange.md).
            if value is not None and not (metric == "top5" and accuracy.metric_primary != "top1"):
                yield {
                    "subject": strategy.subject,
                    "operator": strategy.operator,
                    "placement": strategy.placement,
                    "metric": metric,
                    "value_pct": value,
                    "environment": names[strategy.environment],
                    **({"items": accuracy.items} if accuracy.items else {}),
                    **_measured_at(accuracy, moments),
                    **facts[_operator_of(strategy)],
                }


def _strategy_order(entry: StrategyEntry, names: Mapping[str, str]) -> tuple[str, ...]:
    return names[entry.environment], entry.subject, entry.operator, entry.placement


def _operator_of(strategy: StrategyEntry) -> tuple[str, str, str]:
    return strategy.environment, strategy.subject, strategy.operator


def _operator_facts(document: Document) -> dict[tuple[str, str, str], dict[str, object]]:
    """Return the cells of an operator's passes and artifact, by environment, subject and operator."""
    artifacts = {
        artifact.key: artifact_counts(artifact.size_bytes, artifact.details) for artifact in document.artifacts
    }
    facts: dict[tuple[str, str, str], dict[str, object]] = defaultdict(dict)
    counts: dict[tuple[str, str, str], list[dict[str, int]]] = defaultdict(list)
    for strategy in document.strategies:
        if strategy.declared:
            facts[_operator_of(strategy)].update(_passes(strategy))
            counts[_operator_of(strategy)].append(artifacts.get(strategy.artifact_key, {}))
    for operator, stated in counts.items():
        # Rows state one size for an operator; of tiers whose processors need different artifacts, none is stated.
        facts[operator].update(stated[0].items() if all(other == stated[0] for other in stated) else ())
    return facts


def _passes(strategy: StrategyEntry) -> dict[str, str]:
    """Return the cell of an operator's passes; none where its name says them, or where rows could not."""
    names = tuple(str(step.get("name")) for step in strategy.passes)
    said = names == tuple(default_passes(strategy.operator)) or not set(names) <= set(KNOWN_PASSES)
    return {} if said else {"passes": "+".join(names) or "none"}
