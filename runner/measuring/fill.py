"""The fill of a catalog: artifacts, accuracies, then rounds over the missing strategies in shuffled order.

Where a precision is declared, rounds are added until every interval is narrow enough.
"""

import logging
import math
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from types import FrameType
from typing import Protocol as Interface

from sqlmodel import Session

from catalog.artifact_details import output_distance
from catalog.declaration import Catalog
from catalog.errors import DuplicateEvidenceError
from catalog.evidence.allowed import utc_now
from catalog.evidence.database import Database
from catalog.evidence.fill_lock import LockCheck
from catalog.evidence.loading import stored_samples
from catalog.evidence.lookups import rounds_done
from catalog.evidence.records import AccuracyRecord, MeasurementRecord
from catalog.evidence.soundness import sound_database
from catalog.evidence.writing import (
    record_accuracy,
    record_measurement,
    replace_unreadable_accuracy,
    replace_unreadable_measurement,
    supersede_measurement,
    upsert_artifact,
)
from catalog.statistics.description import chance_remark
from catalog.units import counted
from runner.artifacts.calibration import subject_calibration
from runner.artifacts.store import NOT_VERIFIED, CachedArtifact, build_apart
from runner.errors import (
    ChangedFilesError,
    EngineUnavailableError,
    LockLostError,
    OperatorError,
    SubjectError,
    describe,
    ends_a_run,
)
from runner.launchers.base import Launcher
from runner.measuring import records
from runner.measuring.experiment import Setup, evaluate, measure
from runner.measuring.keyed_strategy import KeyedStrategy, artifact_key_of
from runner.measuring.plan import MissingAccuracy, MissingRound, Plan, assess_stored, remaining
from runner.measuring.setups import Setups
from runner.operators.base import Pass
from runner.subjects.dataset import OnItem, class_counts

logger = logging.getLogger(__name__)

# So many answers of a model may take longer than a user waits without a word.
_MANY_ITEMS = 1000

STORED_MEANWHILE = "ok, and stored by another runner meanwhile"
# Whether a round may start now; one that would come too late is left out.
InTime = Callable[[MissingRound], bool]


class Watcher(Interface):
    """The receiver of a fill's progress (the terminal's progress bar, a test's list)."""

    def begin(self, what: str, estimate_s: float) -> None:
        """Report that a task starts."""

    def advance(self, fraction: float) -> None:
        """Report how far the task is, from 0 to 1."""

    def end(self, outcome: str) -> None:
        """Report that the task ended: `ok`, or one line that says what went wrong."""

    def look(self, lines: Sequence[str], undecided: int, seconds_left: float | None) -> None:
        """Report what stands after a look of a race: a line for each question, how many strategies may change it."""


class StopRequest:
    """A stop requested with Ctrl-C: once finishes the measurement in flight, twice stops now."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self.requested = False

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Handle SIGINT and SIGTERM while the block runs."""
        # Restored afterwards: a Ctrl-C outside a fill must end the program as usual.
        previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # SIGTERM is often followed by SIGKILL, so there is no time to finish a measurement.
        if self.requested or number == signal.SIGTERM:
            raise KeyboardInterrupt
        self.requested = True
        self._watcher.end("stopping after the measurement in flight; press Ctrl-C again to stop now")


@dataclass
class FillOutcome:
    """The counts and messages of what a fill did."""

    measured: int = 0
    accuracies: int = 0
    inapplicable: int = 0
    failures: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    precision: list[str] = field(default_factory=list)
    stopped: bool = False
    stored_meanwhile: int = 0

    @property
    def complete(self) -> bool:
        return not (self.failures or self.invalid or self.stopped)

    def include(self, other: "FillOutcome") -> None:
        """Add what another fill did."""
        for name, value in vars(other).items():
            # Counts and lists are joined by `+`; `stopped` is the only flag.
            setattr(self, name, self.stopped or value if name == "stopped" else getattr(self, name) + value)


@dataclass(frozen=True)
class _RequiredArtifact:
    """An artifact that missing evidence is measured with; `declared` is false for an uncut model that only judges."""

    subject: str
    operator: str
    key: str
    passes: tuple[Pass, ...]
    declared: bool = True


