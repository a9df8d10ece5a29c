"""The question of `runner recommend --measure`, answered from the evidence where that proves the answer already."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from catalog.declaration import Catalog
from catalog.errors import DatabaseMissingError
from catalog.evidence.database import Database, open_database
from catalog.evidence.lookups import accuracy_done, inapplicable_artifacts, unequal_compositions
from catalog.evidence.queries import Reader
from catalog.evidence.soundness import sound_database
from recommender.answer.respond import constraints_of, resolve_budgets, respond
from recommender.evidence.loading import load
from recommender.evidence.model import Evidence
from recommender.ranking.model import Budgets, declared_breaches
from recommender.schemas import RecommendRequest, RecommendResponse
from runner.commands.kept_plan import KeptPlan, PlanMemory, StrategyKeys
from runner.commands.question import QuestionOptions
from runner.commands.question_catalog import CatalogSubject, OwnData, check_declared, find_subject, subject_name
from runner.commands.terminal import err


@dataclass(frozen=True)
class PreparedQuestion:
    """A question whose evidence is there; `environment` is the key of the one that it was measured in.

    Other environments may hold evidence that is more complete, or newer, and are not meant. `answer` is the answer
    where it had to be found to see that nothing is to be measured.
    """

    request: RecommendRequest
    environment: str | None = None
    answer: RecommendResponse | None = None


def prepared_question(
    subject: str,
    options: QuestionOptions,
    own: OwnData,
    *,
    wait_s: float | None,
    catalog: Path | None,
    database: str,
) -> PreparedQuestion:
    """Return the question to ask of the evidence, once what it lacks was measured; `wait_s` is None without measuring.

    Raises
    ------
    typer.BadParameter
        For options that do not go together.
    RunnerError
        As `find_subject` and `measure_for`.
    """
    if wait_s is not None:
        declared = find_subject(subject, catalog, own)
        request = measurable_request(declared, options)
        memory = PlanMemory(declared, launcher=options.launcher or "auto", scale=options.scale or "1")
        kept = memory.find()
        answer = None if kept is None else _known_answer(kept, request, declared.catalog, database)
        if kept is not None and answer is not None:
            err.print("Nothing had to be measured.")
            return PreparedQuestion(request, kept.environment, answer)
        # Imported here: measuring needs libraries that would cost a question most of its second.
        from runner.commands.measured_question import measure_for

        return measure_for(declared, options, database, wait_s, memory=memory)
    if own.named:
        raise typer.BadParameter("it goes with --measure", param_hint=" and ".join(own.named))
    return PreparedQuestion(options.request(subject_name(subject, catalog)))


def measurable_request(subject: CatalogSubject, options: QuestionOptions) -> RecommendRequest:
    """Return the request of a question that measures; raise for one that measuring cannot answer.

    `--launcher` and `--scale` say how to measure, not which evidence is meant.
    """
    request = replace(options, launcher=None, scale=None).request(subject.name)
    if request.links:
        raise typer.BadParameter(
            "an answer for other links is predicted; declare the link so in the catalog and measure it there",
            param_hint="--measure with --link",
        )
    check_declared(request, subject.catalog)
    return request


def _known_answer(
    kept: KeptPlan, request: RecommendRequest, catalog: Catalog, database: str
) -> RecommendResponse | None:
    """Return the answer if the evidence proves it for these keys."""
    # What would be measured here is checked against these by what measures.
    if request.host is not None or request.environment not in (None, kept.environment):
        return None
    try:
        opened = open_database(database)
    except DatabaseMissingError:
        return None
    with opened:
        with sound_database(opened).reading() as reading:
            if sorted(unequal_compositions(reading)) != list(kept.unequal):
                return None
        evidence = environment_evidence(opened, request.subject, kept.environment)
        if request.slo is not None and not _slo_stands(evidence, request, catalog):
            return None
        return proven_answer(opened, evidence, request, kept.strategies)


def _slo_stands(evidence: Evidence, request: RecommendRequest, catalog: Catalog) -> bool:
    """Return whether the stored target is the declared one: a catalog may have been changed, or another one used."""
    assert request.slo is not None
    declared, stored = catalog.slos[request.slo], evidence.slos_of(request.subject).get(request.slo)
    return stored is not None and (
        (dict(stored.latency_s), stored.max_drop_pp, stored.min_pct)
        == (dict(declared.latency_s), declared.accuracy.max_drop_pp, declared.accuracy.min_pct)
    )


def environment_evidence(database: Database, subject: str, environment: str) -> Evidence:
    """Return what is known of a subject in one environment."""
    return load(sound_database(database), subject=subject).within(environment)


def proven_answer(
    database: Database, evidence: Evidence, request: RecommendRequest, strategies: Sequence[StrategyKeys]
) -> RecommendResponse | None:
    """Return the answer if it is proven and every strategy was measured as it is declared now."""
    measured = {
        (strategy.operator, strategy.placement): strategy.latency_evidence_id
        for member in evidence.subjects.get(request.subject, ())
        for strategy in member.strategies
        if strategy.candidate is not None
    }
    with sound_database(database).reading() as reading:
        inapplicable = inapplicable_artifacts(reading)
        applying = [keys for keys in strategies if keys.artifact_key not in inapplicable]
        if _lacks_accuracy(applying, request, resolve_budgets(evidence, request), reading):
            return None
    admitted = [keys for keys in applying if _admits(request, keys)]
    if not measured or any(measured.get((keys.operator, keys.placement)) != keys.latency_key for keys in admitted):
        return None
    answer = respond(evidence, request)
    impossible = answer.infeasible is not None and answer.infeasible.status == "proven"
    # Without a budget nothing is proven: the fastest may still be another one.
    return answer if impossible or (answer.status == "proven" and answer.budgets.any_set) else None


def _admits(request: RecommendRequest, keys: StrategyKeys) -> bool:
    return not declared_breaches(keys.operator, keys.tiers, None, constraints_of(request))


def _lacks_accuracy(
    strategies: Sequence[StrategyKeys], request: RecommendRequest, budgets: Budgets, reading: Reader
) -> bool:
    """Return whether a question needs an accuracy that was not measured; a drop needs that of identity, too."""
    if not needs_accuracies(budgets):
        return False
    needed = {keys.accuracy_key for keys in strategies if keys.judged and (keys.identity or _admits(request, keys))}
    return not all(accuracy_done(reading, key) for key in needed)


def needs_accuracies(budgets: Budgets) -> bool:
    """Return whether a question is about accuracy."""
    limited = budgets.min_accuracy_pct is not None or budgets.max_accuracy_drop_pp is not None
    return limited or budgets.objective == "accuracy"
