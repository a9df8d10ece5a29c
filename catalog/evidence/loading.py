"""From tables to arrays: few set-wise queries and one pass over their rows.

Tens of thousands of samples load in a fraction of a second; no query runs per strategy.

Rounds that drew their inputs come with their design: what each of their samples stands for.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.evidence.changes import environment_tiers
from catalog.evidence.queries import ACCURACY_COUNTS, MEASUREMENT_COUNTS, Reader, fetch, fetch_stored, stream
from catalog.evidence.records import ArtifactFile, FileBase, values_of
from catalog.evidence.strategy_evidence import (
    ROWS_LAUNCHER,
    AccuracyEvidence,
    EnvironmentEvidence,
    Origin,
    RoundEvidence,
    SloEvidence,
    StrategyEvidence,
    file_labels,
    in_canonical_order,
    tier_use,
    verdict_counts,
)
from catalog.statistics.input_draw import SampleDesign
from catalog.statistics.samples import Samples, wide_rounds

_SIZES = "SELECT input_id, size FROM pool_input WHERE pool_id IN (SELECT id FROM input_pool WHERE key = :key)"


@dataclass(frozen=True, eq=False)
class StoredSizes:
    """The sizes of a pool's inputs, by id and all of them ascending."""

    by_id: Mapping[str, int]
    ascending: NDArray[np.float64]


# Of one sample: the id of its measurement, its input, and its stratum.
DesignedSample = tuple[int, str, str | None]


class StoredDesigns:
    """The designs of all measurements, read when the first one that has any is needed."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._sizes: dict[str, StoredSizes] = {}

    def of(self, samples: Sequence[DesignedSample]) -> SampleDesign | None:
        """Return the design of the samples of one latency key; None where rounds and inputs are crossed.

        Parameters
        ----------
        samples : sequence of (measurement id, input id, stratum)

        Returns
        -------
        SampleDesign or None
            The size is None where a pool lacks one of the inputs.
        """
        drawn = [(measurement, stratum) for measurement, _, stratum in samples if stratum is not None]
        # A design is in the key: if one sample has no stratum, none has.
        if not samples or len(drawn) < len(samples):
            return None
        counts = Counter(drawn)
        pool_inputs = {place: self._strata.get(place[0], {}).get(place[1], {}).get("pool", 0) for place in counts}
        # Evidence from elsewhere may say that a stratum is empty, or have a round of certain inputs alone, which has no
        # level of its own: such a design describes nothing.
        drawing = {measurement for measurement, stratum in counts if stratum != "certainty"}
        if not all(pool_inputs.values()) or any(measurement not in drawing for measurement, _ in counts):
            return None
        # The samples of a stratum share what it stands for, repetitions included.
        weight = [pool_inputs[place] / counts[place] for place in drawn]
        certain = [stratum == "certainty" for _, _, stratum in samples]
        pools = {self._pool_key(measurement) for measurement, *_ in samples}
        # The rounds of one latency key have one pool: it is in the key. Evidence from elsewhere may break that.
        pool = self._pool_sizes(pools.pop()) if len(pools) == 1 else None
        sizes = [None if pool is None else pool.by_id.get(input_id) for _, input_id, _ in samples]
        known_sizes = [size for size in sizes if size is not None]
        sized = pool is not None and len(known_sizes) == len(sizes)
        return SampleDesign(
            np.array(weight, dtype=np.float64),
            np.array(certain, dtype=np.bool_),
            np.array(known_sizes, dtype=np.float64) if sized else None,
            pool.ascending if pool is not None and sized else None,
        )

    @cached_property
    def _measurements(self) -> Mapping[int, tuple[str, Mapping[str, Any]]]:
        """The pool's key and the protocol of each measurement that names a pool."""
        columns = ("id", "pool_key", "protocol")
        rows = fetch_stored(self._reader, "measurement", "WHERE pool_key IS NOT NULL", columns=columns)
        return {row.id: (row.pool_key, row.protocol or {}) for row in rows}

    @cached_property
    def _strata(self) -> Mapping[int, Mapping[str, Mapping[str, int]]]:
        return {measurement: protocol.get("strata", {}) for measurement, (_, protocol) in self._measurements.items()}

    def _pool_key(self, measurement: int) -> str:
        key, _ = self._measurements[measurement]
        return key

    def _pool_sizes(self, key: str) -> StoredSizes:
        if key not in self._sizes:
            rows = fetch(self._reader, _SIZES, key=key)
            by_id = {input_id: int(size) for input_id, size in rows}
            self._sizes[key] = StoredSizes(by_id, np.sort(np.array(list(by_id.values()), dtype=np.float64)))
        return self._sizes[key]


