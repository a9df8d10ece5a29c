"""The other way round: a document's evidence as the rows that `tables.py` reads."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from catalog.exchange.document import Document, EnvironmentEntry
from catalog.exchange.rows import REQUIRED, Kind
from catalog.exchange.rows_to_document import LAUNCHER


def rows_csv(document: Document, kind: Kind) -> str:
    """Write latencies or accuracies as CSV: what is declared and counts.

    Parameters
    ----------
    document : Document
    kind : {"latencies", "accuracies"}

    Returns
    -------
    str
        With a header; for latencies a column per link with the declared upward rate. Parts, bytes, items and provenance
        have no place in rows: the document has them.
    """
    names = {each.key: _place(each) for each in document.environments}
    rows = list(_latencies(document, names) if kind == "latencies" else _accuracies(document, names))
    fixed = [*REQUIRED[kind], *(("round",) if kind == "latencies" else ()), "environment"]
    links = sorted({name for row in rows for name in row} - set(fixed))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*fixed, *links], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _place(environment: EnvironmentEntry) -> str:
    """A short name: that of a foreign environment, else the start of the key."""
    return environment.host if environment.launcher == LAUNCHER else environment.key.rpartition(":")[2][:16]


def _latencies(document: Document, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    declared = {each.latency_key for each in document.strategies if each.declared}
    for each in document.measurements:
        if not each.counts or each.samples is None or each.latency_key not in declared:
            continue
        links = {f"{link['name']}_bit_per_s": link["up_bit_per_s"] for link in each.conditions.get("links", ())}
        ids, samples = document.ids[each.samples.ids], each.samples
        for position, repetition, latency_s in zip(samples.input, samples.repetition, samples.latency_s, strict=True):
            yield {
                "subject": each.subject,
                "operator": each.operator,
                "placement": each.placement,
                "input_id": ids[position],
                "repetition": repetition,
                "latency_s": latency_s,
                "round": each.round,
                "environment": names[each.environment],
                **links,
            }


def _accuracies(document: Document, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    known = {each.key: each for each in document.accuracies if each.status == "complete"}
    for strategy in document.strategies:
        each = known.get(strategy.accuracy_key)
        if each is None or not strategy.declared:
            continue
        primary = each.miou_pct if each.metric_primary == "miou" else each.top1_pct
        for metric, value in ((each.metric_primary, primary), ("top5", each.top5_pct)):
            if value is not None and not (metric == "top5" and each.metric_primary != "top1"):
                yield {
                    "subject": strategy.subject,
                    "operator": strategy.operator,
                    "placement": strategy.placement,
                    "metric": metric,
                    "value_pct": value,
                    "environment": names[strategy.environment],
                }
