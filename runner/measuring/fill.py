"""Fill the catalog: artifacts, accuracies, then rounds over the missing strategies in shuffled order."""

import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol as Interface

from catalog.chance import chance_remark
from catalog.clock import utc_now
from catalog.declaration import Catalog
from catalog.evidence import (
    AccuracyRecord,
    Database,
    MeasurementRecord,
    record_accuracy,
    record_measurement,
    upsert_artifact,
)
from catalog.evidence.reading import latencies
from catalog.output_distance import output_distance
from runner.artifacts.calibration import subject_calibration
from runner.artifacts.store import NOT_VERIFIED, CachedArtifact
from runner.errors import ChangedFilesError, EngineUnavailableError, LaunchError, OperatorError, TierCallError
from runner.launchers import Launcher
from runner.measuring import records
from runner.measuring.experiment import evaluate, measure
from runner.measuring.keyed_strategy import KeyedStrategy
from runner.measuring.plan import MissingAccuracy, MissingRound, Plan
from runner.measuring.setups import Setups
from runner.measuring.stopping import Narrowness, assess, planned_looks, samples_of
from runner.operators import Pass
from runner.subjects.items import class_counts


class Watcher(Interface):
    """What a fill tells while it goes on (the terminal's progress bar, a test's list)."""

    def begin(self, what: str, estimate_s: float) -> None:
        """A task starts."""

    def advance(self, fraction: float) -> None:
        """The task is this far, 0 to 1."""

    def end(self, outcome: str) -> None:
        """The task ended: `ok`, or one line that says what went wrong."""


