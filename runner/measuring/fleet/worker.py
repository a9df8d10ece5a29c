"""A testbed that measures what it is given by keys: the same in the process of a fill and in a worker of Dask.

A task says which rounds to measure, by keys alone, and what became of each. Nothing else travels: a worker looks up the
rest in its own catalog and database, and a key that it does not know says that the two differ.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from catalog.errors import DatabaseError
from catalog.evidence.database import Database
from catalog.evidence.fill_lock import LockCheck, identity_of
from catalog.evidence.lookups import accuracy_done, doubtful_rounds, rounds_done
from catalog.evidence.records import RoundLook
from catalog.evidence.soundness import sound_database
from runner.artifacts.store import ArtifactStore
from runner.errors import FleetError, RunnerError
from runner.launchers.select import Selection
from runner.measuring.fill import STORED_MEANWHILE, Filler, FillOutcome
from runner.measuring.keyed_strategy import KeyedStrategy, RunContext
from runner.measuring.plan import MissingAccuracy, MissingRound, make_plan, with_inputs_of_round
from runner.measuring.setups import Setups, store_environment

Kind = Literal["round", "accuracy"]
# `stored` is said of evidence that another runner stored meanwhile.
Ending = Literal["ok", "DOUBTFUL", "INVALID", "failed", "inapplicable", "stored"]


@dataclass(frozen=True)
class TaskKey:
    """A round or an accuracy to measure: its content key, and of a round its place in the plan."""

    kind: Kind
    key: str
    round: int = 0
    position: int = 0
    supersedes: bool = False
    look: int | None = None
    error_share: float | None = None

    @property
    def identity(self) -> tuple[str, int]:
        return self.key, self.round


@dataclass(frozen=True)
class TaskBlock:
    """What one testbed measures without a break: the strategies of a subject in one round, which are compared.

    `environment_key` and `scale` say under which conditions the keys hold; `seed` is that of the shuffled order, and
    `store` identifies the database that the results belong to.
    """

    environment_key: str
    scale: str
    seed: int
    tasks: tuple[TaskKey, ...]
    store: str = ""

    def without(self, done: Iterable[tuple[str, int]]) -> "TaskBlock":
        """Return what is left of the block."""
        finished = set(done)
        return replace(self, tasks=tuple(task for task in self.tasks if task.identity not in finished))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TaskBlock":
        return cls(**{**value, "tasks": tuple(TaskKey(**task) for task in value["tasks"])})


@dataclass(frozen=True)
class TaskResult:
    """How a task ended, and on which testbed; `reason` is what the user should know of it."""

    testbed: str
    key: str
    round: int
    ending: Ending
    reason: str = ""

    @property
    def identity(self) -> tuple[str, int]:
        return self.key, self.round


@dataclass(frozen=True)
class BlockResult:
    """What became of a block; `fault` is why its testbed can measure nothing more, where it cannot."""

    testbed: str
    results: tuple[TaskResult, ...]
    fault: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "BlockResult":
        return cls(value["testbed"], tuple(TaskResult(**result) for result in value["results"]), value["fault"])


@dataclass(frozen=True)
class TaskStart:
    """A testbed that begins with a task."""

    testbed: str
    key: str
    round: int


@dataclass(frozen=True)
class TestbedNotice:
    """What the user should know of a testbed while the fill goes on."""

    # The test runner would take the name for a class of tests.
    __test__ = False

    testbed: str
    notice: str


Event = TaskStart | TaskResult | TestbedNotice
Report = Callable[[Event], None]


def round_key(task: MissingRound, position: int) -> TaskKey:
    """Return the keys of a missing round."""
    return TaskKey(
        "round",
        task.keyed.latency_key,
        task.round,
        position,
        task.supersedes,
        task.look.look,
        task.look.error_share,
    )


def accuracy_task(task: MissingAccuracy) -> TaskKey:
    """Return the key of a missing accuracy."""
    return TaskKey("accuracy", task.keyed.accuracy_key)


def event_from_json(value: Mapping[str, Any]) -> Event:
    """Read an event that `asdict` wrote."""
    kind = TaskResult if "ending" in value else TaskStart if "key" in value else TestbedNotice
    return kind(**value)


def named(names: Sequence[str]) -> str:
    """Join names for a message.

    Examples
    --------
    >>> named(["lab-1"]), named(["lab-1", "lab-2", "lab-3"])
    ('lab-1', 'lab-1, lab-2 and lab-3')
    """
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


logger = logging.getLogger(__name__)

# The catalog as it is now, at a scale: it may have been edited since the worker began to serve.
Contexts = Callable[[str], RunContext]
# Whether the next task of a block is still to be measured.
IsDue = Callable[[TaskKey], bool]


class _Quiet:
    """A watcher that keeps the last thing it was told to say."""

    def __init__(self) -> None:
        self.last = "ok"

    def begin(self, what: str, estimate_s: float) -> None:
        self.last = "ok"

    def advance(self, fraction: float) -> None:
        """Show nothing: the one who waits for a result is elsewhere."""

    def end(self, outcome: str) -> None:
        self.last = outcome

    def look(self, lines: Sequence[str], undecided: int, seconds_left: float | None) -> None:
        """Show nothing: a worker takes no looks."""


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A run context whose data are prepared, with its strategies by their keys."""

    context: RunContext
    filler: Filler
    rounds: dict[str, KeyedStrategy]
    accuracies: dict[str, KeyedStrategy]