def _required_artifacts(keyed: KeyedStrategy) -> Iterator[_RequiredArtifact]:
    """Yield the artifact that a strategy runs and, if its accuracy is inherited, the uncut one that is judged."""
    subject, operator = keyed.strategy.subject, keyed.strategy.operator
    yield _RequiredArtifact(subject, operator, keyed.artifact_key, keyed.passes)
    if keyed.judged.artifact_key != keyed.artifact_key:
        yield _RequiredArtifact(
            subject, f"{operator} (uncut)", keyed.judged.artifact_key, keyed.judged.passes, declared=False
        )


@dataclass(frozen=True)
class Filler:
    """Executes a plan and stores each result at once: `build`, then `measure_until_narrow` with the updated plan.

    `unbuilt` holds the keys of the artifacts whose building failed, so that nothing is tried twice, `spoiled` the
    rounds that were INVALID, and `testbed` is what rounds are stored with. `ensure` checks the locks before each
    measurement and before a round is stored.
    """

    setups: Setups
    database: Database
    launcher: Launcher
    environment_id: int
    watcher: Watcher
    outcome: FillOutcome = field(default_factory=FillOutcome)
    unbuilt: set[str] = field(default_factory=set)
    spoiled: list[MissingRound] = field(default_factory=list)
    testbed: str | None = None
    ensure: LockCheck = lambda: True

    def build(self, plan: Plan, stop: StopRequest, *, ends: float = math.inf) -> None:
        """Build what the missing evidence needs, each artifact once, and store the outcome.

        An operator may turn out inapplicable, and parts that do not equal the model they were cut from are judged on
        their own: update the plan afterwards. At `ends`, on the monotonic clock, what is not built yet is left out.
        """
        required = [artifact for keyed in plan.declared for artifact in _required_artifacts(keyed)]
        # Sorted so that the last one of a key, which stays, has the name of a declared operator.
        by_key = {artifact.key: artifact for artifact in sorted(required, key=lambda artifact: artifact.declared)}
        tasks: Sequence[MissingAccuracy | MissingRound] = (*plan.accuracies, *plan.rounds)
        needed = {artifact.key for task in tasks for artifact in _required_artifacts(task.keyed)}
        # A longer pipeline goes on from the artifact of its first passes.
        for artifact in sorted(by_key.values(), key=lambda artifact: len(artifact.passes)):
            if stop.requested:
                break
            cached = self._find(artifact)
            if cached is None and artifact.key in needed and time.monotonic() < ends:
                cached = self._build(artifact)
            if cached is not None:
                self._store_artifact(artifact, cached, cached.reason)

    def measure(self, plan: Plan, stop: StopRequest, *, in_time: InTime = lambda task: True) -> FillOutcome:
        """Measure everything that the plan lists.

        A failed measurement does not stop the others; a container engine that went away does. Rounds for which
        `in_time` says that they would come too late are left out.
        """
        # Networks serve all rounds: to make them takes longer than to start a tier.
        with self.launcher.kept():
            self.judge(plan.accuracies, stop)
            self.measure_rounds(plan.rounds, stop, in_time=in_time)
        return self.outcome

    def judge(self, accuracies: Iterable[MissingAccuracy], stop: StopRequest) -> None:
        """Measure accuracies; before any round, so that an artifact that cannot run fails once."""
        for accuracy in accuracies:
            if stop.requested:
                break
            self.judge_one(accuracy)
        self.outcome.stopped = stop.requested

    def judge_one(self, accuracy: MissingAccuracy) -> None:
        """Measure one accuracy and store it; its artifact is built if it is not there."""
        self.ensure()
        with self._reporting(accuracy.keyed):
            if self._usable(accuracy.keyed, accuracy.keyed.judged.artifact_key):
                self._judge(accuracy)

    def measure_rounds(
        self, rounds: Sequence[MissingRound], stop: StopRequest, *, in_time: InTime = lambda task: True
    ) -> None:
        """Measure rounds, a subject's strategies close together in time."""
        for block in round_blocks(rounds, self.setups.context.catalog.experiment.seed):
            for position, task in enumerate(block.tasks):
                if stop.requested:
                    break
                if in_time(task):
                    self.measure_round(task, position, block.seed)
        self.outcome.stopped = stop.requested

    def measure_round(self, task: MissingRound, position: int, seed: int) -> None:
        """Measure one strategy in one round and store it; its artifact is built if it is not there."""
        self.ensure()
        with self._reporting(task.keyed):
            if self._usable(task.keyed, task.keyed.artifact_key):
                self._measure(task, position, seed)

    def measure_until_narrow(self, plan: Plan, stop: StopRequest, *, max_time_s: float | None = None) -> FillOutcome:
        """Measure what the plan lists; where a precision is declared, add rounds until every interval is narrow enough.

        No round follows once the time is over.
        """
        context = self.setups.context
        experiment, outcome = context.catalog.experiment, self.outcome
        if experiment.precision is None or plan.scope.rounds is not None:
            with self.launcher.kept():
                self.judge(plan.accuracies, stop)
                self.measure_rounds(plan.rounds, stop)
                self.measure_again(stop)
            return outcome
        deadline = time.monotonic() + (math.inf if max_time_s is None else max_time_s)

        def late() -> bool:
            return time.monotonic() >= deadline

        def in_time(task: MissingRound) -> bool:
            # Declared rounds are always measured: max_time limits only what is added to them.
            return task.round <= experiment.rounds or not late()

        self.measure(plan, stop, in_time=in_time)
        # Once: a busy machine would make them DOUBTFUL again without end.
        plan = replace(plan, scope=replace(plan.scope, redo_doubtful=False))
        before = -1
        # A pass that measures nothing is the last, so that constant failure ends too.
        while before < outcome.measured + outcome.accuracies and not (stop.requested or late()):
            before = outcome.measured + outcome.accuracies
            plan = remaining(plan, context, sound_database(self.database))
            if not (plan.rounds or plan.accuracies):
                break
            # The next pass tries again what failed.
            outcome.failures.clear()
            outcome.invalid.clear()
            self.measure(plan, stop, in_time=in_time)
        applicable = [
            keyed
            for keyed in plan.declared
            if keyed.artifact_key not in plan.inapplicable and plan.scope.covers(keyed.strategy)
        ]
        end = "stopped" if stop.requested else "max_time is over" if late() else "the last look failed or is INVALID"
        with sound_database(self.database).session() as reading:
            outcome.precision += [self._precision(reading, keyed, end) for keyed in applicable]
        return outcome

    def measure_again(self, stop: StopRequest, *, in_time: InTime = lambda task: True) -> None:
        """Give rounds that turned out INVALID one more attempt: what disturbed a link for a second may be over."""
        spoiled = tuple(self.spoiled)
        if spoiled and not stop.requested:
            self.watcher.end(f"measured once more, as INVALID: {counted(len(spoiled), 'round')}")
            del self.outcome.invalid[-len(spoiled) :]
            self.spoiled.clear()
            self.measure_rounds(spoiled, stop, in_time=in_time)
            # A second attempt is the last one.
            self.spoiled.clear()

    def _precision(self, reading: Session, keyed: KeyedStrategy, end: str) -> str:
        """Say in one line how narrow an interval is and, if it is too wide, why no round follows."""
        samples = stored_samples(reading, keyed.latency_key)
        if samples is None:
            return f"{keyed.strategy.name}: nothing measured"
        done = rounds_done(reading, keyed.latency_key)
        narrowness = assess_stored(self.setups.context, keyed, samples, done)
        line = f"{keyed.strategy.name}: {narrowness}"
        if narrowness.reached:
            return f"{line}: narrow enough"
        limit = "all looks are used" if narrowness.next is None else end
        return f"{line}: {100 * narrowness.target:g} % wanted, but {limit}"

    @contextmanager
    def _reporting(self, keyed: KeyedStrategy) -> Iterator[None]:
        """Report a strategy whose artifact cannot run, or whose data changed, as failed, so that the others go on."""
        try:
            yield
        except (OperatorError, SubjectError) as error:
            self._fail(f"{keyed.strategy.name}: {error}")

    def _usable(self, keyed: KeyedStrategy, key: str) -> bool:
        """Return whether a strategy's artifact can be used; one that was changed since it was built is built again."""
        artifact = next(artifact for artifact in _required_artifacts(keyed) if artifact.key == key)
        cached = self._find(artifact)
        if cached is None and key not in self.unbuilt:
            cached = self._build(artifact)
            if cached is not None:
                self._store_artifact(artifact, cached, cached.reason)
        return cached is not None and not cached.inapplicable

    def _find(self, artifact: _RequiredArtifact) -> CachedArtifact | None:
        """Find a cached artifact; one that cannot be read is built again."""
        try:
            return self.setups.artifacts.find(artifact.key)
        except Exception as error:  # noqa: BLE001 - no fault of one strategy ends a fill
            _stop_if_hopeless(error)
            self._fail(f"{artifact.subject}/{artifact.operator}: its cached files: {describe(error)}")
            return None

    def _build(self, artifact: _RequiredArtifact) -> CachedArtifact | None:
        """Build one artifact; return None where that failed, which is stored and reported."""
        self.watcher.begin(f"{artifact.subject} · build {artifact.operator}", 0.0)
        try:
            subject = self.setups.context.subjects[artifact.subject]
            built = build_apart(
                self.setups.artifacts,
                artifact.key,
                model=subject.model,
                passes=artifact.passes,
                calibration=subject_calibration(subject),
                key_of=partial(artifact_key_of, subject),
            )
        except Exception as error:  # noqa: BLE001 - no fault of one strategy ends a fill
            _stop_if_hopeless(error)
            self.unbuilt.add(artifact.key)
            self._store_artifact(artifact, None, describe(error))
            self._fail(f"{artifact.subject}/{artifact.operator}: {describe(error)}")
            return None
        self.outcome.inapplicable += built.inapplicable
        self.watcher.end(_build_ending(built))
        return built

    def _store_artifact(self, artifact: _RequiredArtifact, cached: CachedArtifact | None, reason: str | None) -> None:
        record = records.artifact(artifact.key, artifact.subject, artifact.operator, artifact.passes, cached, reason)
        with self.database.writing_session() as writing:
            upsert_artifact(writing, record)
            writing.commit()

    def _judge(self, task: MissingAccuracy, *, again: bool = False) -> None:
        """Measure one accuracy and store it, or why that failed; `again` is set at the second attempt."""
        strategy = task.keyed.strategy
        self.watcher.begin(f"{strategy.subject} · accuracy of {strategy.operator}", task.estimate_s)
        started, clock = utc_now(), time.monotonic()
        try:
            setup = self.setups.accuracy(task.keyed)
        except Exception as error:  # noqa: BLE001 - no fault of one strategy ends a fill
            # Not stored, because nothing says yet where it would have been measured.
            _stop_if_hopeless(error)
            self._fail(f"{strategy.name}: {describe(error)}")
            return
        try:
            record = self._accuracy(task.keyed, setup, started, clock)
        except (OperatorError, SubjectError):
            raise  # of the data, before anything ran
        except Exception as error:  # noqa: BLE001 - no fault of one strategy ends a fill
            _stop_if_hopeless(error)
            if isinstance(error, ChangedFilesError) and not again:
                self.watcher.end(f"{error}; the files are made again")
                if self._usable(task.keyed, task.keyed.judged.artifact_key):
                    self._judge(task, again=True)
                return
            # Stored as well, so that the next plan can say why the accuracy is still missing.
            failed = records.failed_accuracy(
                task.keyed,
                self.environment_id,
                setup,
                error,
                started,
                took_s=time.monotonic() - clock,
                metric=self.setups.context.subjects[strategy.subject].metric,
            )
            self._store_accuracy(failed)
            if not again and self._is_connected_again(error):
                self._judge(task, again=True)
                return
            self._fail(f"{strategy.subject}/{strategy.operator}: accuracy: {describe(error)}")
            _stop_without_engine(error)
            return
        try:
            self._store_accuracy(record)
        except DuplicateEvidenceError:
            self.outcome.stored_meanwhile += 1
            self.watcher.end(STORED_MEANWHILE)
            return
        self.outcome.accuracies += 1
        self.watcher.end(_accuracy_ending(record))

    def _accuracy(self, keyed: KeyedStrategy, setup: Setup, started: datetime, clock: float) -> AccuracyRecord:
        """Judge an artifact on the items; `clock` is the monotonic time at the start."""
        items = self.setups.items(keyed, self._show_prepared(keyed.strategy.subject))
        result = evaluate(
            self.launcher, setup, items=items, on_items=lambda done, total: self.watcher.advance(done / total)
        )
        return records.accuracy(
            keyed,
            self.environment_id,
            setup,
            result,
            started,
            took_s=time.monotonic() - clock,
            metric=self.setups.context.subjects[keyed.strategy.subject].metric,
            class_counts=class_counts(items.path),
        )

    def _show_prepared(self, subject: str) -> OnItem:
        """Return what shows how many items are prepared: where they have no labels, identity answers each first."""
        long = self.setups.context.subjects[subject].metric == "agreement"

        def show(written: int, total: int) -> None:
            if written == 0 and long and total >= _MANY_ITEMS:
                self.watcher.end(f"first, identity answers for {total:,} items without labels")
            self.watcher.advance(written / total)

        return show

    def _measure(self, task: MissingRound, position: int, seed: int, *, again: bool = False) -> None:
        """Measure one strategy in one round and store it; `again` is set at the second attempt."""
        strategy, keyed = task.keyed.strategy, task.keyed
        label = f"{strategy.subject} · {strategy.operator}@{strategy.placement.name} · round {task.round}"
        self.watcher.begin(label, task.estimate_s)
        look = asdict(task.look)
        attempt = records.Attempt(
            keyed, self.environment_id, task.round, position, seed, utc_now(), testbed=self.testbed, **look
        )
        clock = time.monotonic()
        try:
            record = self._round(attempt, clock)
        except (OperatorError, SubjectError):
            raise  # of the files, before anything ran
        except Exception as error:  # noqa: BLE001 - no fault of one strategy ends a fill
            _stop_if_hopeless(error)
            if isinstance(error, ChangedFilesError) and not again:
                self.watcher.end(f"{error}; the files are made again")
                if self._usable(keyed, keyed.artifact_key):
                    self._measure(task, position, seed, again=True)
                return
            self._store_measurement(records.failed(attempt, error, time.monotonic() - clock))
            if not again and self._is_connected_again(error):
                self._measure(task, position, seed, again=True)
                return
            self._fail(f"{label}: {describe(error)}")
            _stop_without_engine(error)
            return
        try:
            self._store_measurement(record, supersedes=task.supersedes)
        except DuplicateEvidenceError:
            # Another runner, taken for dead, has stored the same round meanwhile; one of the two is enough.
            self.outcome.stored_meanwhile += 1
            self.watcher.end(STORED_MEANWHILE)
            return
        except LockLostError as error:
            self._store_measurement(records.failed(attempt, error, time.monotonic() - clock))
            # Logged, because the watcher of a testbed's worker shows nothing.
            logger.warning("%s: %s%s", label, error, "" if again else "; it is measured once more")
            if again:
                self._fail(f"{label}: {error}")
            else:
                self._measure(task, position, seed, again=True)
            return
        if record.verdict == "INVALID":
            self.outcome.invalid.append(f"{label}: {record.reason}")
            self.spoiled.append(task)
            self.watcher.end(f"INVALID: {record.reason}")
            return
        self.outcome.measured += 1
        if record.verdict == "DOUBTFUL":
            self.outcome.doubtful.append(f"{label}: {record.reason}")
        self.watcher.end(f"DOUBTFUL: {record.reason}" if record.verdict == "DOUBTFUL" else "ok")

    def _is_connected_again(self, error: Exception) -> bool:
        """Return whether a measurement failed because the connection to an engine was lost, which is open again now."""
        if not isinstance(error, EngineUnavailableError):
            return False
        try:
            if not self.launcher.reconnect():
                return False
        except EngineUnavailableError as refusal:
            _stop_without_engine(refusal)
        # The mark on an engine ends with the connection, and another runner may have begun since.
        self.ensure()
        # Logged, because the watcher of a testbed's worker shows nothing.
        logger.warning("the connection to the engine was lost and is open again; the measurement is made once more")
        return True

    def _round(self, attempt: records.Attempt, clock: float) -> MeasurementRecord:
        """Measure a round and judge it; `clock` is the monotonic time at the start."""
        setup, protocol = self.setups.latency(attempt.keyed), self.setups.protocol(attempt.keyed, attempt.round)
        total = protocol.expected_inferences
        done = 0

        def tick(sample: object) -> None:
            nonlocal done
            done += 1
            # A warm-up of few long inputs may outrun what was expected.
            self.watcher.advance(min(1.0, done / total))

        measurement = measure(self.launcher, setup, protocol, on_sample=tick)
        percentiles = slo_percentiles(self.setups.context.catalog)
        took_s = time.monotonic() - clock
        return records.complete(attempt, setup, protocol, measurement, took_s, percentiles=percentiles)

    def _store_measurement(self, record: MeasurementRecord, *, supersedes: bool = False) -> None:
        # An INVALID attempt supersedes nothing: what is DOUBTFUL is still better.
        store = supersede_measurement if supersedes and record.verdict != "INVALID" else record_measurement
        with self.database.writing_session() as writing:
            try:
                store(writing, record)
            except DuplicateEvidenceError:
                # Only what cannot be read gives way; a readable one raises the error again.
                replace_unreadable_measurement(writing, record)
            if record.status == "complete" and not self.ensure():
                raise LockLostError
            writing.commit()

    def _store_accuracy(self, record: AccuracyRecord) -> None:
        with self.database.writing_session() as writing:
            try:
                record_accuracy(writing, record)
            except DuplicateEvidenceError:
                replace_unreadable_accuracy(writing, record)
            writing.commit()

    def _fail(self, message: str) -> None:
        self.outcome.failures.append(message)
        self.watcher.end(f"failed: {message}")