class StopRequest:
    """Ctrl-C once: finish the measurement in flight; twice: stop now."""

    def __init__(self, say: "Watcher") -> None:
        self._say = say
        self.requested = False

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Handle SIGINT and SIGTERM while the block runs."""
        previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested or number == signal.SIGTERM:
            raise KeyboardInterrupt
        self.requested = True
        self._say.end("stopping after the measurement in flight; press Ctrl-C again to stop now")


@dataclass
class FillOutcome:
    """What a fill did, counted."""

    measured: int = 0
    accuracies: int = 0
    inapplicable: int = 0
    failures: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    precision: list[str] = field(default_factory=list)
    stopped: bool = False

    @property
    def complete(self) -> bool:
        return not (self.failures or self.invalid or self.stopped)


@dataclass(frozen=True)
class _RequiredArtifact:
    """An artifact that evidence is to be measured with."""

    subject: str
    operator: str
    key: str
    passes: tuple[Pass, ...]
    declared: bool = True


def _required_artifacts(keyed: KeyedStrategy) -> Iterator[_RequiredArtifact]:
    """What a strategy runs, and what its accuracy is measured on where that is the uncut model."""
    subject, operator = keyed.strategy.subject, keyed.strategy.operator
    yield _RequiredArtifact(subject, operator, keyed.artifact_key, keyed.passes)
    if keyed.judged.artifact_key != keyed.artifact_key:
        yield _RequiredArtifact(
            subject, f"{operator} (uncut)", keyed.judged.artifact_key, keyed.judged.passes, declared=False
        )


@dataclass(frozen=True)
class Filler:
    """Executes a plan and stores each result as soon as it is there: `build`, then `measure` what is planned anew.

    `unbuilt` are the keys of the artifacts whose building failed: nothing is tried twice.
    """

    setups: Setups
    database: Database
    launcher: Launcher
    environment_id: int
    watcher: Watcher
    outcome: FillOutcome = field(default_factory=FillOutcome)
    unbuilt: set[str] = field(default_factory=set)

    def build(self, plan: Plan, stop: StopRequest) -> None:
        """Build what the missing evidence needs, each artifact once, and store what was found.

        What was built decides more than its files: an operator may turn out inapplicable, and parts that do not equal
        the model they were cut from are judged on their own. Plan again afterwards.
        """
        every = [wanted for keyed in plan.declared for wanted in _required_artifacts(keyed)]
        named = {wanted.key: wanted for wanted in sorted(every, key=lambda wanted: wanted.declared)}
        tasks: Sequence[MissingAccuracy | MissingRound] = (*plan.accuracies, *plan.rounds)
        needed = {wanted.key for task in tasks for wanted in _required_artifacts(task.keyed)}
        for wanted in named.values():
            if stop.requested:
                break
            found = self.setups.artifacts.find(wanted.key)
            if found is None and wanted.key in needed:
                found = self._build(wanted)
            if found is not None:
                self._store_artifact(wanted, found, found.reason)

    def measure(self, plan: Plan, stop: StopRequest, *, late: Callable[[], bool] = lambda: False) -> FillOutcome:
        """Do everything the plan lists; one failed measurement never stops the others, a container engine gone does.

        Rounds beyond the declared ones are left out once it is late.
        """
        for accuracy in plan.accuracies:
            if stop.requested:
                break
            if self._usable(accuracy.keyed, accuracy.keyed.judged.artifact_key):
                with self._reporting(accuracy.keyed):
                    self._judge(accuracy)
        for number, seed, task in _rounds(plan, self.setups.context.catalog.experiment.seed):
            if stop.requested:
                break
            if task.round > self.setups.context.catalog.experiment.rounds and late():
                continue
            if self._usable(task.keyed, task.keyed.artifact_key):
                with self._reporting(task.keyed):
                    self._measure(task, number, seed)
        self.outcome.stopped = stop.requested
        return self.outcome

    @contextmanager
    def _reporting(self, keyed: KeyedStrategy) -> Iterator[None]:
        """Report a strategy whose artifact cannot run on its tiers as failed; the others go on."""
        try:
            yield
        except OperatorError as error:
            self._fail(f"{keyed.strategy.name}: {error}")

    def _usable(self, keyed: KeyedStrategy, key: str) -> bool:
        """Whether a strategy's artifact is there; one that was changed since it was built is built again."""
        artifact = self.setups.artifacts.find(key)
        if artifact is None and key not in self.unbuilt:
            wanted = next(wanted for wanted in _required_artifacts(keyed) if wanted.key == key)
            artifact = self._build(wanted)
            if artifact is not None:
                self._store_artifact(wanted, artifact, artifact.reason)
        return artifact is not None and not artifact.inapplicable

    def _build(self, wanted: _RequiredArtifact) -> CachedArtifact | None:
        """Build one artifact; None where that failed, which is stored and told."""
        subject = self.setups.context.subjects[wanted.subject]
        self.watcher.begin(f"{wanted.subject} · build {wanted.operator}", 0.0)
        try:
            built = self.setups.artifacts.build(
                wanted.key, model=subject.model, passes=wanted.passes, calibration=subject_calibration(subject)
            )
        except OperatorError as error:
            self.unbuilt.add(wanted.key)
            self._store_artifact(wanted, None, str(error))
            self._fail(f"{wanted.subject}/{wanted.operator}: {error}")
            return None
        self.outcome.inapplicable += built.inapplicable
        self.watcher.end(_ending(built))
        return built

    def _store_artifact(self, wanted: _RequiredArtifact, artifact: CachedArtifact | None, reason: str | None) -> None:
        record = records.artifact(wanted.key, wanted.subject, wanted.operator, wanted.passes, artifact, reason)
        with self.database.session() as writing:
            upsert_artifact(writing, record)
            writing.commit()

    def _judge(self, task: MissingAccuracy, *, again: bool = False) -> None:
        """Measure one accuracy and store it, or why it could not be measured; `again` after files were changed."""
        strategy = task.keyed.strategy
        self.watcher.begin(f"{strategy.subject} · accuracy of {strategy.operator}", task.estimate_s)
        started, clock = utc_now(), time.monotonic()
        metric = self.setups.context.subjects[strategy.subject].metric
        setup = self.setups.accuracy(task.keyed)
        items = self.setups.items(task.keyed)
        try:
            result = evaluate(
                self.launcher,
                setup,
                items=items,
                on_items=lambda done, total: self.watcher.advance(done / total),
            )
        except (LaunchError, TierCallError) as error:
            if isinstance(error, ChangedFilesError) and not again:
                self.watcher.end(f"{error}; they are made again")
                if self._usable(task.keyed, task.keyed.judged.artifact_key):
                    self._judge(task, again=True)
                return
            took_s = time.monotonic() - clock
            failed = records.failed_accuracy(
                task.keyed, self.environment_id, setup, error, started, took_s=took_s, metric=metric
            )
            self._store_accuracy(failed)
            self._fail(f"{strategy.subject}/{strategy.operator}: accuracy: {error}")
            _stop_without_engine(error)
            return
        took_s = time.monotonic() - clock
        record = records.accuracy(
            task.keyed,
            self.environment_id,
            setup,
            result,
            started,
            took_s=took_s,
            metric=metric,
            class_counts=class_counts(items.path),
        )
        self._store_accuracy(record)
        self.outcome.accuracies += 1
        self.watcher.end(_judged(record))

    def _measure(self, task: MissingRound, position: int, seed: int, *, again: bool = False) -> None:
        """Measure one strategy in one round and store it as one transaction; `again` after files were changed."""
        strategy, keyed = task.keyed.strategy, task.keyed
        label = f"{strategy.subject} · {strategy.operator}@{strategy.placement.name} · round {task.round}"
        self.watcher.begin(label, task.estimate_s)
        started, clock = utc_now(), time.monotonic()
        setup, protocol = self.setups.latency(keyed), self.setups.protocol(keyed)
        total = len(protocol.input_ids) * (protocol.repetitions + protocol.warmup)
        done = 0

        def tick(sample: object) -> None:
            nonlocal done
            done += 1
            self.watcher.advance(done / total)

        attempt = records.Attempt(keyed, self.environment_id, task.round, position, seed, started)
        try:
            measured = measure(self.launcher, setup, protocol, on_sample=tick)
        except (LaunchError, TierCallError) as error:
            if isinstance(error, ChangedFilesError) and not again:
                self.watcher.end(f"{error}; they are made again")
                if self._usable(keyed, keyed.artifact_key):
                    self._measure(task, position, seed, again=True)
                return
            self._store_measurement(records.failed(attempt, error, time.monotonic() - clock))
            self._fail(f"{label}: {error}")
            _stop_without_engine(error)
            return
        asked = asked_percentiles(self.setups.context.catalog)
        record = records.complete(attempt, setup, measured, time.monotonic() - clock, percentiles=asked)
        self._store_measurement(record)
        if record.verdict == "INVALID":
            self.outcome.invalid.append(f"{label}: {record.reason}")
            self.watcher.end(f"INVALID: {record.reason}")
            return
        self.outcome.measured += 1
        if record.verdict == "DOUBTFUL":
            self.outcome.doubtful.append(f"{label}: {record.reason}")
        self.watcher.end(f"DOUBTFUL: {record.reason}" if record.verdict == "DOUBTFUL" else "ok")

    def _store_measurement(self, record: MeasurementRecord) -> None:
        with self.database.session() as writing:
            record_measurement(writing, record)
            writing.commit()

    def _store_accuracy(self, record: AccuracyRecord) -> None:
        with self.database.session() as writing:
            record_accuracy(writing, record)
            writing.commit()

    def _fail(self, message: str) -> None:
        self.outcome.failures.append(message)
        self.watcher.end(f"failed: {message}")


