"""From the database to the evidence that questions are answered from."""

import json
import logging
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from catalog.evidence import AccuracyEvidence, Database, SloEvidence, StrategyEvidence, slo_evidence, strategy_evidence
from catalog.evidence.link_samples import StrategyParts, strategy_parts
from catalog.evidence.loading import ReadAccuracies
from catalog.statistics import AccuracyDrop, hit_drop, mean_iou_drop, pair_items
from recommender.errors import EvidenceUnavailable
from recommender.evidence.model import Environment, Evidence, ImportedFile, Known, Slo, SubjectEvidence
from recommender.ranking import Accuracy, Candidate, LatencyBudget
from recommender.ranking.candidates import same_evidence

# The same evidence gives the same bounds.
_SEED = 1


class AccuracyBounds:
    """Accuracies with their bounds, remembered from one snapshot to the next; `read` are the rows they come from."""

    def __init__(self) -> None:
        self._known: dict[Hashable, AccuracyDrop] = {}
        self._used: set[Hashable] = set()
        self.read: ReadAccuracies = {}

    def accuracy(self, row: StrategyEvidence) -> Accuracy | None:
        """Of one strategy; None while it has not been measured."""
        found = row.accuracy
        if found is None:
            return None
        return Accuracy(
            metric=found.metric,
            accuracy_pct=found.accuracy_pct,
            drop_pp=row.drop_pp,
            items=found.items,
            hits=found.top1 if found.top1.size else None,
            short=self._short(found) if found.intersection_px.size else None,
            drop=self._drop(row, found, row.reference) if row.reference is not None else None,
            remark=found.remark,
        )

    def forget_unused(self) -> None:
        """Drop what the snapshot just taken did not ask for."""
        self._known = {key: drop for key, drop in self._known.items() if key in self._used}
        self._used = set()

    def _short(self, found: AccuracyEvidence) -> AccuracyDrop:
        """Against a reference without error, whose intersections are its unions."""
        flawless, own = (found.union_px, found.union_px), (found.intersection_px, found.union_px)
        return self._once((*flawless, *own), lambda: mean_iou_drop(flawless, own, rng=_SEED))

    def _drop(self, row: StrategyEvidence, found: AccuracyEvidence, reference: AccuracyEvidence) -> AccuracyDrop | None:
        """Paired by item; None where either has no items."""
        items = pair_items(reference.item_ids, found.item_ids)
        if not items.reference.size:
            return None
        same = row.bit_identical
        if found.top1.size and reference.top1.size:
            hits = reference.top1[items.reference], found.top1[items.candidate]
            return self._once(hits, lambda: hit_drop(*hits, bit_identical=same), same)
        if found.intersection_px.size and np.array_equal(found.class_ids, reference.class_ids):
            first = reference.intersection_px[items.reference], reference.union_px[items.reference]
            second = found.intersection_px[items.candidate], found.union_px[items.candidate]
            return self._once(
                (*first, *second), lambda: mean_iou_drop(first, second, bit_identical=same, rng=_SEED), same
            )
        return None

    def _once(
        self, arrays: tuple[NDArray[np.generic], ...], compute: Callable[[], AccuracyDrop], same: bool = False
    ) -> AccuracyDrop:
        key = (same, *((array.shape, array.dtype.str, _digest(array)) for array in arrays))
        self._used.add(key)
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


def _digest(array: NDArray[np.generic]) -> bytes:
    return blake2b(np.ascontiguousarray(array).tobytes()).digest()