# The cast gives PostgreSQL the type of a parameter that is only compared with NULL.
_DECLARED_KEYS = (
    "SELECT {column} FROM strategy WHERE declared AND (subject = :subject OR CAST(:subject AS TEXT) IS NULL)"
)
_MEASUREMENTS = f"""
SELECT id, latency_key, round, verdict, reason, started_at, finished_at, inputs_select, imported_file_id,
       look, error_share, testbed
FROM measurement
WHERE {MEASUREMENT_COUNTS} AND latency_key IN ({{keys}})
ORDER BY latency_key, round
"""
_SAMPLES = """
SELECT id, measurement_id, input_id, repetition, latency_s, stratum FROM sample {condition} ORDER BY measurement_id, seq
"""
_SENT = "SELECT sample_id, link, sent_bytes FROM sample_link {of_subject}"
# All rows are read faster without a condition.
_MEASURED = f"SELECT id FROM measurement WHERE latency_key IN ({_DECLARED_KEYS.format(column='latency_key')})"
_SAMPLES_OF_SUBJECT = f"WHERE measurement_id IN ({_MEASURED})"
_SENT_OF_SUBJECT = f"WHERE sample_id IN (SELECT id FROM sample {_SAMPLES_OF_SUBJECT})"


_OF_KEY = "latency_key = :key"

# Accuracies already read, by row. A complete one never changes.
ReadAccuracies = dict[tuple[int, str, str], AccuracyEvidence]


def strategy_evidence(
    reader: Reader, *, subject: str | None = None, read: ReadAccuracies | None = None
) -> tuple[StrategyEvidence, ...]:
    """Load every declared strategy with its evidence.

    Parameters
    ----------
    reader : Reader
    subject : str, optional
        Only this subject.
    read : dict, optional
        What an earlier call filled: its accuracies, most of what there is to read, are not read again. Filled by this
        call with those that it used, and with no others.

    Returns
    -------
    tuple of StrategyEvidence
        By environment and subject in the order they were first declared, then in canonical order (of
        `catalog.statistics.families`); also those without evidence yet (`measured` is False).

    Notes
    -----
    Only complete, not INVALID measurements and complete accuracies count.
    """
    declared = _declared(reader, subject)
    if not declared:
        return ()
    loaded = _LoadedEvidence(reader, declared, subject, {} if read is None else read)
    groups: dict[tuple[int, str], list[StrategyEvidence]] = {}
    for row in declared:
        groups.setdefault((row.environment_id, row.subject), []).append(loaded.assemble(row))
    return tuple(strategy for members in groups.values() for strategy in in_canonical_order(members))


# Rows at other rates of links than those that answers are about have a key of their own, which no strategy declares.
_OF_OTHER_SETTINGS = f"""
SELECT m.id AS id, m.latency_key AS latency_key, m.subject AS subject, m.operator AS operator, m.placement AS placement,
       e.key AS environment
FROM measurement m JOIN environment e ON e.id = m.environment_id
WHERE e.launcher = '{ROWS_LAUNCHER}' AND m.latency_key NOT IN (SELECT latency_key FROM strategy)
ORDER BY m.latency_key, m.round
"""


def other_settings(reader: Reader, evidence: Sequence[StrategyEvidence]) -> tuple[StrategyEvidence, ...]:
    """Return imported strategies at the other settings of their links, with the latencies and conditions there."""
    strategies = {
        (strategy.environment.key, strategy.subject, strategy.operator, strategy.placement): strategy
        for strategy in evidence
        if strategy.environment.of_rows
    }
    rows = fetch(reader, _OF_OTHER_SETTINGS) if strategies else []
    places = {row.latency_key: (row.environment, row.subject, row.operator, row.placement) for row in rows}
    if not places:
        return ()
    ids = _one_of({row.id for row in rows})
    measurements = _MEASUREMENTS.format(keys=f"SELECT latency_key FROM measurement {ids}")
    samples = _SAMPLES.format(condition=ids.replace("WHERE id", "WHERE measurement_id"))
    series_by_key = _series_by_key(reader, measurements, samples, {})
    conditions = _load_conditions(reader, series_by_key.values())
    return tuple(
        replace(
            strategies[places[key]],
            latency_key=key,
            latency_s=np.array(series.latency_s, dtype=np.float64),
            conditions=conditions.get(series.first_measurement, {}),
        )
        for key, series in sorted(series_by_key.items())
        if places[key] in strategies
    )