def _build_ending(built: CachedArtifact) -> str:
    """Return how a build ended: `ok`, or what the user should know of it."""
    distance = output_distance(built.details)
    if built.inapplicable:
        return f"inapplicable: {built.reason}"
    if NOT_VERIFIED in built.details:
        return f"not verified: {built.details[NOT_VERIFIED]}"
    return f"warning: {distance.warning}" if distance is not None and distance.warning else "ok"


def _accuracy_ending(record: AccuracyRecord) -> str:
    """Return how judging ended: `ok`, or why the accuracy means little."""
    primary = record.miou_pct if record.metric_primary == "miou" else record.top1_pct
    remark = chance_remark(record.metric_primary, primary or 0.0, record.items, record.class_counts)
    return "ok" if remark is None else f"warning: {remark}"


def _stop_if_hopeless(error: Exception) -> None:
    """Raise the error again if nothing that follows could be stored; the engine's absence is stored before that."""
    logger.debug("a task of the fill failed", exc_info=True)
    if ends_a_run(error) and not isinstance(error, EngineUnavailableError):
        raise error


def _stop_without_engine(error: Exception) -> None:
    """Raise the error again if the engine is gone: every later measurement would fail for the same reason."""
    if isinstance(error, EngineUnavailableError):
        advice = "everything measured so far is stored; continue when it answers with: runner fill-catalog"
        raise EngineUnavailableError(f"{error}; {advice}") from error