@dataclass(eq=False)
class RoundWorker:
    """Measures on one testbed, one task at a time.

    Parameters
    ----------
    testbed : str
        Its name, which rounds are stored with.
    contexts : callable
        Returns the run context of the worker's own catalog.
    database : Database
    selection : Selection
        The launcher of the testbed.
    ensure : callable
        Checks the locks of the testbed.
    """

    testbed: str
    contexts: Contexts
    database: Database
    selection: Selection
    ensure: LockCheck = lambda: True
    scratch: Path = Path(".tierwise")
    _prepared: _Prepared | None = field(default=None, init=False)
    _read: tuple[RunContext, tuple[RunContext, ...]] | None = field(default=None, init=False)
    # A worker that was cut off and is connected again may still be at the task that it had.
    _alone: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def busy(self) -> bool:
        """Whether it measures just now."""
        return self._alone.locked()

    def measure(self, block: TaskBlock, *, report: Report, is_due: IsDue) -> BlockResult:
        """Measure the tasks of a block that are wanted still, in their order; what is stored already is left out."""
        results: list[TaskResult] = []
        with self._alone:
            try:
                self._run(block, results, report, is_due)
            except (RunnerError, DatabaseError, OSError) as error:
                logger.debug("a testbed is out", exc_info=True)
                return BlockResult(self.testbed, tuple(results), fault=str(error))
        return BlockResult(self.testbed, tuple(results))

    def _run(self, block: TaskBlock, results: list[TaskResult], report: Report, is_due: IsDue) -> None:
        self.ensure()
        prepared = self._prepare(block)
        with self.selection.launcher.kept():
            for task in block.tasks:
                if not is_due(task):
                    break
                report(TaskStart(self.testbed, task.key, task.round))
                ending, reason = self._measure(prepared, task, block.seed)
                results.append(TaskResult(self.testbed, task.key, task.round, ending, reason))
                report(results[-1])

    def _prepare(self, block: TaskBlock) -> _Prepared:
        """Return the strategies of the catalog as it is now; raise FleetError where they do not fit the block."""
        # Looked at before, too; but a worker that was started again meanwhile gets what its predecessor had.
        if block.store not in ("", identity_of(self.database)):
            raise FleetError(
                f"testbed {self.testbed!r} stores into {self.database.location} now, and the round belongs to "
                "another database; start its worker again with the database of the fill"
            )
        whole = self.contexts(block.scale)
        # A catalog may list several settings, each of which is an environment.
        context = next((own for own in self._settings(whole) if own.environment_key == block.environment_key), None)
        if context is None:
            raise FleetError(
                f"testbed {self.testbed!r} measures in environment {whole.environment_key[:12]}…, and the round is "
                f"of {block.environment_key[:12]}…: its machine, its versions or its catalog changed. Give the same "
                "command again"
            )
        prepared = self._prepared
        unknown = {task.key for task in block.tasks}
        if prepared is not None and prepared.context is context:
            unknown -= prepared.rounds.keys() | prepared.accuracies.keys()
        # Building an artifact elsewhere may have given an accuracy another key.
        if unknown or prepared is None:
            prepared = self._prepared = self._key(context)
            unknown -= prepared.rounds.keys() | prepared.accuracies.keys()
        if unknown:
            raise FleetError(
                f"the catalog {context.catalog.file} of testbed {self.testbed!r} declares nothing with the key "
                f"{min(unknown)[:12]}… of this fill: the two differ, or their models or data do. Give both the same "
                "files, then the same command again"
            )
        return prepared

    def _settings(self, whole: RunContext) -> tuple[RunContext, ...]:
        """Return the context at every setting, the same ones as long as the catalog is the same."""
        if self._read is None or self._read[0] is not whole:
            self._read = (whole, (whole, *whole.settings))
        return self._read[1]

    def _key(self, context: RunContext) -> _Prepared:
        unusable = context.prepare()
        plan = make_plan(context, sound_database(self.database), unusable=unusable)
        with self.database.writing_session() as writing:
            environment_id = store_environment(writing, context, self.selection)
            writing.commit()
        setups = Setups(context, ArtifactStore(context.workdir / "artifacts"), context.workdir)
        filler = Filler(
            setups,
            self.database,
            self.selection.launcher,
            environment_id,
            _Quiet(),
            testbed=self.testbed,
            ensure=self.ensure,
        )
        return _Prepared(
            context,
            filler,
            {keyed.latency_key: keyed for keyed in plan.declared},
            {keyed.accuracy_key: keyed for keyed in plan.declared},
        )

    def _measure(self, prepared: _Prepared, task: TaskKey, seed: int) -> tuple[Ending, str]:
        if self._is_stored(task):
            return "stored", ""
        watcher = _Quiet()
        filler = replace(prepared.filler, watcher=watcher, outcome=FillOutcome(), spoiled=[])
        if task.kind == "accuracy":
            filler.judge_one(MissingAccuracy(prepared.accuracies[task.key], "", 0.0))
        else:
            keyed = with_inputs_of_round(prepared.context, prepared.rounds[task.key], task.round)
            look = RoundLook(look=task.look, error_share=task.error_share)
            missing = MissingRound(keyed, task.round, "", 0.0, supersedes=task.supersedes, look=look)
            filler.measure_round(missing, task.position, seed)
        return _ending(filler.outcome, watcher.last)

    def _is_stored(self, task: TaskKey) -> bool:
        """Return whether another worker stored the evidence since the task was handed out."""
        with sound_database(self.database).session() as reading:
            if task.kind == "accuracy":
                return accuracy_done(reading, task.key)
            if task.supersedes:
                return task.round not in doubtful_rounds(reading, task.key)
            return task.round in rounds_done(reading, task.key)


def _ending(outcome: FillOutcome, said: str) -> tuple[Ending, str]:
    """Return how one task ended, of the outcome of its fill."""
    if outcome.failures:
        return "failed", outcome.failures[-1]
    if outcome.invalid:
        return "INVALID", said.removeprefix("INVALID: ")
    if outcome.doubtful:
        return "DOUBTFUL", said.removeprefix("DOUBTFUL: ")
    if outcome.stored_meanwhile or said == STORED_MEANWHILE:
        return "stored", ""
    if outcome.measured or outcome.accuracies:
        return "ok", "" if said == "ok" else said
    return "inapplicable", said
