"""The strategies of an answer as they are sent: what was measured of one, and how they all stand beside each other.

What does not depend on the question is made once per candidate. The standing of all is their order by latency, the
Pareto front, the coverage, and what an unmeasured one could change.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict
from weakref import WeakKeyDictionary

import scipy
from pydantic_core import to_json

from catalog.artifact_details import OutputDistance
from catalog.evidence.records import EnvironmentSummary, FileSummary, values_of
from catalog.units import parse_bit_rate
from recommender.answer.question_command import fill_command
from recommender.answer.wording import breach_words, cannot_show
from recommender.errors import UnknownStrategy
from recommender.evidence.model import DeclaredStrategy, Evidence, SubjectEvidence, latency_budgets
from recommender.ranking import (
    AccuracyMeasurement,
    Budgets,
    Candidate,
    Constraints,
    Estimate,
    Foresight,
    LatencyBudget,
    RankedAnswer,
    declared_breaches,
    estimate,
    pareto_front,
    shortfalls,
)
from recommender.ranking.candidates import CandidateCache
from recommender.ranking.model import Unit
from recommender.schemas import (
    AccuracyOut,
    AgreementOut,
    DistanceOut,
    EnvironmentOut,
    ImportedFileOut,
    LatencyBudgetOut,
    LatencyOut,
    NotConsideredOut,
    ResourcesOut,
    StrategyRow,
    SubjectRow,
)
from recommender.schemas.links import AskedLinkOut, PredictedFromOut
from recommender.schemas.resources import CoverageRow, SloOut, StandingOut, StandingsResponse
from recommender.whatif.model import Prediction


def asked_out(links: Mapping[str, str] | None) -> list[AskedLinkOut]:
    """Return the links of the question as they are sent."""
    return [AskedLinkOut(link=link, bit_per_s=parse_bit_rate(words)) for link, words in (links or {}).items()]


def source_out(foresight: Foresight | None) -> PredictedFromOut | None:
    """Return what a predicted latency rests on, as it is sent; None for a measured one."""
    return None if foresight is None else _source(foresight.links, foresight.settings, foresight.check)


def prediction_out(prediction: Prediction, links: Sequence[str]) -> PredictedFromOut:
    """Return what one prediction rests on, as it is sent."""
    return _source(links, prediction.settings, prediction.check)


def _source(links: Sequence[str], settings: int, check: float | None) -> PredictedFromOut:
    return PredictedFromOut(
        links=list(links), bandwidths_measured=settings, largest_check_error=check, in_words=in_words(settings, check)
    )


def in_words(settings: int, check: float | None) -> str:
    """Say from how much a prediction was made, and whether anything checked it."""
    if check is None:
        return "predicted from one measured bandwidth: the model of the link is trusted, nothing here checks it"
    return f"predicted from {settings} measured bandwidths; each from the others is off by {100 * check:.1f} % at most"


# Of each side of a two-sided 95 % interval.
_TAIL = 0.025
SEPARATOR = ":"

_latencies: CandidateCache[LatencyOut] = CandidateCache()
_accuracies: CandidateCache[AccuracyOut] = CandidateCache()
_distances: CandidateCache[DistanceOut] = CandidateCache()
_measured_fields: CandidateCache["MeasuredFields"] = CandidateCache()
# As long as the snapshot of the evidence.
_environments: WeakKeyDictionary[SubjectEvidence, EnvironmentOut] = WeakKeyDictionary()


class MeasuredFields(TypedDict):
    """What the measurements of a strategy say; no budget changes it."""

    id: str
    operator: str
    placement: str
    latency: LatencyOut
    accuracy: AccuracyOut | None
    distance: DistanceOut | None
    size_bytes: int | None
    sent_bytes: float | None
    resources: ResourcesOut
    pareto: bool


class StrategyFields(MeasuredFields):
    """What every place in an answer says of a strategy."""

    verdicts: Mapping[str, int]
    latency_evidence_id: str | None
    accuracy_evidence_id: str | None
    artifact_sha256: Mapping[str, str]


# By strategy, and not by candidate as the fields above.
_encoded_fields: CandidateCache[bytes] = CandidateCache(most=16)


class PlacedStrategy(NamedTuple):
    """A considered strategy at one place of an answer, and what this place adds to the fields of all, in order."""

    subject: str
    strategy: DeclaredStrategy
    estimate: Estimate
    pareto: bool
    added: dict[str, Any]

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of its model."""
        return {**strategy_fields(self.subject, self.strategy, self.estimate, pareto=self.pareto), **self.added}

    def json(self) -> bytes:
        """Return what its model would be encoded as, with the fields of all places encoded once."""
        key = self.subject, self.estimate.percentile, self.pareto
        return b"%b,%b" % (_encoded_fields.get(self.strategy, key, self._common)[:-1], encoded(self.added)[1:])

    def _common(self) -> bytes:
        return encoded(strategy_fields(self.subject, self.strategy, self.estimate, pareto=self.pareto))


