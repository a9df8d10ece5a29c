"""From the database to the evidence that questions are answered from."""

import json
import logging
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from hashlib import blake2b
from statistics import median

import numpy as np
from numpy.typing import NDArray

from catalog.evidence.changes import EvidenceDigests, SubjectPlace, evidence_digests
from catalog.evidence.database import Database, reading_errors
from catalog.evidence.link_samples import LinkedStrategy, linked_strategies
from catalog.evidence.loading import ReadAccuracies, slo_evidence, strategy_evidence, subject_slo_evidence
from catalog.evidence.queries import Reader
from catalog.evidence.records import Applicability, values_of
from catalog.evidence.strategy_evidence import AccuracyEvidence, Origin, StrategyEvidence
from catalog.statistics.drops import AccuracyDrop, hit_drop, mean_iou_drop, pair_items, separate_drop
from catalog.statistics.families import condition_chains
from recommender.errors import EvidenceUnavailable
from recommender.evidence.model import (
    DeclaredStrategy,
    Evidence,
    SubjectEvidence,
)
from recommender.ranking import AccuracyMeasurement, Candidate
from recommender.ranking.candidates import same_evidence

# The same evidence gives the same bounds.
_SEED = 1


class AccuracyBounds:
    """Accuracies with their bounds, remembered from one snapshot to the next; `read` are the rows they come from.

    A bound is computed by the first question that needs it, so that the first answer does not wait for the bounds of
    every other subject.
    """

    def __init__(self) -> None:
        self._drops: dict[Hashable, AccuracyDrop] = {}
        self._used: set[Hashable] = set()
        self._new: list[AccuracyDrop] = []
        self._measurements: dict[tuple[int, int], AccuracyMeasurement] = {}
        self.read: ReadAccuracies = {}

    def accuracy(self, row: StrategyEvidence) -> AccuracyMeasurement | None:
        """Return the accuracy of one strategy; None while it has not been measured."""
        accuracy = row.accuracy
        if accuracy is None:
            return None
        # By identity: an accuracy that equals identity's in every figure need not be identity's own.
        pair = id(accuracy), id(row.reference)
        if pair not in self._measurements:  # placements share an accuracy, and telling items apart hashes them all
            self._measurements[pair] = self._measurement(row, accuracy)
        return self._measurements[pair]

    def _measurement(self, row: StrategyEvidence, accuracy: AccuracyEvidence) -> AccuracyMeasurement:
        return AccuracyMeasurement(
            metric=accuracy.metric,
            accuracy_pct=accuracy.accuracy_pct,
            drop_pp=row.drop_pp,
            items=accuracy.items,
            hits=_hits(accuracy),
            short=self._short(accuracy) if accuracy.intersection_px.size else None,
            drop=self._drop(row, accuracy, row.reference) if row.reference is not None else None,
            remark=accuracy.remark,
        )

    def forget_unused(self, *, all_read: bool) -> None:
        """Drop what the last snapshot did not use, where it was read as a whole."""
        if all_read:
            self._drops = {key: drop for key, drop in self._drops.items() if key in self._used}
            self._used = set()
        self._measurements = {}

    def take_new(self) -> list[AccuracyDrop]:
        """Return the drops that no earlier snapshot had; the next call returns those that come later."""
        taken, self._new = self._new, []
        return taken

    def _short(self, accuracy: AccuracyEvidence) -> AccuracyDrop:
        """Compute the drop against a reference without error, whose intersections are its unions."""
        flawless, own = (accuracy.union_px, accuracy.union_px), (accuracy.intersection_px, accuracy.union_px)
        return self._once((*flawless, *own), lambda: mean_iou_drop(flawless, own, rng=_SEED))

    def _drop(
        self, row: StrategyEvidence, accuracy: AccuracyEvidence, reference: AccuracyEvidence
    ) -> AccuracyDrop | None:
        """Compute the drop paired by item; None where either side has no items."""
        items = pair_items(reference.item_ids, accuracy.item_ids)
        if not items.reference.size:
            return _separate_drop(row, reference, accuracy)
        same = row.bit_identical
        if accuracy.top1.size and reference.top1.size:
            hits = reference.top1[items.reference], accuracy.top1[items.candidate]
            return self._once(hits, lambda: hit_drop(*hits, bit_identical=same), same)
        # A mean over other classes is another quantity, so such accuracies have no paired drop.
        if accuracy.intersection_px.size and np.array_equal(accuracy.class_ids, reference.class_ids):
            first = reference.intersection_px[items.reference], reference.union_px[items.reference]
            second = accuracy.intersection_px[items.candidate], accuracy.union_px[items.candidate]
            return self._once(
                (*first, *second), lambda: mean_iou_drop(first, second, bit_identical=same, rng=_SEED), same
            )
        return None

    def _once(
        self, arrays: tuple[NDArray[np.generic], ...], compute: Callable[[], AccuracyDrop], same: bool = False
    ) -> AccuracyDrop:
        # By content, because a reload may bring new arrays with the same figures.
        key = (same, *((array.shape, array.dtype.str, _digest(array)) for array in arrays))
        self._used.add(key)
        if key not in self._drops:
            self._drops[key] = compute()
            self._new.append(self._drops[key])
        return self._drops[key]


