"""What holds between the entries of a document: references that lead somewhere, names that are said once."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from catalog.exchange.document import AccuracyEntry, Document, duplicates
from catalog.exchange.packing import unpack_bits

# Exporters may round a percentage to two decimals.
_TOLERANCE_PP = 0.01


def inconsistencies(document: Document) -> Iterator[str]:
    """Every reference that leads nowhere and every name said twice, each with its place."""
    yield from _said_twice(document)
    yield from _environments(document)
    yield from _one_place_per_key(document)
    yield from _samples(document)
    yield from _accuracies(document)


def _said_twice(document: Document) -> Iterator[str]:
    named: dict[str, Iterable[object]] = {
        "files": (each.key for each in document.files),
        "environments": (each.key for each in document.environments),
        "artifacts": (each.key for each in document.artifacts),
        "slos": (each.name for each in document.slos),
        "strategies": ((s.environment, s.subject, s.operator, s.placement) for s in document.strategies),
        "measurements": ((m.latency_key, m.round) for m in document.measurements if m.counts),
        "accuracies": (each.key for each in document.accuracies if each.status == "complete"),
    }
    for section, names in named.items():
        for name in duplicates(names):
            shown = "/".join(str(part) for part in name) if isinstance(name, tuple) else name
            yield f"{section}: {shown} is there twice; keep one"


def _environments(document: Document) -> Iterator[str]:
    known = {each.key for each in document.environments}
    files = {each.key for each in document.files}
    sections: dict[str, Sequence[str]] = {
        "strategies": [each.environment for each in document.strategies],
        "measurements": [each.environment for each in document.measurements],
        "accuracies": [each.environment for each in document.accuracies],
    }
    for section, keys in sections.items():
        for index, key in enumerate(keys):
            if key not in known:
                yield f"{section}[{index}].environment: {key!r} is not among the environments"
    for index, each in enumerate(document.environments):
        if each.imported_from is not None and each.imported_from not in files:
            yield f"environments[{index}].imported_from: {each.imported_from!r} is not among the files"


def _one_place_per_key(document: Document) -> Iterator[str]:
    """A latency key belongs to one environment and one subject, else evidence of two would be pooled."""
    places: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for strategy in document.strategies:
        places[strategy.latency_key].add((strategy.environment, strategy.subject))
    for measurement in document.measurements:
        places[measurement.latency_key].add((measurement.environment, measurement.subject))
    for key, found in places.items():
        if len(found) > 1:
            where = " and ".join(f"{subject} in {environment}" for environment, subject in sorted(found))
            yield f"latency key {key}: is used for {where}; evidence of two places is never pooled"


def _samples(document: Document) -> Iterator[str]:
    for index, each in enumerate(document.measurements):
        if each.samples is None:
            if each.counts:
                yield f"measurements[{index}]: is complete and has no samples"
            continue
        yield from _indices(document, f"measurements[{index}].samples", each.samples.ids, each.samples.input)


def _accuracies(document: Document) -> Iterator[str]:
    for index, each in enumerate(document.accuracies):
        where = f"accuracies[{index}]"
        primary = each.miou_pct if each.metric_primary == "miou" else each.top1_pct
        if each.status == "complete" and primary is None:
            yield f"{where}: is complete and its {each.metric_primary} is missing"
        yield from _counted(document, where, each)
        if each.pixels is not None:
            yield from _indices(document, f"{where}.pixels", each.pixels.ids, each.pixels.item)
        if each.hits is not None and (ids := document.ids.get(each.hits.ids)) is None:
            yield f"{where}.hits.ids: {each.hits.ids!r} is not among the lists of ids"
        elif each.hits is not None and ids is not None:
            for name, bits in (("top1", each.hits.top1), ("top5", each.hits.top5)):
                try:
                    unpack_bits(bits, len(ids))
                except ValueError as error:
                    yield f"{where}.hits.{name}: {error}"
    for name, ids in document.ids.items():
        if len(set(ids)) != len(ids):
            yield f"ids.{name}: {duplicates(ids)[0]!r} is there twice; keep one"


def _counted(document: Document, where: str, entry: AccuracyEntry) -> Iterator[str]:
    """What is told item by item is what is told in all."""
    if entry.status != "complete":
        return
    if entry.hits is not None and entry.pixels is not None:
        yield f"{where}: has hits and pixels; keep those of its {entry.metric_primary}"
    columns = entry.hits if entry.hits is not None else entry.pixels
    ids = document.ids.get(columns.ids) if columns is not None else None
    if ids is not None and len(ids) != entry.items:
        yield f"{where}.items: is {entry.items}, and the list of its items has {len(ids)}"
    if entry.hits is None or ids is None or not ids:
        return
    for name, bits, told in (("top1", entry.hits.top1, entry.top1_pct), ("top5", entry.hits.top5, entry.top5_pct)):
        try:
            share = 100 * sum(unpack_bits(bits, len(ids))) / len(ids)
        except ValueError:
            continue  # told where the bits are read
        if told is not None and abs(share - told) > _TOLERANCE_PP:
            yield f"{where}.{name}_pct: is {told:g}, and the hits give {share:g}"


def _indices(document: Document, where: str, name: str, indices: Sequence[int]) -> Iterator[str]:
    ids = document.ids.get(name)
    if ids is None:
        yield f"{where}.ids: {name!r} is not among the lists of ids"
    elif max(indices, default=-1) >= len(ids):
        yield f"{where}: counts up to {max(indices)} in a list of {len(ids)} ids"