def encoded(value: object) -> bytes:
    """Encode as models do: what is not finite is null."""
    return to_json(value, inf_nan_mode="null")


def strategy_id(subject: str, operator: str, placement: str) -> str:
    """Return an id such as `fashion-resnet:quantized:edge`; names in a catalog file contain no colon."""
    return SEPARATOR.join((subject, operator, placement))


def strategy_fields(subject: str, strategy: DeclaredStrategy, estimate: Estimate, *, pareto: bool) -> StrategyFields:
    """Return the fields of a considered strategy."""
    key = subject, estimate.percentile, pareto
    measured = _measured_fields.get(estimate.candidate, key, lambda: _measured(subject, estimate, pareto=pareto))
    # Not kept with the candidate: after a reload it may belong to a strategy of which more is known.
    return {
        **measured,
        "verdicts": strategy.verdicts,
        "latency_evidence_id": strategy.latency_evidence_id,
        "accuracy_evidence_id": strategy.accuracy_evidence_id,
        "artifact_sha256": strategy.artifact_sha256,
    }


def _measured(subject: str, estimate: Estimate, *, pareto: bool) -> MeasuredFields:
    candidate = estimate.candidate
    return {
        "id": strategy_id(subject, candidate.operator, candidate.placement),
        "operator": candidate.operator,
        "placement": candidate.placement,
        "latency": latency_out(estimate),
        "accuracy": accuracy_of(candidate),
        "distance": distance_of(candidate),
        "size_bytes": candidate.size_bytes,
        "sent_bytes": candidate.sent_bytes,
        "resources": _resources(candidate),
        "pareto": pareto,
    }


def latency_out(estimate: Estimate) -> LatencyOut:
    """Return a candidate's latency at the percentile of the question."""
    return _latencies.get(estimate.candidate, estimate.percentile, lambda: _latency(estimate))


def _latency(estimate: Estimate) -> LatencyOut:
    return LatencyOut(
        median_s=estimate.median_s,
        percentile=estimate.percentile,
        percentile_s=estimate.percentile_s,
        low_s=estimate.interval.low_s,
        high_s=estimate.interval.high_s,
        percentile_s_by_round=list(estimate.percentile_s_by_round),
        rounds=estimate.candidate.rounds,
        inputs=estimate.candidate.inputs,
        samples=estimate.candidate.samples,
        predicted=estimate.candidate.predicted is not None,
        predicted_from=source_out(estimate.candidate.predicted),
    )


def accuracy_of(candidate: Candidate) -> AccuracyOut | None:
    """Return a candidate's accuracy with its 95 % intervals."""
    accuracy = candidate.accuracy
    # Under one key: an accuracy is the same whatever the question is.
    return None if accuracy is None else _accuracies.get(candidate, None, lambda: _accuracy(accuracy))


def distance_of(candidate: Candidate) -> DistanceOut | None:
    """Return how far a candidate's outputs are from identity's; None for identity, and where it was not measured."""
    distance = candidate.distance
    if distance is None or not candidate.changed:
        return None
    return _distances.get(candidate, None, lambda: _distance(distance))


def _distance(distance: OutputDistance) -> DistanceOut:
    alike = distance.agreement
    return DistanceOut(
        inputs=distance.inputs,
        source=distance.source,
        relative_error=distance.relative_error,
        cosine=distance.cosine,
        finite=distance.finite,
        agreement=None
        if alike is None
        else AgreementOut(agreeing=alike.agreeing, items=alike.items, low=alike.low, high=alike.high),
        warning=distance.warning,
    )


def _accuracy(accuracy: AccuracyMeasurement) -> AccuracyOut:
    low, high = _accuracy_interval(accuracy)
    return AccuracyOut(
        metric=accuracy.metric,
        accuracy_pct=accuracy.accuracy_pct,
        low_pct=low,
        high_pct=high,
        drop_pp=accuracy.drop_pp,
        drop_low_pp=accuracy.drop.low_pp if accuracy.drop else None,
        drop_high_pp=accuracy.drop.high_pp if accuracy.drop else None,
        items=accuracy.items,
        remark=accuracy.remark,
    )