@dataclass(frozen=True, eq=False)
class StrategyLatencies:
    """The latencies of one measured strategy, over the rounds that count; `environment` is a key."""

    subject: str
    environment: str
    operator: str
    placement: str
    latency_s: NDArray[np.float64]


def strategy_latencies(reader: Reader, *, subject: str | None = None) -> tuple[StrategyLatencies, ...]:
    """Load what `strategy_evidence` says of the latencies alone: the items of accuracies are most of what it reads.

    Parameters
    ----------
    reader : Reader
    subject : str, optional
        Only this subject.

    Returns
    -------
    tuple of StrategyLatencies
        Of every declared strategy with samples.
    """
    series = _load_series(reader, subject)
    environments = {row.id: row.key for row in fetch(reader, "SELECT id, key FROM environment")}
    return tuple(
        StrategyLatencies(
            row.subject,
            environments[row.environment_id],
            row.operator,
            row.placement,
            np.array(series[row.latency_key].latency_s, dtype=np.float64),
        )
        for row in _declared(reader, subject)
        if row.latency_key in series and series[row.latency_key].latency_s
    )


def stored_samples(reader: Reader, latency_key: str) -> Samples | None:
    """Return the samples that count for a latency key, declared or not; None where there are none.

    Rounds over far fewer inputs than the others are left out, as in `strategy_evidence`.
    """
    of_key = f"WHERE measurement_id IN (SELECT id FROM measurement WHERE {_OF_KEY})"
    queries = (_MEASUREMENTS.format(keys=":key"), _SAMPLES.format(condition=of_key))
    series = _series_by_key(reader, *queries, {"key": latency_key}).get(latency_key)
    if series is None or not series.latency_s:
        return None
    index = {name: position for position, name in enumerate(sorted(set(series.input_ids)))}
    inputs = np.array([index[name] for name in series.input_ids], dtype=np.int64)
    design = StoredDesigns(reader).of(series.designed)
    return Samples.from_arrays(series.latency_s, np.array(series.round, dtype=np.int64), inputs, design=design)


def _declared(reader: Reader, subject: str | None) -> Sequence[Any]:
    condition = "WHERE declared" if subject is None else "WHERE declared AND subject = :subject"
    return fetch_stored(reader, "strategy", f"{condition} ORDER BY environment_id, id", subject=subject)


def slo_evidence(reader: Reader) -> tuple[SloEvidence, ...]:
    """Return the targets by name, each as declared last."""
    return tuple(map(_slo, sorted(fetch_stored(reader, "slo"), key=lambda target: str(target.name))))


def subject_slo_evidence(reader: Reader) -> Mapping[str, Mapping[str, SloEvidence]]:
    """Return the targets of the subjects that a catalog declares here, by subject and name."""
    targets: dict[str, dict[str, SloEvidence]] = {}
    for row in sorted(fetch_stored(reader, "subject_slo"), key=lambda target: str(target.name)):
        targets.setdefault(row.subject, {})[row.name] = _slo(row)
    return targets


def _slo(row: Any) -> SloEvidence:
    return SloEvidence(
        name=row.name,
        # JSON has text keys alone.
        latency_s={float(percentile): limit for percentile, limit in row.latency.items()},
        max_drop_pp=row.accuracy.get("max_drop_pp"),
        min_pct=row.accuracy.get("min_pct"),
    )


