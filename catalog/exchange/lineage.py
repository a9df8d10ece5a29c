"""Which stored environment a document may add to: the content decides, never the key that the document claims.

Anyone can write a key into a file. Evidence of a document joins what an earlier file brought only where it contains
all of it unchanged, measurement by measurement; otherwise it becomes an environment of its own.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlmodel import Session

from catalog.evidence.allowed import utc_text
from catalog.evidence.soundness import sound_rows
from catalog.evidence.tables import Artifact, Environment, Strategy, attempted_keys, stored_rows, stored_values
from catalog.exchange.document import (
    AccuracyEntry,
    Document,
    LinkColumns,
    MeasurementEntry,
    PartColumns,
    SampleColumns,
    neutral,
)
from catalog.exchange.export_document import collect
from catalog.exchange.serialization import unpack_bits
from catalog.keys import content_key

PREFIX = "imported:"
# Judgements, which may be made again, and names that depend on the database; what was measured is the rest.
_JUDGED = {"environment", "verdict", "reason", "findings"}


@dataclass(frozen=True)
class Place:
    """Where the evidence of one environment of a document belongs.

    Attributes
    ----------
    key : str
        Of the environment as stored.
    suffix : str
        What all keys of this environment get appended; none unless another file's evidence has one of the keys.
    joined : int or None
        Id of the stored environment that it joins.
    digests : frozenset of str
        What is stored there already.
    contained : bool
        Whether everything is stored already.
    """

    key: str
    suffix: str
    joined: int | None = None
    digests: frozenset[str] = field(default=frozenset(), repr=False)
    contained: bool = False

    def stored_key(self, key: str) -> str:
        """Return a key of the document as it is stored."""
        return imported_key(key) + self.suffix


def imported_key(key: str) -> str:
    """Return a key as it is stored for imported evidence; one that came imported already stays.

    Examples
    --------
    >>> imported_key(imported_key("ab12"))
    'imported:ab12'
    """
    return key if key.startswith(PREFIX) else PREFIX + key


def original_key(key: str) -> str:
    """Return the key that evidence has where it was measured.

    Examples
    --------
    >>> original_key("imported:ab12.3fa9c1d2e4b5"), original_key("ab12")
    ('ab12', 'ab12')
    """
    return key.removeprefix(PREFIX).partition(".")[0]


def evidence_places(session: Session, document: Document, sha256: str) -> Mapping[str, Place]:
    """Decide for each environment of a document whether it joins a stored one.

    Parameters
    ----------
    session : Session
    document : Document
    sha256 : str
        Of the file; tells environments apart that claim the same key.

    Returns
    -------
    mapping of str to Place
        By the environment's key in the document.

    Notes
    -----
    An environment joins a stored one that claims the same key when one's digests are a subset of the other's and
    neither is empty. All others get keys that no evidence of another file has.
    """
    places: dict[str, Place] = {}
    ids = {row.key: row.id for row in stored_rows(session, Environment)}
    claims = {
        environment.key: [key for key in ids if _claims(key, imported_key(environment.key))]
        for environment in document.environments
    }
    claimed_keys = [key for keys in claims.values() for key in keys]
    stored = _stored_digests(session, claimed_keys)
    # To digest every sample takes as long as to store it: only where there is something to compare.
    incoming = evidence_digests(document) if claimed_keys else {}
    for claimed, keys in claims.items():
        for key in keys:
            suffix = key.removeprefix(imported_key(claimed))
            own, theirs = incoming[claimed], stored(key, suffix)
            # The empty set is a subset of any: without evidence, an environment would join every other.
            if own and theirs and (own <= theirs or own >= theirs):
                places[claimed] = Place(key, suffix, ids[key], theirs, contained=own <= theirs)
                break
    taken = _taken(session, {place.joined for place in places.values()})
    for environment in document.environments:
        if environment.key not in places:
            places[environment.key] = _own_place(document, environment.key, taken, sha256)
    return places


def evidence_digests(document: Document, *, suffix: str = "") -> Mapping[str, frozenset[str]]:
    """Digest every attempt of a document, by environment.

    Parameters
    ----------
    document : Document
    suffix : str
        What the keys have appended in the database that the document was collected from.

    Returns
    -------
    mapping of str to frozenset of str
        Equal for equal measurements, whatever verdict they were given later (as long as they count or do not count)
        and in whatever order the document lists what has no order.
    """
    digests_by_key: dict[str, set[str]] = defaultdict(set)
    for measurement in document.measurements:
        digests_by_key[measurement.environment].add(measurement_digest(measurement, document.ids, suffix=suffix))
    for accuracy in document.accuracies:
        digests_by_key[accuracy.environment].add(accuracy_digest(accuracy, document.ids, suffix=suffix))
    return defaultdict(frozenset, {key: frozenset(digests) for key, digests in digests_by_key.items()})


def measurement_digest(entry: MeasurementEntry, ids: Mapping[str, Sequence[str]], *, suffix: str = "") -> str:
    """Return the content key of one attempt at one round, without judgements and without where it is stored."""
    entry = neutral(entry)
    lists = {"tier_runs", "link_probes"}
    # Without defaults, so that a field which a later version adds leaves the digests of older evidence alone.
    values = entry.model_dump(mode="json", exclude=_JUDGED | {"samples"} | lists, exclude_defaults=True)
    values |= {
        name: _sorted(row.model_dump(mode="json", exclude_defaults=True) for row in getattr(entry, name))
        for name in lists
    }
    values |= _moments(entry)
    # The verdict may change, but not between counting and not counting.
    values |= {"latency_key": _bare(entry.latency_key, suffix), "counts": entry.counts}
    if entry.samples is not None:
        values["samples"] = _sample_values(entry.samples, ids[entry.samples.ids])
    return content_key(values)


def accuracy_digest(entry: AccuracyEntry, ids: Mapping[str, Sequence[str]], *, suffix: str = "") -> str:
    """Return the content key of one attempt at an accuracy with its items."""
    values = entry.model_dump(mode="json", exclude=_JUDGED | {"hits", "pixels"}, exclude_defaults=True)
    values |= _moments(entry) | {"key": _bare(entry.key, suffix)}
    if entry.hits is not None:
        names = ids[entry.hits.ids]
        top1, top5 = (unpack_bits(bits, len(names)) for bits in (entry.hits.top1, entry.hits.top5))
        values["hits"] = sorted(map(list, zip(names, top1, top5, strict=True)))
    if entry.pixels is not None:
        names, columns = ids[entry.pixels.ids], entry.pixels
        rows = zip(columns.item, columns.class_id, columns.intersection_px, columns.union_px, strict=True)
        values["pixels"] = sorted([names[item], *counts] for item, *counts in rows)
    return content_key(values)


def _sample_values(samples: SampleColumns, ids: Sequence[str]) -> dict[str, Any]:
    children: Mapping[str, Mapping[str, PartColumns | LinkColumns]] = {"parts": samples.parts, "links": samples.links}
    return {
        "input": [ids[position] for position in samples.input],
        "repetition": samples.repetition,
        "latency_s": samples.latency_s,
        "transmission_s": samples.transmission_s,
        # Only where it is known: the digests of older evidence stay what they are.
        **({} if samples.stratum is None else {"stratum": samples.stratum}),
        **{
            kind: {name: _aligned(columns, len(samples.latency_s)) for name, columns in by_name.items()}
            for kind, by_name in children.items()
        },
    }


def _aligned(columns: PartColumns | LinkColumns, count: int) -> list[list[float]]:
    at = range(count) if columns.at is None else columns.at
    return sorted([position, *values] for position, *values in zip(at, *columns.columns, strict=True))


def _moments(entry: MeasurementEntry | AccuracyEntry) -> dict[str, str]:
    # In one spelling, because another exporter may write another time zone.
    return {name: utc_text(datetime.fromisoformat(getattr(entry, name))) for name in ("started_at", "finished_at")}


def _sorted(rows: Any) -> list[Any]:
    return sorted(rows, key=lambda row: content_key(row))


def _bare(key: str, suffix: str) -> str:
    return key.removeprefix(PREFIX).removesuffix(suffix)


def _claims(stored_key: str, claimed_key: str) -> bool:
    """Tell whether a stored environment is the claimed one, or was kept apart from it under the same key."""
    return stored_key == claimed_key or stored_key.startswith(f"{claimed_key}.")


def _stored_digests(session: Session, keys: Collection[str]) -> Any:
    """Return a function of an environment's key and suffix; without an environment to compare, nothing is read."""
    document = Document()
    if keys:
        # Once for all environments of the document, because it reads the whole database.
        with sound_rows(session):
            document = collect(session)

    def digests(key: str, suffix: str) -> frozenset[str]:
        own = document.model_copy(
            update={
                "measurements": [entry for entry in document.measurements if entry.environment == key],
                "accuracies": [entry for entry in document.accuracies if entry.environment == key],
            }
        )
        return evidence_digests(own, suffix=suffix)[key]

    return digests