def _ending(built: CachedArtifact) -> str:
    """Return how a build ended: `ok`, or what there is to say of it."""
    distance = output_distance(built.details)
    if built.inapplicable:
        return f"inapplicable: {built.reason}"
    if NOT_VERIFIED in built.details:
        return f"not verified: {built.details[NOT_VERIFIED]}"
    return f"warning: {distance.warning}" if distance is not None and distance.warning else "ok"


def _judged(record: AccuracyRecord) -> str:
    """Return how judging ended: `ok`, or what keeps the accuracy from saying anything."""
    primary = record.miou_pct if record.metric_primary == "miou" else record.top1_pct
    remark = chance_remark(record.metric_primary, primary or 0.0, record.items, record.class_counts)
    return "ok" if remark is None else f"warning: {remark}"


def _stop_without_engine(error: Exception) -> None:
    """Whatever comes next would fail for the same reason."""
    if isinstance(error, EngineUnavailableError):
        advice = "everything measured so far is stored; continue when it answers with: runner fill-catalog"
        raise EngineUnavailableError(f"{error}; {advice}") from error


def asked_percentiles(catalog: Catalog) -> set[float]:
    """Those of the declared targets."""
    return {percentile for slo in catalog.slos.values() for percentile in slo.latency_s}


def _rounds(plan: Plan, seed: int) -> Iterator[tuple[int, int, MissingRound]]:
    """Position, seed and task: each round holds every missing strategy of a subject once, shuffled."""
    subjects = list(dict.fromkeys(task.keyed.strategy.subject for task in plan.rounds))
    for number in sorted({task.round for task in plan.rounds}):
        for index, subject in enumerate(subjects):
            shuffle_seed = seed * 1_000_000 + number * 1000 + index
            tasks = [task for task in plan.rounds if task.round == number and task.keyed.strategy.subject == subject]
            random.Random(shuffle_seed).shuffle(tasks)
            for position, task in enumerate(tasks):
                yield position, shuffle_seed, task