class LinkParts:
    """Belongs to one picture of the evidence and is forgotten with it; safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, int], tuple[StrategyParts, ...]] = {}

    def __call__(self, part: SubjectEvidence) -> tuple[StrategyParts, ...]:
        """Every applicable strategy of a subject in an environment; raises `EvidenceUnavailable`."""
        key = part.subject, part.environment.id
        with self._lock:
            if key not in self._kept:
                try:
                    with self._database.session() as session:
                        self._kept[key] = strategy_parts(session, *key)
                except SQLAlchemyError as error:
                    raise EvidenceUnavailable(f"the samples on the links cannot be read: {error}") from error
            return self._kept[key]


logger = logging.getLogger(__name__)
# The pass that makes int8 of a float model.
_QUANTIZING = "static_ptq"


def load(database: Database, bounds: AccuracyBounds | None = None, before: Evidence | None = None) -> Evidence:
    """Read everything in one transaction, so that the picture is of one moment.

    In SQLite every transaction is one; servers must be asked. A candidate that is as it was `before` stays the same
    object, so that what was computed of it is not computed again.
    """
    with database.session() as session:
        if database.engine.dialect.name != "sqlite":
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        drawn = bounds or AccuracyBounds()
        groups: dict[tuple[str, int], list[StrategyEvidence]] = {}
        for row in strategy_evidence(session, read=drawn.read):
            groups.setdefault((row.subject, row.environment.id), []).append(row)
        kept = _candidates(before)
        parts, left_out = [], list(database.left_out)
        for members in groups.values():
            try:
                parts.append(_subject(members, drawn, kept))
            except Exception as error:
                logger.exception("left out: subject %s", members[0].subject)
                left_out.append(f"subject {members[0].subject}: {type(error).__name__}; the log has more")
        drawn.forget_unused()
        return Evidence.of(parts, [_slo(row) for row in slo_evidence(session)], LinkParts(database), tuple(left_out))


_Kept = Mapping[tuple[str, int, str, str], Candidate]


def _candidates(evidence: Evidence | None) -> _Kept:
    """By subject, environment, operator and placement."""
    parts = [] if evidence is None else [part for subject in evidence.subjects.values() for part in subject]
    return {
        (part.subject, part.environment.id, candidate.operator, candidate.placement): candidate
        for part in parts
        for candidate in part.candidates
    }


def _subject(members: list[StrategyEvidence], bounds: AccuracyBounds, kept: _Kept) -> SubjectEvidence:
    first = members[0]
    it = first.environment
    started = [each.started_at for row in members for each in row.rounds]
    finished = [each.finished_at for row in members for each in row.rounds]
    floats = {(_passes(row), row.placement): row.operator for row in members}
    return SubjectEvidence(
        subject=first.subject,
        task=first.task,
        environment=Environment(
            id=it.id,
            key=it.key,
            launcher=it.launcher,
            scale=it.scale,
            host=it.host,
            cpu_model=it.cpu_model,
            cpu_count=it.cpu_count,
            onnxruntime=it.onnxruntime,
            created_at=it.created_at,
            imported_from=None if it.origin is None else it.origin.name,
            imported_files=tuple(ImportedFile(name, sha256) for name, sha256 in _files(members)),
        ),
        strategies=tuple(_known(row, bounds, floats, kept) for row in members),
        inputs_select=next((row.inputs_select for row in members if row.inputs_select is not None), None),
        last_measured_at=max(finished, default=it.created_at),
        first_measured_at=min(started, default=None),
    )


def _files(members: list[StrategyEvidence]) -> list[tuple[str, str]]:
    """Every file that evidence of these strategies came from, in the order they were imported."""
    origins = {origin.id: origin for row in members for origin in row.origins}
    return [(origin.name, origin.sha256) for _, origin in sorted(origins.items())]


def _known(row: StrategyEvidence, bounds: AccuracyBounds, floats: Mapping[tuple[str, str], str], kept: _Kept) -> Known:
    applicable = row.status != "inapplicable"
    unquantized = _passes(row, without=_QUANTIZING)
    candidate = candidate_of(row, bounds) if applicable and row.measured else None
    before = kept.get((row.subject, row.environment.id, row.operator, row.placement))
    if candidate is not None and before is not None and same_evidence(candidate, before):
        candidate = before
    return Known(
        operator=row.operator,
        placement=row.placement,
        status=row.status,
        reason=row.reason,
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
            (each.reason or "no reason").partition(":")[0] for each in row.rounds if each.verdict == "DOUBTFUL"
        ),
    )


def _passes(row: StrategyEvidence, *, without: str | None = None) -> str:
    """The operator's pipeline as one comparable text."""
    return json.dumps([step for step in row.passes if step.get("name") != without], sort_keys=True)


def _model_bytes(row: StrategyEvidence) -> dict[str, int]:
    """By tier: the files of the part that computes there."""
    found: dict[str, int] = {}
    for file in row.files:
        if file.part < len(row.tiers):
            found[row.tiers[file.part]] = found.get(row.tiers[file.part], 0) + file.size_bytes
    return found


def candidate_of(row: StrategyEvidence, bounds: AccuracyBounds) -> Candidate:
    """What ranking needs of a measured strategy."""
    masks = [row.round == each.round for each in row.rounds]
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
        round_numbers=tuple(each.round for each in row.rounds),
        memory_bytes={tier: it.memory_bytes for tier, it in row.tier_use.items() if it.memory_bytes is not None},
        model_bytes=_model_bytes(row),
        cpu_s={tier: it.cpu_s for tier, it in row.tier_use.items() if it.cpu_s is not None},
        client=_client(row),
        changed=row.changes_outputs,
        distance=row.output_distance,
    )


def _client(row: StrategyEvidence) -> str:
    """The first tier of the measured route; foreign evidence names none, and there it is the first one used."""
    route = row.conditions.get("tiers") or [{}]
    return str(route[0].get("name") or row.tiers[0])


def _sent(row: StrategyEvidence) -> float | None:
    """Imported evidence may not say what was sent: unknown is not nothing. On mobile alone nothing leaves."""
    if not row.sent_bytes_by_link and row.environment.origin is not None and row.tiers != ("mobile",):
        return None
    return float(np.median(row.sent_bytes))


def _no_accuracy(row: StrategyEvidence) -> str:
    if row.task == "any":
        return "the subject is declared without labels (task: any), so it has latencies only"
    return f"the accuracy of {row.operator} has not been measured yet"


def _doubts(row: StrategyEvidence) -> Iterator[str]:
    for each in row.rounds:
        if each.verdict == "DOUBTFUL":
            because = f" ({each.reason})" if each.reason else ""
            yield f"{row.operator} on {row.placement}: round {each.round} is marked doubtful{because}"


def _slo(row: SloEvidence) -> Slo:
    limits = tuple(LatencyBudget(percentile, max_s) for percentile, max_s in sorted(row.latency_s.items()))
    return Slo(row.name, limits, row.min_pct, row.max_drop_pp)
