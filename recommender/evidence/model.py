"""The evidence as the service holds it: immutable, per subject and environment, ready to rank."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import NoReturn

from catalog.evidence.link_samples import LinkedStrategy
from catalog.evidence.records import Applicability
from catalog.evidence.strategy_evidence import (
    EnvironmentEvidence,
    EnvironmentStanding,
    Origin,
    SloEvidence,
    preferred_environment,
    targets_of_subject,
)
from recommender.errors import (
    EvidenceUnavailable,
    NotDeclared,
    UnknownEnvironment,
    UnknownHost,
    UnknownLauncher,
    UnknownOperator,
    UnknownScale,
    UnknownSlo,
    UnknownSubject,
    UnknownTier,
)
from recommender.ranking import AccuracyMeasurement, Candidate, LatencyBudget


@dataclass(frozen=True)
class EnvironmentFilter:
    """Which environment to answer from: by its key, or by what it is like; nothing given leaves the choice."""

    key: str | None = None
    host: str | None = None
    scale: str | None = None
    launcher: str | None = None

    def __str__(self) -> str:
        properties = (("host", self.host), ("scale", self.scale), ("launcher", self.launcher))
        return ", ".join(f"{name} {value}" for name, value in properties if value is not None)


_ANY = EnvironmentFilter()


@dataclass(frozen=True, eq=False, kw_only=True)
class DeclaredStrategy(Applicability):
    """A declared strategy and what was measured of it; `candidate` is None while nothing was.

    `tiers` are those where a part computes. The evidence ids are content keys, None while nothing is recorded under
    them. `accuracy` is known as soon as it was measured, with or without a latency. `model_bytes` are per tier, None
    while the artifact is not built. `float_operator` names what this operator quantizes. `verdicts` counts completed
    rounds, `doubts` names the first rule that each DOUBTFUL round failed,
    `round_s` is how long a round took (the median).
    """

    rounds_declared: int
    candidate: Candidate | None
    artifact_sha256: Mapping[str, str]
    judged: bool = True
    tiers: tuple[str, ...] = ()
    latency_evidence_id: str | None = None
    accuracy_evidence_id: str | None = None
    accuracy: AccuracyMeasurement | None = None
    model_bytes: Mapping[str, int] | None = None
    float_operator: str | None = None
    verdicts: Mapping[str, int] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    round_s: float | None = None

    @property
    def applicable(self) -> bool:
        """Whether the operator can be applied to this subject at all."""
        return self.status != "inapplicable"

    @property
    def complete(self) -> bool:
        """Nothing is missing: all declared rounds and the accuracy, if it has one, or it cannot apply.

        A race gives a strategy fewer rounds where more could change no answer.
        """
        if not self.applicable:
            return True
        candidate = self.candidate
        if candidate is None or (candidate.rounds < self.rounds_declared and candidate.error_share == 1):
            return False
        return candidate.accuracy is not None or not self.judged


@dataclass(frozen=True, eq=False)
class SubjectEvidence:
    """All strategies of one subject in one environment; `files` are all that its evidence was imported from."""

    subject: str
    task: str
    environment: EnvironmentEvidence
    strategies: tuple[DeclaredStrategy, ...]
    inputs_select: str | None
    last_measured_at: str
    first_measured_at: str | None = None
    files: tuple[Origin, ...] = ()

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """Those that can be ranked."""
        return tuple(strategy.candidate for strategy in self.strategies if strategy.candidate is not None)

    @cached_property
    def by_candidate(self) -> Mapping[Candidate, DeclaredStrategy]:
        """The strategy of each of `candidates`."""
        return {strategy.candidate: strategy for strategy in self.strategies if strategy.candidate is not None}

    @cached_property
    def complete(self) -> bool:
        """Whether every declared strategy has all its evidence, and there is some."""
        # Inapplicable strategies count as complete, and nothing can be answered from those alone.
        return bool(self.candidates) and all(strategy.complete for strategy in self.strategies)


@dataclass(frozen=True, eq=False)
class EnvironmentChoice:
    """The evidence to answer from, in words why, and how many other environments hold evidence of the subject."""

    subject_evidence: SubjectEvidence
    why: str
    others: int


def _preference(subject_evidence: SubjectEvidence) -> tuple[bool, str, int]:
    return (
        subject_evidence.environment.imported_from is None,
        # ISO 8601 in UTC, so that the order of the texts is that of the times.
        subject_evidence.last_measured_at,
        subject_evidence.environment.id,
    )


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything known at one moment; `subjects` maps each to its environments, imported ones last, newest first.

    `linked_strategies` returns what predictions on other links start from, read on demand: few questions need it.
    `left_out` names the unusable rows of the database. `read_subjects` are those that were read again for it; None
    stands for all.
    """

    subjects: Mapping[str, tuple[SubjectEvidence, ...]]
    slos: Mapping[str, SloEvidence]
    loaded_at: datetime
    linked_strategies: Callable[[SubjectEvidence], tuple[LinkedStrategy, ...]] = field(default=lambda _: (), repr=False)
    left_out: tuple[str, ...] = ()
    subject_slos: Mapping[str, Mapping[str, SloEvidence]] = field(default_factory=dict)
    read_subjects: frozenset[str] | None = None

    @classmethod
    def of(
        cls,
        members: Iterable[SubjectEvidence],
        slos: Iterable[SloEvidence],
        linked: Callable[[SubjectEvidence], tuple[LinkedStrategy, ...]] = lambda _: (),
        left_out: tuple[str, ...] = (),
        *,
        subject_slos: Mapping[str, Mapping[str, SloEvidence]] | None = None,
    ) -> "Evidence":
        """Group by subject: what was measured here before what was imported, the most recent first."""
        grouped: dict[str, list[SubjectEvidence]] = {}
        for member in members:
            grouped.setdefault(member.subject, []).append(member)
        for by_environment in grouped.values():
            by_environment.sort(key=_preference, reverse=True)
        subjects = {name: tuple(by_environment) for name, by_environment in sorted(grouped.items())}
        return cls(subjects, {slo.name: slo for slo in slos}, datetime.now(UTC), linked, left_out, subject_slos or {})

    def within(self, environment: str) -> "Evidence":
        """Return the evidence of one environment, by its key."""
        kept = {
            name: tuple(member for member in by_environment if member.environment.key == environment)
            for name, by_environment in self.subjects.items()
        }
        return replace(self, subjects={name: members for name, members in kept.items() if members})

    @property
    def measured(self) -> bool:
        """Whether anything can be answered at all."""
        return any(member.candidates for by_environment in self.subjects.values() for member in by_environment)

    def select(self, subject: str, environment: str | None = None) -> SubjectEvidence:
        """Return the evidence of a subject in one environment, as `choose` takes it."""
        return self.choose(subject, EnvironmentFilter(key=environment)).subject_evidence

    def choose(self, subject: str, conditions: EnvironmentFilter) -> EnvironmentChoice:
        """Choose the environment to answer from: by default the newest with complete evidence.

        Where none is complete, the newest with any evidence; without any, the newest declared. Raises
        `UnknownSubject`, `UnknownEnvironment`, `UnknownHost`, `UnknownScale` or `UnknownLauncher`.
        """
        if conditions != _ANY:
            return self._choose(subject, conditions)
        # Most questions leave the choice, and it changes with the evidence alone.
        choice = self._choices.get(subject)
        if choice is None:
            choice = self._choices[subject] = self._choose(subject, conditions)
        return choice

    @cached_property
    def _choices(self) -> dict[str, EnvironmentChoice]:
        return {}

    def _choose(self, subject: str, conditions: EnvironmentFilter) -> EnvironmentChoice:
        if subject not in self.subjects:
            for reason in self.left_out:
                if reason.startswith(f"subject {subject}: "):
                    raise EvidenceUnavailable(
                        f"the evidence of {subject!r} cannot be used ({reason.removeprefix(f'subject {subject}: ')}); "
                        "`runner verify` names rows that another program wrote"
                    )
            raise UnknownSubject(subject, self.subjects)
        by_environment = self.subjects[subject]
        conditions = _with_whole_key(conditions, by_environment)
        # `_no_environment` always raises, and says which property nothing has.
        matching = [member for member in by_environment if _matches(member.environment, conditions)] or _no_environment(
            by_environment, conditions
        )
        keys = [member.environment.key for member in by_environment]
        preferred = preferred_environment([_standing(member) for member in matching], keys)
        chosen = next(member for member in matching if member.environment.key == preferred.key)
        # An environment without candidates is only declared: nothing of it was left out.
        others = sum(bool(member.candidates) for member in by_environment if member is not chosen)
        return EnvironmentChoice(chosen, _why(chosen, matching, conditions), others)

    def check_names(self, *, tiers: Iterable[str], operators: Iterable[str]) -> None:
        """Raise `UnknownTier` or `UnknownOperator` for a name that no declared strategy has."""
        for tier in tiers:
            if tier not in self.tiers:
                raise UnknownTier(tier, self.tiers)
        for operator in operators:
            if operator not in self.operators:
                raise UnknownOperator(operator, self.operators)

    @cached_property
    def tiers(self) -> frozenset[str]:
        """Every tier that a declared strategy computes on, or that its requests start from."""
        placed = {tier for strategy in self._strategies() for tier in strategy.tiers}
        # The tier that requests start from may compute nothing, yet `keep_raw_input_on` can name it.
        return frozenset(
            placed | {strategy.candidate.client for strategy in self._strategies() if strategy.candidate is not None}
        )

    @cached_property
    def operators(self) -> frozenset[str]:
        """Every declared operator."""
        return frozenset(strategy.operator for strategy in self._strategies())

    def _strategies(self) -> Iterator[DeclaredStrategy]:
        return (
            strategy
            for by_environment in self.subjects.values()
            for member in by_environment
            for strategy in member.strategies
        )

    def slos_of(self, subject: str) -> Mapping[str, SloEvidence]:
        """Return the SLOs of the catalog that declares the subject; those of all for one from elsewhere."""
        return targets_of_subject(subject, self.slos, self.subject_slos, measured_here=self._is_measured_here)

    def _is_measured_here(self, subject: str) -> bool:
        return any(member.environment.origin is None for member in self.subjects.get(subject, ()))

    def slo(self, name: str, subject: str | None = None) -> SloEvidence:
        """Return the SLO of that name, as the subject's catalog declares it; raise `UnknownSlo`."""
        slos = self.slos if subject is None else self.slos_of(subject)
        if name not in slos:
            raise UnknownSlo(name, slos)
        return slos[name]


