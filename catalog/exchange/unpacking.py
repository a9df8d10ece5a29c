"""From a document's columns to the records that the evidence stores."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from catalog.evidence.records import (
    AccuracyRecord,
    ClassPixels,
    ItemHits,
    LinkBytes,
    LinkProbeRecord,
    MeasurementRecord,
    PartTimes,
    SampleRecord,
    TierRunRecord,
)
from catalog.exchange.document import AccuracyEntry, MeasurementEntry, SampleColumns
from catalog.exchange.packing import unpack_bits


def measurement_record(
    entry: MeasurementEntry, ids: Mapping[str, Sequence[str]], environment_id: int, file_id: int
) -> MeasurementRecord:
    """One strategy in one round with everything below it."""
    changed = ("environment", "started_at", "finished_at", "tier_runs", "link_probes", "samples")
    samples = entry.samples
    return MeasurementRecord(
        **{name: getattr(entry, name) for name in MeasurementEntry.model_fields if name not in changed},
        environment_id=environment_id,
        imported_file_id=file_id,
        started_at=datetime.fromisoformat(entry.started_at),
        finished_at=datetime.fromisoformat(entry.finished_at),
        tier_runs=[TierRunRecord(**vars(each)) for each in entry.tier_runs],
        link_probes=[LinkProbeRecord(**vars(each)) for each in entry.link_probes],
        samples=_samples(samples, ids[samples.ids]) if samples is not None else (),
    )


def _samples(columns: SampleColumns, ids: Sequence[str]) -> list[SampleRecord]:
    parts: list[list[PartTimes]] = [[] for _ in columns.latency_s]
    links: list[list[LinkBytes]] = [[] for _ in columns.latency_s]
    for tier, part in columns.parts.items():
        at = range(len(parts)) if part.at is None else part.at
        for position, *durations in zip(at, *part.columns, strict=True):
            parts[position].append(PartTimes(tier, *durations))
    for name, link in columns.links.items():
        at = range(len(links)) if link.at is None else link.at
        for position, sent_bytes, received_bytes in zip(at, link.sent_bytes, link.received_bytes, strict=True):
            links[position].append(LinkBytes(name, sent_bytes, received_bytes))
    rows = zip(columns.input, columns.repetition, columns.latency_s, columns.transmission_s, parts, links, strict=True)
    return [SampleRecord(seq, ids[row[0]], *row[1:]) for seq, row in enumerate(rows)]


def accuracy_record(
    entry: AccuracyEntry, ids: Mapping[str, Sequence[str]], environment_id: int, file_id: int
) -> AccuracyRecord:
    """An accuracy with its items, where the document has them."""
    changed = ("environment", "started_at", "finished_at", "hits", "pixels")
    return AccuracyRecord(
        **{name: getattr(entry, name) for name in AccuracyEntry.model_fields if name not in changed},
        environment_id=environment_id,
        imported_file_id=file_id,
        started_at=datetime.fromisoformat(entry.started_at),
        finished_at=datetime.fromisoformat(entry.finished_at),
        item_hits=_item_hits(entry, ids),
        class_pixels=_class_pixels(entry, ids),
    )


def _item_hits(entry: AccuracyEntry, ids: Mapping[str, Sequence[str]]) -> list[ItemHits]:
    if entry.hits is None:
        return []
    names = ids[entry.hits.ids]
    top1, top5 = (unpack_bits(bits, len(names)) for bits in (entry.hits.top1, entry.hits.top5))
    return [ItemHits(*row) for row in zip(names, top1, top5, strict=True)]


def _class_pixels(entry: AccuracyEntry, ids: Mapping[str, Sequence[str]]) -> list[ClassPixels]:
    columns = entry.pixels
    if columns is None:
        return []
    names = ids[columns.ids]
    rows = zip(columns.item, columns.class_id, columns.intersection_px, columns.union_px, strict=True)
    return [ClassPixels(names[item], *values) for item, *values in rows]
