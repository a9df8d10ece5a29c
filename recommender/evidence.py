"""The evidence as the service holds it: immutable, per subject and environment, ready to rank."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from recommender.errors import UnknownEnvironment, UnknownSlo, UnknownSubject
from recommender.ranking import Candidate, LatencyBudget
from recommender.whatif import StrategyParts


@dataclass(frozen=True)
class Environment:
    """Where something was measured; `imported_from` names the file that brought it, None for what was measured here."""

    id: int
    key: str
    launcher: str
    scale: str
    host: str
    cpu_model: str
    cpu_count: int
    onnxruntime: str
    created_at: str
    imported_from: str | None = None


@dataclass(frozen=True)
class Slo:
    """A named target as declared at the last fill."""

    name: str
    latency: tuple[LatencyBudget, ...] = ()
    min_accuracy_pct: float | None = None
    max_accuracy_drop_pp: float | None = None


@dataclass(frozen=True, eq=False)
class Known:
    """A declared strategy and what was measured of it; `candidate` is None while nothing was."""

    operator: str
    placement: str
    status: str
    reason: str | None
    rounds_declared: int
    candidate: Candidate | None
    artifact_sha256: Mapping[str, str]
    judged: bool = True

    @property
    def applicable(self) -> bool:
        """Whether the operator can be applied to this subject at all."""
        return self.status != "inapplicable"

    @property
    def complete(self) -> bool:
        """Nothing is missing: all declared rounds and the accuracy, if it has one, or it cannot apply."""
        if not self.applicable:
            return True
        found = self.candidate
        if found is None or found.rounds < self.rounds_declared:
            return False
        return found.accuracy is not None or not self.judged


@dataclass(frozen=True, eq=False)
class SubjectEvidence:
    """All strategies of one subject in one environment."""

    subject: str
    task: str
    environment: Environment
    strategies: tuple[Known, ...]
    inputs_select: str | None
    last_measured_at: str

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Those that can be ranked."""
        return tuple(each.candidate for each in self.strategies if each.candidate is not None)

    @property
    def complete(self) -> bool:
        """Whether every declared strategy has all its evidence, and there is some."""
        return bool(self.candidates) and all(each.complete for each in self.strategies)


def _preference(part: SubjectEvidence) -> tuple[bool, str, int]:
    return part.environment.imported_from is None, part.last_measured_at, part.environment.id


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything known at one moment; `subjects` maps each to its environments, imported ones last, newest first.

    `parts` gives what predictions on other links start from: read when it is first asked for, since few questions do.
    """

    subjects: Mapping[str, tuple[SubjectEvidence, ...]]
    slos: Mapping[str, Slo]
    loaded_at: datetime
    parts: Callable[[SubjectEvidence], tuple[StrategyParts, ...]] = field(default=lambda _: (), repr=False)

    @classmethod
    def of(
        cls,
        parts: Iterable[SubjectEvidence],
        slos: Iterable[Slo],
        linked: Callable[[SubjectEvidence], tuple[StrategyParts, ...]] = lambda _: (),
    ) -> "Evidence":
        """Group by subject: what was measured here before what was imported, the most recent first."""
        grouped: dict[str, list[SubjectEvidence]] = {}
        for part in parts:
            grouped.setdefault(part.subject, []).append(part)
        for members in grouped.values():
            members.sort(key=_preference, reverse=True)
        subjects = {name: tuple(members) for name, members in sorted(grouped.items())}
        return cls(subjects, {slo.name: slo for slo in slos}, datetime.now(UTC), linked)

    @property
    def measured(self) -> bool:
        """Whether anything can be answered at all."""
        return any(part.candidates for parts in self.subjects.values() for part in parts)

    def select(self, subject: str, environment: str | None = None) -> SubjectEvidence:
        """The evidence to answer from: one environment, by default the newest with complete evidence.

        Where none is complete, the newest with any; where there is none at all, the newest declared.
        """
        if subject not in self.subjects:
            raise UnknownSubject(subject, self.subjects)
        parts = self.subjects[subject]
        if environment is not None:
            chosen = next((part for part in parts if part.environment.key == environment), None)
            if chosen is None:
                raise UnknownEnvironment(environment, (part.environment.key for part in parts))
            return chosen
        complete = (part for part in parts if part.complete)
        partial = (part for part in parts if part.candidates)
        return next(complete, None) or next(partial, None) or parts[0]

    def slo(self, name: str) -> Slo:
        """The declared SLO of that name."""
        if name not in self.slos:
            raise UnknownSlo(name, self.slos)
        return self.slos[name]