def _accuracy_interval(accuracy: AccuracyMeasurement) -> tuple[float | None, float | None]:
    """Return Clopper and Pearson's interval for hits; for mIoU the bootstrap's, against a flawless reference."""
    if accuracy.short is not None:
        # The accuracy is 100 less what the flawless reference is ahead, so the ends change places.
        return 100 - accuracy.short.high_pp, 100 - accuracy.short.low_pp
    if accuracy.hits is None:
        return None, None
    right, items = int(accuracy.hits.sum()), accuracy.hits.size
    # Clopper and Pearson (Biometrika 26, 1934): beta quantiles, which do not exist where none or all are right.
    low = scipy.special.betaincinv(right, items - right + 1, _TAIL) if right else 0.0
    high = scipy.special.betaincinv(right + 1, items - right, 1 - _TAIL) if right < items else 1.0
    return 100 * float(low), 100 * float(high)


def _resources(candidate: Candidate) -> ResourcesOut:
    return ResourcesOut(
        memory_bytes=dict(candidate.memory_bytes),
        model_bytes=dict(candidate.model_bytes),
        cpu_s=dict(candidate.cpu_s),
    )


# The default of a question (`RecommendRequest.latency_percentile`).
DEFAULT_PERCENTILE = 90.0


def strategy_rows(subject_evidence: SubjectEvidence) -> Iterator[StrategyRow]:
    """Yield every declared strategy of a subject in one environment, measured or not."""
    for strategy in subject_evidence.strategies:
        measured = estimate(strategy.candidate, DEFAULT_PERCENTILE) if strategy.candidate is not None else None
        yield StrategyRow(
            subject=subject_evidence.subject,
            operator=strategy.operator,
            placement=strategy.placement,
            environment=subject_evidence.environment.key,
            status=_status(strategy),
            reason=strategy.reason,
            latency=latency_out(measured) if measured else None,
            accuracy=accuracy_of(measured.candidate) if measured else None,
            distance=distance_of(measured.candidate) if measured else None,
            size_bytes=measured.candidate.size_bytes if measured else None,
            sent_bytes=measured.candidate.sent_bytes if measured else None,
        )


def subject_row(evidence: Evidence, subject: str) -> SubjectRow:
    """Return how far the evidence of a subject goes, in its default environment and the others."""
    subject_evidence = evidence.select(subject)
    return SubjectRow(
        subject=subject,
        task=subject_evidence.task,
        strategies=len(subject_evidence.strategies),
        measured=len(subject_evidence.candidates),
        tiers=_tiers(subject_evidence),
        environments=[environment_out(selection) for selection in evidence.subjects[subject]],
    )


def _tiers(subject_evidence: SubjectEvidence) -> list[str]:
    """Return the tiers of all placements, in the order of the longest ones: that of a request through them."""
    placements = sorted((strategy.tiers for strategy in subject_evidence.strategies), key=len, reverse=True)
    return list(dict.fromkeys(tier for tiers in placements for tier in tiers))


def environment_out(subject_evidence: SubjectEvidence) -> EnvironmentOut:
    """Return the environment of an answer as it is sent."""
    out = _environments.get(subject_evidence)
    if out is None:
        out = _environments[subject_evidence] = _environment_out(subject_evidence)
    return out


def _environment_out(subject_evidence: SubjectEvidence) -> EnvironmentOut:
    environment = subject_evidence.environment
    return EnvironmentOut(
        **values_of(environment, EnvironmentSummary),
        measured_at=subject_evidence.last_measured_at,
        imported_from=environment.imported_from,
        imported_files=[ImportedFileOut(**values_of(file, FileSummary)) for file in subject_evidence.files],
        complete=subject_evidence.complete,
    )


def _status(strategy: DeclaredStrategy) -> str:
    if not strategy.applicable:
        return "inapplicable"
    if strategy.candidate is None:
        return "missing"
    return "complete" if strategy.complete else "partial"


def find(evidence: Evidence, identity: str, environment: str | None = None) -> tuple[SubjectEvidence, DeclaredStrategy]:
    """Return the strategy of that id and the evidence that holds it; raise `UnknownStrategy`."""
    # Names in a catalog file contain no colon, so the first one ends the subject.
    subject, _, _ = identity.partition(SEPARATOR)
    if subject not in evidence.subjects:
        raise UnknownStrategy(identity, ())
    subject_evidence = evidence.select(subject, environment)
    ids = {
        strategy_id(subject, strategy.operator, strategy.placement): strategy
        for strategy in subject_evidence.strategies
    }
    if identity not in ids:
        # With the ids of the subject, from which the error names the nearest spelling.
        raise UnknownStrategy(identity, ids)
    return subject_evidence, ids[identity]