def latency_budgets(slo: SloEvidence) -> tuple[LatencyBudget, ...]:
    """Return the limits of a declared SLO by ascending percentile."""
    return tuple(LatencyBudget(percentile, max_s) for percentile, max_s in sorted(slo.latency_s.items()))


def _standing(subject_evidence: SubjectEvidence) -> EnvironmentStanding:
    environment = subject_evidence.environment
    return EnvironmentStanding(
        key=environment.key,
        id=environment.id,
        imported=environment.imported_from is not None,
        measured=bool(subject_evidence.candidates),
        complete=subject_evidence.complete,
        finished_at=subject_evidence.last_measured_at,
    )


# Fewer characters of a key are more likely a slip than meant.
_FEWEST_OF_KEY = 8


def begins_key(beginning: str, key: str) -> bool:
    """Return whether a text asks for an environment's key: the whole of it, or its first eight characters or more."""
    return key == beginning or (len(beginning) >= _FEWEST_OF_KEY and key.startswith(beginning))


def _with_whole_key(conditions: EnvironmentFilter, by_environment: Sequence[SubjectEvidence]) -> EnvironmentFilter:
    """Return the conditions with the whole key where they have the beginning of just one."""
    if conditions.key is None:
        return conditions
    keys = [member.environment.key for member in by_environment]
    beginning = [key for key in keys if begins_key(conditions.key, key)]
    return replace(conditions, key=beginning[0]) if len(beginning) == 1 else conditions


