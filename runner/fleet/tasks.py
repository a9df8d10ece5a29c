"""Tasks for testbeds: which rounds to measure, by keys alone, and what became of each.

Nothing else travels: a worker looks up the rest in its own catalog and database, and a key that it does not know says
that the two differ.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from runner.measuring.plan import MissingAccuracy, MissingRound

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