def _hits(accuracy: AccuracyEvidence) -> NDArray[np.bool_] | None:
    """Return the hits; of an accuracy that came with the number of its items alone, as many in no known order."""
    if accuracy.top1.size:
        return accuracy.top1
    right = _right(accuracy)
    return None if right is None else np.arange(accuracy.items) < right


def _right(accuracy: AccuracyEvidence) -> int | None:
    """Return how many items are right, where their number is known and not which."""
    counted = accuracy.metric == "top1" and accuracy.items > 0 and not accuracy.item_ids
    return round(accuracy.accuracy_pct / 100 * accuracy.items) if counted else None


def _separate_drop(
    row: StrategyEvidence, reference: AccuracyEvidence, accuracy: AccuracyEvidence
) -> AccuracyDrop | None:
    """Compute the drop from the numbers of right items; None without them, and for what loses nothing anyway."""
    if not row.changes_outputs:
        return None
    reference_right, right = _right(reference), _right(accuracy)
    if reference_right is None or right is None:
        return None
    return separate_drop(reference_right, reference.items, right, accuracy.items)


def _digest(array: NDArray[np.generic]) -> bytes:
    return blake2b(np.ascontiguousarray(array).tobytes()).digest()


class LinkedStrategies:
    """What predictions start from, read at the first use and kept with its snapshot; safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, int], tuple[LinkedStrategy, ...]] = {}

    def __call__(self, subject_evidence: SubjectEvidence) -> tuple[LinkedStrategy, ...]:
        """Return every applicable strategy of a subject in an environment; raise `EvidenceUnavailable`."""
        key = subject_evidence.subject, subject_evidence.environment.id
        # Held while reading, so that two questions do not read the same samples twice.
        with self._lock:
            if key not in self._kept:
                try:
                    with self._database.reading() as reader:
                        self._kept[key] = linked_strategies(reader, *key)
                except reading_errors() as error:
                    raise EvidenceUnavailable(f"the samples on the links cannot be read: {error}") from error
            return self._kept[key]


logger = logging.getLogger(__name__)
# The pass that makes int8 of a float model.
_QUANTIZING = "static_ptq"


def load(
    database: Database,
    bounds: AccuracyBounds | None = None,
    before: Evidence | None = None,
    *,
    subject: str | None = None,
    rows: Sequence[StrategyEvidence] | None = None,
    changes: "SubjectChanges | None" = None,
) -> Evidence:
    """Read everything, or all of one subject, in one transaction, so that the snapshot is of one moment.

    A caller that has read the strategies already passes them as `rows`. With `changes`, subjects whose evidence is what
    it was when `before` was read are taken from there.

    A candidate that equals the one `before` stays
    the same object, so that its cached results stay valid.
    """
    with database.reading() as reader:
        drawn = bounds or AccuracyBounds()
        unchanged: tuple[SubjectEvidence, ...] = ()
        if rows is None and changes is not None and subject is None:
            unchanged, changed = changes.since(reader, before, drawn, is_whole=not database.left_out)
            rows = _changed_rows(reader, drawn, changed)
        elif rows is None:
            rows = strategy_evidence(reader, subject=subject, read=drawn.read)
        groups: dict[SubjectPlace, list[StrategyEvidence]] = {}
        for row in rows:
            groups.setdefault((row.subject, row.environment.id), []).append(row)
        kept = _candidates(before)
        loaded, left_out = list(unchanged), list(database.left_out)
        for members in groups.values():
            try:
                loaded.append(_subject(members, drawn, kept))
            # One subject whose rows no computation can take must not keep the others from being answered.
            except Exception as error:
                logger.exception("left out: subject %s", members[0].subject)
                left_out.append(f"subject {members[0].subject}: {type(error).__name__}; the log has more")
        drawn.forget_unused(all_read=not unchanged)
        linked, own = LinkedStrategies(database), subject_slo_evidence(reader)
        evidence = Evidence.of(loaded, slo_evidence(reader), linked, tuple(left_out), subject_slos=own)
        read_subjects = frozenset(name for name, _ in groups) if unchanged else None
        return replace(evidence, read_subjects=read_subjects)


def _changed_rows(reader: Reader, bounds: AccuracyBounds, subjects: Sequence[str] | None) -> Sequence[StrategyEvidence]:
    """Read the strategies of some subjects, or of all, which None stands for."""
    if subjects is None:
        return strategy_evidence(reader, read=bounds.read)
    rows: list[StrategyEvidence] = []
    for name in subjects:
        # A call leaves in `read` what it used alone; the accuracies of other subjects stay known.
        used = dict(bounds.read)
        rows += strategy_evidence(reader, subject=name, read=used)
        bounds.read |= used
    return rows


class SubjectChanges:
    """What tells which subjects changed in which environments since the evidence was last read."""

    def __init__(self) -> None:
        self._digests = EvidenceDigests()

    def since(
        self, reader: Reader, before: Evidence | None, bounds: AccuracyBounds, *, is_whole: bool
    ) -> tuple[tuple[SubjectEvidence, ...], Sequence[str] | None]:
        """Return the evidence that is what it was, and the subjects to read again; None for all.

        What `bounds` has of accuracies that changed is forgotten. Rows that are left out (`is_whole` is False) may come
        back with others: all is read then.
        """
        former, self._digests = self._digests, evidence_digests(reader) if is_whole else EvidenceDigests()
        accuracies = self._digests.accuracies
        bounds.read = {
            place: accuracy
            for place, accuracy in bounds.read.items()
            if (number := place[0]) in accuracies and accuracies[number] == former.accuracies.get(number)
        }
        before_by_place = {} if before is None else _by_place(before)
        subjects = self._digests.subjects
        # A subject that could not be computed is not in the evidence of before.
        changed = {
            place[0]
            for place, digest in subjects.items()
            if place not in before_by_place or former.subjects.get(place) != digest
        }
        if len(changed) == len({name for name, _ in subjects}):
            return (), None
        return tuple(before_by_place[place] for place in subjects if place[0] not in changed), sorted(changed)


def _by_place(evidence: Evidence) -> dict[SubjectPlace, SubjectEvidence]:
    return {
        (member.subject, member.environment.id): member
        for by_environment in evidence.subjects.values()
        for member in by_environment
    }


_Kept = Mapping[tuple[str, int, str, str], Candidate]


def _candidates(evidence: Evidence | None) -> _Kept:
    """Index the candidates by subject, environment, operator and placement."""
    subjects = {} if evidence is None else evidence.subjects
    return {
        (member.subject, member.environment.id, candidate.operator, candidate.placement): candidate
        for by_environment in subjects.values()
        for member in by_environment
        for candidate in member.candidates
    }


def _subject(members: list[StrategyEvidence], bounds: AccuracyBounds, kept: _Kept) -> SubjectEvidence:
    first = members[0]
    started = [measured.started_at for row in members for measured in row.rounds]
    finished = [measured.finished_at for row in members for measured in row.rounds]
    # To find, for a quantized strategy, the one with the same passes but the quantization.
    floats = {(_passes(row), row.placement): row.operator for row in members}
    return SubjectEvidence(
        subject=first.subject,
        task=first.task,
        environment=first.environment,
        strategies=tuple(_declared_strategy(row, bounds, floats, kept) for row in members),
        inputs_select=next((row.inputs_select for row in members if row.inputs_select is not None), None),
        last_measured_at=max(finished, default=first.environment.created_at),
        first_measured_at=min(started, default=None),
        files=_files(members),
    )


def _files(members: list[StrategyEvidence]) -> tuple[Origin, ...]:
    """List every file that evidence of these strategies came from, in the order of their import."""
    origins = {origin.id: origin for row in members for origin in row.origins}
    return tuple(origin for _, origin in sorted(origins.items()))


def _declared_strategy(
    row: StrategyEvidence, bounds: AccuracyBounds, floats: Mapping[tuple[str, str], str], kept: _Kept
) -> DeclaredStrategy:
    applicable = row.status != "inapplicable"
    unquantized = _passes(row, without=_QUANTIZING)
    candidate = candidate_of(row, bounds) if applicable and row.measured else None
    before = kept.get((row.subject, row.environment.id, row.operator, row.placement))
    if candidate is not None and before is not None and same_evidence(candidate, before):
        candidate = before
    return DeclaredStrategy(
        **values_of(row, Applicability),
        rounds_declared=row.rounds_declared,
        candidate=candidate,
        artifact_sha256={file.file: file.sha256 for file in row.files},
        judged=row.task != "any",
        tiers=row.tiers,
        latency_evidence_id=row.latency_key if row.verdicts else None,
        accuracy_evidence_id=row.accuracy_key if row.accuracy is not None else None,
        accuracy=candidate.accuracy if candidate is not None else bounds.accuracy(row),
        model_bytes=_model_bytes(row) if row.files else None,
        float_operator=floats.get((unquantized, row.placement)) if unquantized != _passes(row) else None,
        verdicts=dict(row.verdicts),
        doubts=tuple(
            (measured.reason or "no reason").partition(":")[0]
            for measured in row.rounds
            if measured.verdict == "DOUBTFUL"
        ),
        round_s=_round_s(row),
    )


def _round_s(row: StrategyEvidence) -> float | None:
    """Return the median duration of a round; None where foreign evidence has no durations."""
    moments = [(measured.started_at, measured.finished_at) for measured in row.rounds]
    spans = [datetime.fromisoformat(last) - datetime.fromisoformat(first) for first, last in moments]
    return median(span.total_seconds() for span in spans) if spans and all(spans) else None


def _passes(row: StrategyEvidence, *, without: str | None = None) -> str:
    """Return the operator's passes as one comparable text."""
    # Passes are the same whatever the order of their options.
    return json.dumps([step for step in row.passes if step.get("name") != without], sort_keys=True)