@dataclass
class _Series:
    """The samples of one latency key, as lists while they are read."""

    sample_ids: list[int] = field(default_factory=list)
    input_ids: list[str] = field(default_factory=list)
    repetition: list[int] = field(default_factory=list)
    latency_s: list[float] = field(default_factory=list)
    round: list[int] = field(default_factory=list)
    rounds: list[RoundEvidence] = field(default_factory=list)
    inputs_select: str | None = None
    first_measurement: int | None = None
    files: set[int] = field(default_factory=set)
    designed: list[DesignedSample] = field(default_factory=list)

    def append(self, measurement: Any, rows: Sequence[Any]) -> None:
        """Take in the samples of one measurement."""
        self.sample_ids += [row[0] for row in rows]
        self.input_ids += [row[2] for row in rows]
        self.repetition += [row[3] for row in rows]
        self.latency_s += [row[4] for row in rows]
        self.designed += [(measurement.id, row[2], row[5]) for row in rows]
        self.round += [measurement.round] * len(rows)
        self.rounds.append(
            RoundEvidence(
                round=measurement.round,
                verdict=measurement.verdict,
                reason=measurement.reason,
                samples=len(rows),
                started_at=measurement.started_at,
                finished_at=measurement.finished_at,
                look=measurement.look,
                error_share=measurement.error_share,
                testbed=measurement.testbed,
            )
        )
        self.inputs_select = self.inputs_select or measurement.inputs_select
        self.first_measurement = self.first_measurement or measurement.id
        self.files |= set() if measurement.imported_file_id is None else {measurement.imported_file_id}


class _LoadedEvidence:
    """Everything fetched at once, and what assembles one strategy of it."""

    def __init__(self, reader: Reader, declared: Sequence[Any], subject: str | None, read: ReadAccuracies) -> None:
        self._declared = declared
        self._series = _load_series(reader, subject)
        self._designs = StoredDesigns(reader)
        self._conditions = _load_conditions(reader, self._series.values())
        self._sent = _load_sent(reader, self._series, subject)
        self._accuracies = _load_accuracies(reader, {row.accuracy_key for row in declared}, read)
        self._tiers = environment_tiers(reader)
        self._origins = _load_origins(reader)
        self._environments = _load_environments(reader, self._origins)
        self._accuracy_files = _load_accuracy_files(reader)
        self._artifacts = {row.key: row for row in fetch_stored(reader, "artifact")}
        self._inputs = self._shared_inputs()
        self._tier_use = tier_use(reader)
        self._verdicts = verdict_counts(reader)

    def assemble(self, row: Any) -> StrategyEvidence:
        """Return one strategy's evidence."""
        series = self._series.get(row.latency_key, _Series())
        # One list for all strategies of the subject, by whose positions samples pair.
        input_ids = self._inputs[row.subject, row.environment_id]
        index = {name: position for position, name in enumerate(input_ids)}
        artifact = self._artifacts.get(row.artifact_key)
        identity = self._reference(row)
        return StrategyEvidence(
            subject=row.subject,
            operator=row.operator,
            placement=row.placement,
            tiers=tuple(row.tiers),
            passes=tuple(row.passes),
            task=row.task,
            environment=self._environments[row.environment_id],
            status=row.status,
            reason=row.reason,
            artifact_key=row.artifact_key,
            latency_key=row.latency_key,
            accuracy_key=row.accuracy_key,
            rounds_declared=row.rounds,
            latency_s=np.array(series.latency_s, dtype=np.float64),
            round=np.array(series.round, dtype=np.int64),
            input_index=np.array([index[name] for name in series.input_ids], dtype=np.int64),
            repetition=np.array(series.repetition, dtype=np.int64),
            input_ids=input_ids,
            design=self._designs.of(series.designed),
            sent_bytes_by_link=self._sent.get(row.latency_key, {}),
            rounds=tuple(series.rounds),
            inputs_select=series.inputs_select,
            conditions=self._conditions.get(series.first_measurement, {}),
            accuracy=self._accuracies.get(row.accuracy_key),
            reference=self._accuracies[identity.accuracy_key] if identity else None,
            reference_placement=identity.placement if identity else None,
            size_bytes=artifact.size_bytes if artifact else None,
            files=tuple(ArtifactFile(**file) for file in artifact.files) if artifact else (),
            tier_use=self._tier_use.get(row.latency_key, {}),
            verdicts=self._verdicts.get(row.latency_key, {}),
            tier_order=self._tiers[row.environment_id].order,
            client=self._tiers[row.environment_id].client,
            artifact_details=artifact.details if artifact and artifact.details else {},
            origins=tuple(
                self._origins[file] for file in sorted(series.files | self._accuracy_files.get(row.accuracy_key, set()))
            ),
        )

    def _shared_inputs(self) -> dict[tuple[str, int], tuple[str, ...]]:
        names: dict[tuple[str, int], set[str]] = {}
        for row in self._declared:
            series = self._series.get(row.latency_key, _Series())
            names.setdefault((row.subject, row.environment_id), set()).update(series.input_ids)
        return {group: tuple(sorted(members)) for group, members in names.items()}

    def _reference(self, row: Any) -> Any:
        """Return identity of the same subject and environment: on the same placement, else with the same provider."""
        own = self._accuracies.get(row.accuracy_key)
        if own is None:
            return None
        identities = [
            identity
            for identity in self._declared
            if not identity.passes and (identity.subject, identity.environment_id) == (row.subject, row.environment_id)
        ]
        usable = [
            identity
            for identity in identities
            if (accuracy := self._accuracies.get(identity.accuracy_key))
            and accuracy.metric == own.metric
            and (identity.placement == row.placement or accuracy.provider == own.provider)
        ]
        # False sorts before True: the same placement first, then by name, whatever the order of the rows.
        return min(usable, key=lambda identity: (identity.placement != row.placement, identity.placement), default=None)


