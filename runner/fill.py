"""Fill the catalog: artifacts, accuracies, then rounds over the missing strategies in shuffled order."""

import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray

from catalog.declaration import Catalog
from catalog.evidence import Database, store
from catalog.keys import content_key
from runner import records
from runner.artifacts import Artifact, ArtifactStore
from runner.errors import LaunchError, OperatorError, RunnerError, TierCallError
from runner.experiment import Protocol, Setup, evaluate, measure
from runner.launchers import Launcher
from runner.plan import Keyed, MissingAccuracy, MissingRound, Plan, Session
from runner.subjects import Subject
from runner.tiers import onnxruntime_provider, resolve_provider, route_links, route_tiers, tier_limits
from tierserver.imaging import preprocess
from tierserver.messages import Postprocess, Preprocess


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
class Outcome:
    """What a fill did, counted."""

    measured: int = 0
    accuracies: int = 0
    inapplicable: int = 0
    failures: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    precision: list[str] = field(default_factory=list)
    stopped: bool = False

    def go_on(self, later: "Outcome") -> None:
        """Count what a later pass did too; it has tried again whatever had failed before."""
        self.measured += later.measured
        self.accuracies += later.accuracies
        self.inapplicable += later.inapplicable
        self.failures, self.invalid = later.failures, later.invalid
        self.doubtful += later.doubtful
        self.stopped = later.stopped

    @property
    def complete(self) -> bool:
        return not (self.failures or self.invalid or self.stopped)