def standings(subject_evidence: SubjectEvidence, percentile: float) -> StandingsResponse:
    """Rank all measured strategies of a subject by the percentile and mark the Pareto front."""
    ordered = sorted(
        (estimate(candidate, percentile) for candidate in subject_evidence.candidates if candidate.samples), key=_speed
    )
    front = pareto_front([(measured.percentile_s, _labelled_pct(measured)) for measured in ordered])
    rows = [
        _standing(subject_evidence.subject, measured, rank, rank - 1 in front)
        for rank, measured in enumerate(ordered, start=1)
    ]
    return StandingsResponse(
        subject=subject_evidence.subject,
        percentile=percentile,
        environment=environment_out(subject_evidence),
        strategies=rows,
        without_accuracy=[row.id for row in rows if row.accuracy_pct is None],
    )


def coverage(evidence: Evidence) -> Iterator[CoverageRow]:
    """Yield how far each subject's declaration is measured in each environment."""
    for subject, by_environment in evidence.subjects.items():
        for subject_evidence in by_environment:
            yield _coverage(subject, subject_evidence)


def slos(evidence: Evidence) -> list[SloOut]:
    """Return the declared SLOs, sorted by name."""
    return [
        SloOut(
            name=name,
            latency=latency_budgets_out(latency_budgets(slo)),
            min_accuracy_pct=slo.min_pct,
            max_accuracy_drop_pp=slo.max_drop_pp,
        )
        for name, slo in sorted(evidence.slos.items())
    ]


def latency_budgets_out(budgets: Sequence[LatencyBudget]) -> tuple[LatencyBudgetOut, ...]:
    """Return limits on the latency as they are sent."""
    return tuple(LatencyBudgetOut(percentile=budget.percentile, max_s=budget.max_s) for budget in budgets)


def _coverage(subject: str, subject_evidence: SubjectEvidence) -> CoverageRow:
    applicable = [strategy for strategy in subject_evidence.strategies if strategy.applicable]
    unfinished = [strategy for strategy in applicable if not strategy.complete]
    missing = sum(strategy.candidate is None for strategy in unfinished)
    return CoverageRow(
        subject=subject,
        environment=subject_evidence.environment.key,
        declared=len(subject_evidence.strategies),
        complete=len(applicable) - len(unfinished),
        partial=len(unfinished) - missing,
        missing=missing,
        inapplicable=len(subject_evidence.strategies) - len(applicable),
        rounds=sum(strategy.candidate.rounds for strategy in applicable if strategy.candidate is not None),
        rounds_declared=sum(strategy.rounds_declared for strategy in applicable),
        to_measure=[strategy_id(subject, strategy.operator, strategy.placement) for strategy in unfinished],
        command=fill_command(subject_evidence.environment) if unfinished else None,
    )


def _standing(subject: str, estimate: Estimate, rank: int, pareto: bool) -> StandingOut:
    candidate = estimate.candidate
    accuracy = candidate.accuracy
    return StandingOut(
        id=strategy_id(subject, candidate.operator, candidate.placement),
        operator=candidate.operator,
        placement=candidate.placement,
        rank=rank,
        median_s=estimate.median_s,
        percentile_s=estimate.percentile_s,
        metric=accuracy.metric if accuracy else None,
        accuracy_pct=accuracy.accuracy_pct if accuracy else None,
        drop_pp=accuracy.drop_pp if accuracy else None,
        distance=distance_of(candidate),
        size_bytes=candidate.size_bytes,
        sent_bytes=candidate.sent_bytes,
        rounds=candidate.rounds,
        inputs=candidate.inputs,
        pareto=pareto,
    )


def _labelled_pct(estimate: Estimate) -> float | None:
    """Return the accuracy; None for agreement with identity, which says how alike outputs are, not how right."""
    accuracy = estimate.candidate.accuracy
    return accuracy.accuracy_pct if accuracy is not None and accuracy.from_labels else None


def _speed(estimate: Estimate) -> tuple[float, str, str]:
    # With the names, so that equal latencies keep one order.
    return estimate.percentile_s, estimate.candidate.operator, estimate.candidate.placement


_NO_BOUND = "nothing known rules it out: its latency is open"