def slo_percentiles(catalog: Catalog) -> set[float]:
    """Return the percentiles of the declared SLOs."""
    return {percentile for slo in catalog.slos.values() for percentile in slo.latency_s}


@dataclass(frozen=True)
class RoundBlock:
    """A subject's strategies in one round, in the shuffled order of the seed."""

    seed: int
    tasks: tuple[MissingRound, ...]


def round_blocks(rounds: Sequence[MissingRound], seed: int) -> Iterator[RoundBlock]:
    """Yield the rounds in the order in which they are measured, every missing strategy of a subject in one block."""
    # Subject by subject within a round: strategies that are compared run close together in time, so that a slow
    # change of the machine (heat, other load) meets them alike.
    subjects = list(dict.fromkeys(task.keyed.strategy.subject for task in rounds))
    for number in sorted({task.round for task in rounds}):
        for index, subject in enumerate(subjects):
            # Stored with the measurement, so that the order of a round can be reproduced.
            # Distinct for up to 1000 rounds of 1000 subjects.
            shuffle_seed = seed * 1_000_000 + number * 1000 + index
            tasks = [task for task in rounds if task.round == number and task.keyed.strategy.subject == subject]
            random.Random(shuffle_seed).shuffle(tasks)
            if tasks:
                yield RoundBlock(shuffle_seed, tuple(tasks))