def _matches(environment: EnvironmentEvidence, conditions: EnvironmentFilter) -> bool:
    properties = (
        (conditions.key, environment.key),
        (conditions.host, environment.host),
        (conditions.scale, environment.scale),
        (conditions.launcher, environment.launcher),
    )
    return all(want is None or want == has for want, has in properties)


def _no_environment(by_environment: Sequence[SubjectEvidence], conditions: EnvironmentFilter) -> NoReturn:
    """Name what exists: of the first property that nothing has, or of the environments where only all together fail."""
    environments = [member.environment for member in by_environment]
    if conditions.key is not None:
        raise UnknownEnvironment(conditions.key, (environment.key for environment in environments))
    properties: tuple[tuple[type[NotDeclared], str | None, set[str]], ...] = (
        (UnknownHost, conditions.host, {environment.host for environment in environments}),
        (UnknownScale, conditions.scale, {environment.scale for environment in environments}),
        (UnknownLauncher, conditions.launcher, {environment.launcher for environment in environments}),
    )
    for error, want, has in properties:
        if want is not None and want not in has:
            raise error(want, has)
    # Each property exists, but not all together, so whole environments are named.
    existing = (
        str(EnvironmentFilter(None, environment.host, environment.scale, environment.launcher))
        for environment in environments
    )
    raise UnknownEnvironment(str(conditions), existing)


def _why(subject_evidence: SubjectEvidence, matching: Sequence[SubjectEvidence], conditions: EnvironmentFilter) -> str:
    if conditions.key is not None:
        return "asked for by its key"
    among = f" with {conditions}" if str(conditions) else ""
    if len(matching) == 1:
        return f"the only one{among}"
    if subject_evidence.complete:
        return f"the newest complete one{among}"
    return (
        f"the newest one{among}; none is complete" if subject_evidence.candidates else f"the newest declared one{among}"
    )