def not_considered(
    subject_evidence: SubjectEvidence,
    answer: RankedAnswer,
    constraints: Constraints,
    unpredicted: Sequence[DeclaredStrategy],
) -> Iterator[NotConsideredOut]:
    """Yield every declared strategy without evidence, and whether its evidence could change the answer.

    No fill measures what was imported as rows, and none makes a prediction for `unpredicted`, which were measured.

    It could become the recommendation unless one of these is known already:

    - its operator cannot apply to the subject;
    - a constraint excludes it by what is declared (tiers, operators, the size of its model files);
    - its accuracy is known, its own or the same operator's at another placement (the model is the same file), and
      misses an accuracy budget, or cannot promise it even if it were the only candidate;
    - the objective is accuracy or size, something is recommended, and the known accuracy or size is worse.

    A bound on its latency from parts measured elsewhere is not used: another tier, another load, no sound bound.
    """
    accuracies = _operator_accuracies(subject_evidence)
    command = None if subject_evidence.environment.of_rows else fill_command(subject_evidence.environment)
    for strategy in subject_evidence.strategies:
        if strategy.candidate is None:
            accuracy = strategy.accuracy or accuracies.get(strategy.operator)
            excuse = _cannot_change(strategy, accuracy, answer, constraints)
            yield NotConsideredOut(
                operator=strategy.operator,
                placement=strategy.placement,
                reason=strategy.reason
                or ("not measured yet" if strategy.applicable else "the operator cannot apply here"),
                command=command if strategy.applicable and strategy not in unpredicted else None,
                could_change_answer=excuse is None,
                because=excuse or _NO_BOUND,
            )


def _operator_accuracies(subject_evidence: SubjectEvidence) -> dict[str, AccuracyMeasurement]:
    """Map operators to accuracies: an accuracy does not depend on where the model runs, up to rounding."""
    return {
        strategy.operator: strategy.accuracy
        for strategy in subject_evidence.strategies
        if strategy.accuracy is not None
    }


def _cannot_change(
    strategy: DeclaredStrategy, accuracy: AccuracyMeasurement | None, answer: RankedAnswer, constraints: Constraints
) -> str | None:
    if not strategy.applicable:
        return "the operator cannot apply to this subject"
    broken = declared_breaches(strategy.operator, strategy.tiers, strategy.model_bytes, constraints)
    if broken:
        return f"excluded by what is declared: {breach_words(broken[0])}"
    if accuracy is not None:
        excuse = _too_inaccurate(strategy, accuracy, answer.budgets) or _worse_accuracy(accuracy, answer)
        if excuse is not None:
            return excuse
    return _larger(strategy, answer)


def _too_inaccurate(strategy: DeclaredStrategy, accuracy: AccuracyMeasurement, budgets: Budgets) -> str | None:
    """Name an accuracy budget that the measured accuracy misses, or could not promise as the only candidate."""
    # Without latencies, because only budgets of accuracy are checked.
    alone = Candidate(strategy.operator, strategy.placement, strategy.tiers, (), inputs=0, accuracy=accuracy)
    accuracy_budgets = Budgets(
        min_accuracy_pct=budgets.min_accuracy_pct,
        max_accuracy_drop_pp=budgets.max_accuracy_drop_pp,
        confidence=budgets.confidence,
    )
    # A single candidate needs the lowest confidence, so a budget that fails here fails among others too.
    for shortfall in shortfalls(alone, accuracy_budgets, among=[alone]):
        beyond = shortfall.bound_over if shortfall.bound_over is not None else shortfall.over
        # Room for rounding: an accuracy exactly at its limit must not miss it by 1e-14.
        if beyond is not None and beyond > 1e-9:
            what = f"{accuracy.metric} {accuracy.accuracy_pct:.2f} %"
            if shortfall.over is not None and shortfall.over > 1e-9:
                return f"its accuracy is known ({what}) and misses {shortfall.budget}"
            reason = f"its accuracy is known ({what}) and cannot promise {shortfall.budget}"
            if shortfall.out_of_reach and shortfall.items is not None and shortfall.best_bound is not None:
                unit: Unit = "%" if shortfall.budget == "min_accuracy_pct" else "pp"
                return f"{reason}: {cannot_show(shortfall.items, shortfall.best_bound, unit)}"
            return reason
    return None


def _worse_accuracy(accuracy: AccuracyMeasurement, answer: RankedAnswer) -> str | None:
    best = answer.recommendation.candidate.accuracy if answer.recommendation else None
    if answer.budgets.objective == "accuracy" and best is not None and accuracy.accuracy_pct < best.accuracy_pct:
        return f"its accuracy is known ({accuracy.metric} {accuracy.accuracy_pct:.2f} %) and below the recommendation's"
    return None


def _larger(strategy: DeclaredStrategy, answer: RankedAnswer) -> str | None:
    best = answer.recommendation.candidate.size_bytes if answer.recommendation else None
    if answer.budgets.objective != "size" or best is None or strategy.model_bytes is None:
        return None
    larger = sum(strategy.model_bytes.values()) > best
    return "its model files are known and larger than the recommendation's" if larger else None