def _load_origins(reader: Reader) -> dict[int, Origin]:
    files = fetch_stored(reader, "imported_file")
    labels = file_labels(files)
    return {row.id: Origin(**values_of(row, FileBase) | {"name": labels[row.id]}, id=row.id) for row in files}


def _load_accuracy_files(reader: Reader) -> dict[str, set[int]]:
    """Load by accuracy key the files that brought it."""
    query = f"SELECT key, imported_file_id FROM accuracy WHERE {ACCURACY_COUNTS}"
    files: dict[str, set[int]] = defaultdict(set)
    for key, file_id in fetch(reader, query):
        files[key] |= set() if file_id is None else {file_id}
    return files


def _load_environments(reader: Reader, origins: Mapping[int, Origin]) -> dict[int, EnvironmentEvidence]:
    environments = {}
    for row in fetch_stored(reader, "environment"):
        origin = origins.get(row.imported_file_id)
        values = {name: value for name, value in vars(row).items() if name != "imported_file_id"}
        evidence = EnvironmentEvidence(**values, origin=origin)
        environments[evidence.id] = evidence
    return environments


def _load_series(reader: Reader, subject: str | None) -> dict[str, _Series]:
    """Load the samples of declared strategies by latency key, in order of round and sequence."""
    query = _SAMPLES.format(condition="" if subject is None else _SAMPLES_OF_SUBJECT)
    keys = _DECLARED_KEYS.format(column="latency_key")
    return _series_by_key(reader, _MEASUREMENTS.format(keys=keys), query, {"subject": subject})


def _series_by_key(
    reader: Reader, measurements_query: str, samples_query: str, values: Mapping[str, Any]
) -> dict[str, _Series]:
    measurements = fetch(reader, measurements_query, **values)
    samples: dict[int, list[Any]] = {row.id: [] for row in measurements}
    # A query without a condition takes no parameter.
    for row in stream(reader, samples_query, **(values if ":" in samples_query else {})):
        # The query returns the samples of measurements that do not count as well.
        if row[1] in samples:
            samples[row[1]].append(row)
    series_by_key: dict[str, _Series] = defaultdict(_Series)
    for measurement in _wide(measurements, samples):
        series_by_key[measurement.latency_key].append(measurement, samples[measurement.id])
    return dict(series_by_key)


def _wide(measurements: Sequence[Any], samples: Mapping[int, Sequence[Any]]) -> Iterator[Any]:
    """Yield the measurements that describe their strategy together: those over far fewer inputs are left out."""
    # groupby joins neighbours only: `_MEASUREMENTS` is ordered by the key.
    for _, rows in groupby(measurements, key=lambda row: row.latency_key):
        members = list(rows)
        # Inputs that are certain to be measured are in the first round alone and make it no wider.
        inputs = {
            row.round: len({sample[2] for sample in samples[row.id] if sample[5] != "certainty"}) for row in members
        }
        wide = wide_rounds(inputs)
        yield from (row for row in members if row.round in wide)


def _load_conditions(reader: Reader, series: Iterable[_Series]) -> dict[int | None, Mapping[str, Any]]:
    """Load the conditions of one measurement per key; they are in the key, so all rounds share them."""
    first_measurements = {one_series.first_measurement for one_series in series} - {None}
    rows = fetch_stored(reader, "measurement", _one_of(first_measurements), columns=("id", "conditions"))
    return {row.id: row.conditions for row in rows}


