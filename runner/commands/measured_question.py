"""`runner recommend --measure`: measure what one question lacks, for so long at most, before it is answered.

The strategies of its subject that its constraints admit race until the answer is decided. Accuracies are measured where
the question has a budget of accuracy or the best by accuracy is asked for.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from catalog.analysis import settings_of
from catalog.console import labelled
from catalog.declaration import Strategy
from catalog.evidence.database import Database, open_database
from catalog.evidence.fill_lock import LockCheck
from catalog.evidence.loading import slo_evidence
from catalog.evidence.lookups import unequal_compositions
from catalog.evidence.reading import declared_subjects
from catalog.evidence.soundness import sound_database
from catalog.evidence.writing import sync_slos
from catalog.units import counted, duration, waiting
from recommender.answer.respond import constraints_of, resolve_budgets
from recommender.evidence.model import Evidence, begins_key
from recommender.ranking.model import declared_breaches
from recommender.ranking.racing import RaceQuestion
from recommender.schemas import RecommendRequest, RecommendResponse
from runner.artifacts.store import ArtifactStore
from runner.commands.fill_steps import (
    FleetProgress,
    FleetRequest,
    GroupProgress,
    TestbedGroup,
    clean_up,
    opened_fleet,
    setups_of,
)
from runner.commands.kept_plan import (
    DeclaredSubject,
    KeptPlan,
    PlanMemory,
    PreparedQuestion,
    StrategyKeys,
    environment_evidence,
    needs_accuracies,
    proven_answer,
)
from runner.commands.plan import run_context
from runner.commands.prepared_question import CatalogSubject, measurable_request
from runner.commands.progress import Progress, doubtful_summary
from runner.commands.question import MeasuringPlace, QuestionOptions
from runner.commands.terminal import RunnerSettings, err
from runner.errors import ModelFileError, RunnerError, SubjectError
from runner.graph.model_file import data_files
from runner.launchers.select import Selection, select_launcher
from runner.measuring.fill import Filler, FillOutcome, StopRequest
from runner.measuring.fleet.exclusive import exclusive_fill
from runner.measuring.fleet.worker import named
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.plan import FillScope, MissingAccuracy, MissingRound, Plan, make_plan, update_plan
from runner.measuring.race import Race, race_plan
from runner.measuring.setups import store_environment, sync_strategies
from runner.reports.answer import limits_in_words
from runner.reports.plan import tasks_in_words
from runner.reports.slo_status import store_results

# The reason why the other subjects of the catalog are left as they are.
_NOT_ASKED = ("the question is about another subject",)


def measure_for(
    subject: CatalogSubject,
    options: QuestionOptions,
    database: str,
    wait_s: float,
    *,
    memory: PlanMemory | None,
    place: MeasuringPlace,
) -> PreparedQuestion:
    """Measure what a question lacks, and return it with the environment in which it was measured.

    The keys of its strategies are kept in `memory` for the next question; None keeps none.

    Raises
    ------
    RunnerError
        For a question that measuring cannot answer, data or testbeds that are missing, and another fill of the same
        database.
    """
    request = measurable_request(subject, options)
    opened = _here(subject, options, database) if not place.options else _on(place, subject, options, database)
    # The locks first: a fill beside it would measure this one's load.
    with opened as testbed:
        _check_environment(request, testbed.context)
        question = _QuestionFill(testbed, request)
        # Before any file is read for a key: one that changes meanwhile is noticed.
        declared = subject.declared
        state = None if memory is None else memory.state(declared)
        try:
            answer = question.run(wait_s)
            if memory is not None:
                question.keep_keys(memory, declared, state)
        except KeyboardInterrupt:
            err.print("stopped; the answer is from what was measured so far")
            answer = None
    return PreparedQuestion(request, testbed.context.environment_key, answer)


@dataclass(frozen=True)
class _Testbed:
    """What a question is measured on, and the database that it is stored in; `group` where testbeds are named."""

    context: RunContext
    selection: Selection
    database: Database
    progress: Progress
    ensure: LockCheck
    group: TestbedGroup | None = None

    def prepare(self) -> None:
        """Remove what a killed run left, which would still load the host; named testbeds were prepared when opened."""
        if self.group is None:
            clean_up(self.selection, self.context.workdir)
            self.selection.launcher.prepare()

    def filler(self, environment_id: int) -> "_DisplayedFiller":
        """Return what measures, and where it shows how much is to come."""
        if self.group is not None:
            progress = FleetProgress(self.progress).group(0)
            filler = self.group.filler(self.context, self.database, environment_id, progress, self.ensure)
            return _DisplayedFiller(filler, progress)
        launcher, setups = self.selection.launcher, setups_of(self.context)
        filler_here = Filler(setups, self.database, launcher, environment_id, self.progress, ensure=self.ensure)
        return _DisplayedFiller(filler_here, self.progress)


@dataclass(frozen=True)
class _DisplayedFiller:
    """A filler and its display."""

    filler: Filler
    progress: Progress | GroupProgress


@contextmanager
def _here(subject: CatalogSubject, options: QuestionOptions, database: str) -> Iterator[_Testbed]:
    """Use this machine, or the engine that its own settings name, alone within the block."""
    settings = RunnerSettings()
    selection = select_launcher(options.launcher or "auto", base_image=settings.base_image)
    err.print(f"launcher: {selection.launcher.name} ({selection.reason})")
    context = run_context(subject.catalog, subject.base, selection, options.scale or "1")
    with (
        exclusive_fill(database, selection.launcher, settings.locks) as ensure,
        open_database(database, create=True) as opened,
    ):
        yield _Testbed(context, selection, opened, Progress(err, 0.0), ensure)


@contextmanager
def _on(place: MeasuringPlace, subject: CatalogSubject, options: QuestionOptions, database: str) -> Iterator[_Testbed]:
    """Use named testbeds alone within the block; raises RunnerError where they are of several environments."""
    request = FleetRequest(
        subject.catalog,
        subject.base,
        place.testbeds,
        place.scheduler,
        options.launcher or "auto",
        options.scale or "1",
    )
    with opened_fleet(request, database) as fleet:
        if len(fleet.groups) > 1:
            kinds = "; ".join(named(group.testbeds) for group in fleet.groups)
            raise RunnerError(
                f"these testbeds are {len(fleet.groups)} environments ({kinds}), and a question is answered from one; "
                "name testbeds of one environment with --on"
            )
        [group] = fleet.groups
        yield _Testbed(group.context, group.selection, fleet.database, fleet.progress, fleet.ensure, group)


def _check_environment(request: RecommendRequest, context: RunContext) -> None:
    """Raise RunnerError for a question of evidence that cannot be measured here."""
    if request.environment is not None and not begins_key(request.environment, context.environment_key):
        raise RunnerError(
            f"environment {request.environment} is not what would be measured here ({context.environment_key}); ask "
            "without --measure, or without --environment"
        )
    if request.host not in (None, context.host.fingerprint):
        raise RunnerError(
            f"host {request.host} is not this one ({context.host.fingerprint}); ask without --measure, or without "
            "--host"
        )


class _QuestionFill:
    """The fill that one question needs."""

    def __init__(self, testbed: _Testbed, request: RecommendRequest) -> None:
        self._testbed, self._context, self._database = testbed, testbed.context, testbed.database
        self._subject, self._request = request.subject, request
        self._planned: Plan
        context = testbed.context
        with self._database.writing_session() as writing:
            self._environment_id = store_environment(writing, context, testbed.selection)
            # The catalog of one question may be another one than that of the fills, whose targets stay.
            sync_slos(writing, context.catalog.slos, subjects=[self._subject], keep_others=True)
            writing.commit()
            evidence = Evidence.of((), slo_evidence(writing))
        budgets = resolve_budgets(evidence, request)
        self._question = RaceQuestion(limits_in_words(budgets), budgets, constraints_of(request))

    def run(self, wait_s: float) -> RecommendResponse | None:
        """Measure until the answer is decided, the time is over, or a stop is requested.

        Return the answer if it is proven without any measurement.
        """
        begun = time.monotonic()
        if lacks := self._context.subjects[self._subject].absent():
            raise SubjectError("; ".join(lacks))
        self._context.subjects[self._subject].prepare()
        plan, reference = self._plan()
        if self._subject in plan.unready:
            raise SubjectError("; ".join(plan.unready[self._subject]))
        answer = None if plan.accuracies or reference else self._proven(plan)
        if answer is None:
            plan = self._raced(plan)
        if answer is not None or not (plan.rounds or plan.accuracies or reference):
            err.print("Nothing had to be measured.")
            return answer
        building = self._building((*plan.rounds, *plan.accuracies, *reference))
        err.print(f"to measure: {tasks_in_words(plan)}{building}, for {waiting(wait_s)} at most")
        self._testbed.prepare()
        self._measure(plan, reference, ends=begun + wait_s)
        return None

    def _measure(self, plan: Plan, reference: Sequence[MissingAccuracy], *, ends: float) -> None:
        begun = time.monotonic()
        with self._testbed.progress as display, StopRequest(display).listening() as stop:
            displayed = self._testbed.filler(self._environment_id)
            filler, progress = displayed.filler, displayed.progress
            progress.expect(plan.estimate_s, rounds=len(plan.rounds))
            filler.build(plan, stop, ends=ends)
            built_in_time = time.monotonic() < ends
            # Building shows which operators do not apply and which parts need an accuracy of their own.
            plan = self._planned = update_plan(plan, self._context, sound_database(self._database))
            self._declare(plan)
            progress.expect(plan.estimate_s, rounds=len(plan.rounds))
            if (left_s := ends - time.monotonic()) < plan.estimate_s:
                # Until the first look says itself how long the race may take.
                progress.look((), 0, left_s)
            filler.judge(reference, stop)
            Race(filler, questions=[self._question], max_time_s=ends - time.monotonic()).run(plan, stop)
        _report(filler.outcome, time.monotonic() - begun)
        if not (built_in_time or stop.requested):
            err.print(
                "The time was over before a round began: the operators' models take long to build. Those that are "
                "built are kept; give the same command again, with a longer --measure"
            )
        # After a stop, the next fill computes them.
        if not stop.requested:
            store_results(self._database, settings_of(self._context.catalog.analysis))

    def _building(self, tasks: Sequence[MissingRound | MissingAccuracy]) -> str:
        """Say that models have to be built first, which no estimate includes: nobody knows before how long it takes."""
        store = ArtifactStore(self._context.workdir / "artifacts")
        unbuilt = sum(store.find(key) is None for key in {task.keyed.artifact_key for task in tasks})
        return f" and the time to build {counted(unbuilt, 'model')}" if unbuilt else ""

    def _plan(self) -> tuple[Plan, tuple[MissingAccuracy, ...]]:
        """Return what the question may lack, and the accuracies of identity that a drop is measured against."""
        strategies = [strategy for strategy in self._context.catalog.strategies() if strategy.subject == self._subject]
        admitted = tuple(strategy.name for strategy in strategies if self._admits(strategy))
        references = tuple(strategy.name for strategy in strategies if not strategy.passes)
        others = {name: _NOT_ASKED for name in self._context.catalog.subjects if name != self._subject}
        scope = FillScope(only=(*admitted, *references))
        planned = make_plan(self._context, sound_database(self._database), scope, unusable=others)
        accuracies = planned.accuracies if needs_accuracies(self._question.budgets) else ()
        # An empty scope would cover everything.
        covering = FillScope(only=admitted or ("none",), race=True)
        covered = tuple(task for task in accuracies if covering.covers(task.keyed.strategy))
        rounds = tuple(task for task in planned.rounds if covering.covers(task.keyed.strategy))
        plan = replace(planned, scope=covering, accuracies=covered, rounds=rounds)
        self._planned = plan
        return plan, tuple(task for task in accuracies if task not in covered)

    def _proven(self, plan: Plan) -> RecommendResponse | None:
        """Return the answer if it is proven and every strategy was measured as it is declared now."""
        evidence = environment_evidence(self._database, self._subject, self._context.environment_key)
        return proven_answer(self._database, evidence, self._request, self._keys(plan))

    def _keys(self, plan: Plan) -> tuple[StrategyKeys, ...]:
        judged = self._context.subjects[self._subject].metric is not None
        return tuple(
            StrategyKeys(
                keyed.strategy.operator,
                keyed.strategy.placement.name,
                keyed.strategy.placement.tiers,
                not keyed.strategy.passes,
                judged,
                keyed.artifact_key,
                keyed.accuracy_key,
                keyed.latency_key,
            )
            for keyed in plan.declared
        )

    def keep_keys(self, memory: PlanMemory, declared: DeclaredSubject, state: str | None) -> None:
        """Keep the keys of the strategies, as far as they are sure to be the same for the next question."""
        model = self._context.subjects[self._subject].model
        try:
            weights = data_files(model)
        except ModelFileError:
            # What cannot be read has keys of its own bytes alone.
            weights = ()
        with sound_database(self._database).reading() as reading:
            unequal = tuple(sorted(unequal_compositions(reading)))
        kept = KeptPlan(self._context.environment_key, self._keys(self._planned), unequal, declared)
        memory.keep(kept, state=state, weights=weights, launcher=self._testbed.selection.launcher.name)

    def _raced(self, plan: Plan) -> Plan:
        """Return the plan with the rounds that the question lacks until the next look."""
        return race_plan(plan, self._context, sound_database(self._database), questions=[self._question])

    def _admits(self, strategy: Strategy) -> bool:
        tiers, constraints = strategy.placement.tiers, self._question.constraints
        return not declared_breaches(strategy.operator, tiers, None, constraints)

    def _declare(self, plan: Plan) -> None:
        """Record the strategies of the subject as declared; those of other subjects, of other catalogs too, stay."""
        with self._database.writing_session() as writing:
            others = {name: _NOT_ASKED for name in declared_subjects(writing) if name != self._subject}
            unready = {**others, **plan.unready}
            sync_strategies(writing, replace(plan, unready=unready), self._environment_id, self._context)
            writing.commit()


def _report(outcome: FillOutcome, took_s: float) -> None:
    # Most questions have no budget of accuracy.
    accuracies = f" and {counted(outcome.accuracies, 'accuracy')}" if outcome.accuracies else ""
    err.print(f"measured {counted(outcome.measured, 'round')}{accuracies} in {duration(took_s)}")
    for line in (*outcome.failures, *outcome.invalid):
        err.print(labelled("failed", "red", line), soft_wrap=True)
    if outcome.doubtful:
        err.print(labelled("doubtful", "yellow", f"{doubtful_summary(outcome.doubtful)}; runner verify says why"))