@dataclass(frozen=True)
class Filler:
    """Executes a plan and stores each result as soon as it is there."""

    session: Session
    database: Database
    launcher: Launcher
    artifacts: ArtifactStore
    workdir: Path
    environment_id: int
    watcher: Watcher

    def run(self, plan: Plan, stop: StopRequest, *, late: Callable[[], bool] = lambda: False) -> Outcome:
        """Do everything the plan lists; one failed measurement never stops the others.

        Rounds beyond the declared ones are left out once it is late.
        """
        outcome = Outcome()
        self._build_artifacts(plan, outcome)
        for accuracy in plan.accuracies:
            if stop.requested:
                break
            if self.artifacts.find(accuracy.keyed.artifact_key):
                self._judge(accuracy, outcome)
        for number, seed, task in _rounds(plan, self.session.catalog.experiment.seed):
            if stop.requested:
                break
            if task.round > self.session.catalog.experiment.rounds and late():
                continue
            if self._usable(task.keyed):
                self._measure(task, number, seed, outcome)
        outcome.stopped = stop.requested
        return outcome

    def _usable(self, keyed: Keyed) -> bool:
        artifact = self.artifacts.find(keyed.artifact_key)
        return artifact is not None and not artifact.inapplicable

    def _build_artifacts(self, plan: Plan, outcome: Outcome) -> None:
        """Build what the missing evidence needs, each artifact once."""
        tasks: Sequence[MissingAccuracy | MissingRound] = (*plan.accuracies, *plan.rounds)
        needed = {task.keyed.artifact_key: task.keyed for task in tasks}
        for key, keyed in needed.items():
            if self.artifacts.find(key) is not None:
                continue
            strategy = keyed.strategy
            self.watcher.begin(f"{strategy.subject} · build {strategy.operator}", 0.0)
            try:
                artifact = self._build(keyed)
            except OperatorError as error:
                self._store_artifact(keyed, None, str(error))
                outcome.failures.append(f"{strategy.subject}/{strategy.operator}: {error}")
                self.watcher.end(f"failed: {error}")
                continue
            self._store_artifact(keyed, artifact, artifact.reason)
            outcome.inapplicable += artifact.inapplicable
            self.watcher.end(f"inapplicable: {artifact.reason}" if artifact.inapplicable else "ok")
        for keyed in {keyed.artifact_key: keyed for keyed in plan.declared}.values():
            found = self.artifacts.find(keyed.artifact_key)
            if found is not None:
                self._store_artifact(keyed, found, found.reason)

    def _build(self, keyed: Keyed) -> Artifact:
        subject = self.session.subjects[keyed.strategy.subject]
        settings = Preprocess.from_json(subject.preprocess)

        def calibration(count: int) -> list[NDArray[np.generic]]:
            return [preprocess(image, settings) for image in subject.dataset.calibration(count)]

        return self.artifacts.build(
            keyed.artifact_key, model=subject.model, passes=keyed.passes, calibration=calibration
        )

    def _store_artifact(self, keyed: Keyed, artifact: Artifact | None, reason: str | None) -> None:
        with self.database.session() as writing:
            store.upsert_artifact(writing, records.artifact(keyed, artifact, reason))
            writing.commit()

    def _judge(self, task: MissingAccuracy, outcome: Outcome) -> None:
        """Measure one accuracy, in a tier of the widest declared kind that shares its key."""
        strategy = task.keyed.strategy
        self.watcher.begin(f"{strategy.subject} · accuracy of {strategy.operator}", task.estimate_s)
        started = datetime.now(UTC)
        setup = self._accuracy_setup(task.keyed)
        items, key = self._items(self.session.subjects[strategy.subject])
        try:
            result = evaluate(
                self.launcher,
                setup,
                items=items,
                items_key=key,
                on_items=lambda done, total: self.watcher.advance(done / total),
            )
        except (LaunchError, TierCallError) as error:
            self._store_accuracy(records.failed_accuracy(task.keyed, self.environment_id, setup, error, started))
            self._fail(outcome, f"{strategy.subject}/{strategy.operator}: accuracy: {error}")
            return
        self._store_accuracy(records.accuracy(task.keyed, self.environment_id, setup, result, started))
        outcome.accuracies += 1
        self.watcher.end("ok")

    def _measure(self, task: MissingRound, position: int, seed: int, outcome: Outcome) -> None:
        """Measure one strategy in one round and store it as one transaction."""
        strategy, keyed = task.keyed.strategy, task.keyed
        label = f"{strategy.subject} · {strategy.operator}@{strategy.placement.name} · round {task.round}"
        self.watcher.begin(label, task.estimate_s)
        started, clock = datetime.now(UTC), time.monotonic()
        setup, protocol = self._setup(keyed), self._protocol(keyed)
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
            self._store_measurement(records.failed(attempt, error, time.monotonic() - clock))
            self._fail(outcome, f"{label}: {error}")
            return
        record = records.complete(
            attempt, setup, measured, time.monotonic() - clock, percentiles=asked_percentiles(self.session.catalog)
        )
        self._store_measurement(record)
        if record.verdict == "INVALID":
            outcome.invalid.append(f"{label}: {record.reason}")
            self.watcher.end(f"INVALID: {record.reason}")
            return
        outcome.measured += 1
        if record.verdict == "DOUBTFUL":
            outcome.doubtful.append(f"{label}: {record.reason}")
        self.watcher.end(f"DOUBTFUL: {record.reason}" if record.verdict == "DOUBTFUL" else "ok")

    def _store_measurement(self, record: store.MeasurementRecord) -> None:
        with self.database.session() as writing:
            store.record_measurement(writing, record)
            writing.commit()

    def _store_accuracy(self, record: store.AccuracyRecord) -> None:
        with self.database.session() as writing:
            store.record_accuracy(writing, record)
            writing.commit()

    def _fail(self, outcome: Outcome, message: str) -> None:
        outcome.failures.append(message)
        self.watcher.end(f"failed: {message}")

    def _setup(self, keyed: Keyed) -> Setup:
        strategy, catalog = keyed.strategy, self.session.catalog
        return Setup(
            subject=strategy.subject,
            artifact=self._artifact(keyed),
            providers=self._providers(strategy.placement.tiers),
            placement=strategy.placement.tiers,
            tiers=route_tiers(catalog, strategy, self.session.scale, self.session.host),
            links=route_links(catalog, strategy, self.session.scale),
            tolerances={name: catalog.links[name].tolerance for name in strategy.links},
            preprocess=Preprocess.from_json(self.session.subjects[strategy.subject].preprocess),
            postprocess=Postprocess.from_json(self.session.subjects[strategy.subject].postprocess),
        )

    def _accuracy_setup(self, keyed: Keyed) -> Setup:
        """The same artifact in one tier: of those with this provider, the one with the most CPUs."""
        catalog, strategy = self.session.catalog, keyed.strategy
        provider = resolve_provider(catalog.tiers[keyed.accuracy_tier].provider)
        alike = [name for name in catalog.tiers if resolve_provider(catalog.tiers[name].provider) == provider]
        widest = max(alike, key=lambda name: catalog.tiers[name].cpus)
        limits = tier_limits(catalog, widest, self.session.scale, self.session.host)
        return Setup(
            subject=strategy.subject,
            artifact=self._artifact(keyed),
            providers=self._providers((widest,)),
            placement=(widest,),
            tiers=(limits,),
            links=(),
            tolerances={},
            preprocess=Preprocess.from_json(self.session.subjects[strategy.subject].preprocess),
            postprocess=Postprocess.from_json(self.session.subjects[strategy.subject].postprocess),
        )

    def _artifact(self, keyed: Keyed) -> Artifact:
        artifact = self.artifacts.find(keyed.artifact_key)
        if artifact is None or artifact.inapplicable:
            raise RunnerError(f"no artifact for {keyed.strategy.subject}/{keyed.strategy.operator}")
        return artifact

    def _providers(self, tiers: Sequence[str]) -> Mapping[str, Sequence[str]]:
        declared = self.session.catalog.tiers
        return {name: (onnxruntime_provider(resolve_provider(declared[name].provider)),) for name in tiers}

    def _protocol(self, keyed: Keyed) -> Protocol:
        """The inputs as files, written once per selection."""
        subject, experiment = self.session.subjects[keyed.strategy.subject], self.session.catalog.experiment
        key = content_key({"inputs": subject.dataset.inputs_fingerprint(), "ids": list(keyed.input_ids)})
        directory = self.workdir / "inputs" / key
        if not directory.exists():
            staging = directory.with_name(f"{key}.{random.getrandbits(32):08x}")
            staging.mkdir(parents=True)
            subject.dataset.write_inputs(staging, keyed.input_ids)
            staging.rename(directory)
        files = {name: directory / name for name in keyed.input_ids}
        return Protocol(files, key, keyed.input_ids, experiment.repetitions, experiment.warmup)

    def _items(self, subject: Subject) -> tuple[Path, str]:
        """The validation items as one file, written once."""
        key = subject.dataset.fingerprint()
        path = self.workdir / "items" / key / "items.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            staging = path.with_name("items.writing.npz")
            subject.dataset.write_items(staging)
            staging.rename(path)
        return path, key


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