def _one_of(ids: set[int | None]) -> str:
    # Numbers of rows, which may stand in a statement as they are.
    return f"WHERE id IN ({', '.join(map(str, sorted(ids, key=str)))})" if ids else "WHERE FALSE"


def _load_sent(
    reader: Reader, series_by_key: Mapping[str, _Series], subject: str | None
) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Load bytes sent by latency key and link, aligned with the samples; zero where a sample did not use the link."""
    place = {
        sample_id: (key, position)
        for key, series in series_by_key.items()
        for position, sample_id in enumerate(series.sample_ids)
    }
    sent: dict[str, dict[str, NDArray[np.int64]]] = {}
    query = _SENT.format(of_subject="" if subject is None else _SENT_OF_SUBJECT)
    for sample_id, link, sent_bytes in stream(reader, query, **({} if subject is None else {"subject": subject})):
        # Of a measurement that does not count, or of a round that `_wide` left out.
        if sample_id not in place:
            continue
        key, position = place[sample_id]
        by_link = sent.setdefault(key, {})
        if link not in by_link:
            by_link[link] = np.zeros(len(series_by_key[key].sample_ids), dtype=np.int64)
        by_link[link][position] = sent_bytes
    return sent


def _load_accuracies(reader: Reader, keys: set[str], read: ReadAccuracies) -> dict[str, AccuracyEvidence]:
    """Load complete accuracies with their items."""
    complete = fetch_stored(reader, "accuracy", f"WHERE {ACCURACY_COUNTS}")
    rows = [row for row in complete if row.key in keys]
    new = [row for row in rows if _place(row) not in read]
    hits = _grouped(reader, "SELECT item_id, top1, top5 FROM accuracy_item", new)
    query = "SELECT item_id, class_id, intersection_px, union_px FROM accuracy_class_item"
    pixels = _grouped(reader, query, new)
    read |= {_place(row): _accuracy(row, hits[row.id], pixels[row.id]) for row in new}
    # A service keeps `read` for as long as it runs: without this it would only grow.
    for unused in read.keys() - {_place(row) for row in rows}:
        del read[unused]
    return {row.key: read[_place(row)] for row in rows}


def _place(row: Any) -> tuple[int, str, str]:
    """Identify a row: its number may be reused after it was deleted; its key at that moment is not."""
    return row.id, row.key, row.finished_at


def _grouped(reader: Reader, query: str, accuracies: Sequence[Any]) -> dict[int | None, list[Any]]:
    grouped: dict[int | None, list[Any]] = defaultdict(list)
    for row in accuracies:
        items = stream(reader, f"{query} WHERE accuracy_id = :id", id=row.id)
        # Sorted here: databases order texts each in their own way.
        grouped[row.id] = sorted(items)
    return grouped


def _accuracy(row: Any, hits: Sequence[Any], pixels: Sequence[Any]) -> AccuracyEvidence:
    """Return one accuracy; `hits` and `pixels` are sorted by item."""
    # An agreement is stored as top-1.
    primary = {"top1": row.top1_pct, "miou": row.miou_pct}.get(row.metric_primary, row.top1_pct)
    item_ids = [hit[0] for hit in hits] or sorted({pixel[0] for pixel in pixels})
    class_ids = sorted({pixel[1] for pixel in pixels})
    at_item, at_class = {name: i for i, name in enumerate(item_ids)}, {name: i for i, name in enumerate(class_ids)}
    counts = np.zeros((2, len(item_ids) if pixels else 0, len(class_ids)), dtype=np.int64)
    if pixels:
        items, classes, *counted = zip(*pixels, strict=True)
        counts[:, [at_item[name] for name in items], [at_class[number] for number in classes]] = counted
    return AccuracyEvidence(
        metric=row.metric_primary,
        accuracy_pct=float("nan") if primary is None else primary,
        top1_pct=row.top1_pct,
        top5_pct=row.top5_pct,
        miou_pct=row.miou_pct,
        provider=row.provider,
        items=row.items,
        item_ids=tuple(item_ids),
        top1=np.array([hit[1] for hit in hits], dtype=np.bool_),
        top5=np.array([hit[2] for hit in hits], dtype=np.bool_),
        class_ids=np.array(class_ids, dtype=np.int64),
        intersection_px=counts[0],
        union_px=counts[1],
        class_counts=row.class_counts,
    )