def _model_bytes(row: StrategyEvidence) -> dict[str, int]:
    """Sum the files of each part by the tier that computes it."""
    sizes: dict[str, int] = {}
    for file in row.files:
        if file.part < len(row.tiers):
            sizes[row.tiers[file.part]] = sizes.get(row.tiers[file.part], 0) + file.size_bytes
    return sizes


def candidate_of(row: StrategyEvidence, bounds: AccuracyBounds) -> Candidate:
    """Return what ranking needs of a measured strategy."""
    masks = [row.round == measured.round for measured in row.rounds]
    last = max(row.rounds, key=lambda measured: measured.round)
    return Candidate(
        operator=row.operator,
        placement=row.placement,
        tiers=row.tiers,
        latency_s=tuple(row.latency_s[mask] for mask in masks),
        inputs=min(np.unique(row.input_index[mask]).size for mask in masks),
        accuracy=bounds.accuracy(row),
        accuracy_missing=None if row.accuracy else _no_accuracy(row),
        size_bytes=row.size_bytes,
        sent_bytes=_sent(row),
        rounds_declared=row.rounds_declared,
        doubts=tuple(_doubts(row)),
        judged=row.task != "any",
        input_index=tuple(row.input_index[mask] for mask in masks),
        round_numbers=tuple(measured.round for measured in row.rounds),
        design=row.design.of(np.concatenate([np.flatnonzero(mask) for mask in masks])) if row.design else None,
        memory_bytes={tier: use.memory_bytes for tier, use in row.tier_use.items() if use.memory_bytes is not None},
        model_bytes=_model_bytes(row),
        cpu_s={tier: use.cpu_s for tier, use in row.tier_use.items() if use.cpu_s is not None},
        client=_client(row),
        changed=row.changes_outputs,
        distance=row.output_distance,
        looks=last.look or 1,
        error_share=1.0 if last.error_share is None else last.error_share,
        hosts=row.hosts or {},
    )


def _client(row: StrategyEvidence) -> str:
    """Return the first tier of the measured route, or the first one used where foreign evidence names no route."""
    route = condition_chains(row.conditions)[0]
    return route[0] if route else row.tiers[0]


def _sent(row: StrategyEvidence) -> float | None:
    """Return the median of bytes sent; None where imported evidence does not say.

    On the tier where requests start nothing is sent.
    """
    if not row.sent_bytes_by_link and row.environment.origin is not None and row.tiers != (row.client,):
        return None
    return float(np.median(row.sent_bytes))


def _no_accuracy(row: StrategyEvidence) -> str:
    if row.task == "any":
        return "the subject is declared without labels (task: any), so it has latencies only"
    return f"the accuracy of {row.operator} has not been measured yet"


def _doubts(row: StrategyEvidence) -> Iterator[str]:
    for measured in row.rounds:
        if measured.verdict == "DOUBTFUL":
            because = f" ({measured.reason})" if measured.reason else ""
            yield f"{row.operator} on {row.placement}: round {measured.round} is marked doubtful{because}"