def measure_and_extend(filler: Filler, plan: Callable[[], Plan], made: Plan, stop: StopRequest) -> FillOutcome:
    """Do what `made` lists and, where a precision is declared, what `plan` finds missing after that."""
    experiment = filler.setups.context.catalog.experiment
    if experiment.precision is None:
        return filler.measure(made, stop)
    deadline = None if experiment.max_time_s is None else time.monotonic() + experiment.max_time_s
    return _Extension(filler, plan, deadline).run(made, stop)


@dataclass(frozen=True)
class _Extension:
    """A fill that goes on until `deadline`; `plan` says what is missing now."""

    filler: Filler
    plan: Callable[[], Plan]
    deadline: float | None

    def run(self, made: Plan, stop: StopRequest) -> FillOutcome:
        """Measure look after look; a pass that measures nothing is the last, so that what always fails ends too."""
        outcome = self.filler.measure(made, stop, late=self._late)
        known = -1
        while known < outcome.measured + outcome.accuracies and not (stop.requested or self._late()):
            known = outcome.measured + outcome.accuracies
            missing = self.plan()
            if not (missing.rounds or missing.accuracies):
                break
            # What failed before is tried again now.
            outcome.failures.clear()
            outcome.invalid.clear()
            self.filler.measure(missing, stop, late=self._late)
        outcome.precision += [self._report(keyed, stop) for keyed in self._applicable()]
        return outcome

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _applicable(self) -> list[KeyedStrategy]:
        plan = self.plan()
        return [keyed for keyed in plan.declared if keyed.artifact_key not in plan.inapplicable]

    def _report(self, keyed: KeyedStrategy, stop: StopRequest) -> str:
        strategy = keyed.strategy
        name = f"{strategy.subject}/{strategy.operator}@{strategy.placement.name}"
        found = narrowness(self.filler, keyed)
        if found is None:
            return f"{name}: nothing measured"
        if found.reached:
            return f"{name}: {found}: narrow enough"
        limit = "all looks are used" if found.next is None else "stopped" if stop.requested else None
        limit = limit or ("max_time is over" if self._late() else "the last look failed or is INVALID")
        return f"{name}: {found}: {100 * found.wanted:g} % wanted, but {limit}"


def narrowness(filler: Filler, keyed: KeyedStrategy) -> Narrowness | None:
    """How narrow a strategy is now; None where nothing is measured."""
    context = filler.setups.context
    with filler.database.session() as reading:
        rows = latencies(reading, keyed.latency_key)
    if not rows:
        return None
    pool = len(context.subjects[keyed.strategy.subject].dataset.input_ids())
    experiment = context.catalog.experiment
    looks = planned_looks(experiment, pool)
    return assess(samples_of(rows), experiment, looks=looks, done={row[0] for row in rows})