def _taken(session: Session, joined: Collection[int | None]) -> set[str]:
    """Return keys that evidence of other files has or waits for: a document with one would change what they show."""
    taken = stored_values(session, Environment, "key")
    joined_artifacts = set()
    for strategy in stored_rows(session, Strategy):
        if strategy.environment_id in joined:
            joined_artifacts.add(strategy.artifact_key)
        else:
            taken |= {strategy.artifact_key, strategy.latency_key, strategy.accuracy_key}
    # A document may bring the artifacts of an environment that it joins once more.
    taken |= stored_values(session, Artifact, "key") - joined_artifacts
    taken |= {key for key, environment_id in attempted_keys(session) if environment_id not in joined}
    return taken


def _own_place(document: Document, environment: str, taken: Collection[str], sha256: str) -> Place:
    keys = {environment, *_keys_of(document, environment)}
    number = 0
    suffix = ""
    while any(imported_key(key) + suffix in taken for key in keys):
        digest = content_key({"kind": "imported environment", "file": sha256, "key": environment, "number": number})
        # 48 bits; should they meet a key that is taken, `number` gives the next.
        suffix = f".{digest[:12]}"
        number += 1
    return Place(imported_key(environment) + suffix, suffix)


def _keys_of(document: Document, environment: str) -> set[str]:
    """Return keys of evidence in an environment; an accuracy that was measured in another one keeps that one's."""
    keys = {entry.latency_key for entry in document.measurements if entry.environment == environment}
    keys |= {entry.key for entry in document.accuracies if entry.environment == environment}
    elsewhere = {entry.key for entry in document.accuracies} - keys
    for strategy in document.strategies:
        if strategy.environment == environment:
            keys |= {strategy.latency_key, strategy.artifact_key}
            keys |= {strategy.accuracy_key} - elsewhere
    return keys
