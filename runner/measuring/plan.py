"""The plan of a fill: its scope, which evidence the declared strategies lack, why, and how long measuring takes.

`make_plan` keys every strategy once per run. Afterwards `update_plan` takes in what building the artifacts showed, and
`remaining` looks up what is still missing; neither reads a model or a dataset for strategies that did not change.

The guesses of durations fit the four embedded subjects on two cores within a factor of two; the progress bar corrects
them as it goes. A race is estimated as a range, because its evidence decides how many rounds it needs.
"""

import random
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from types import MappingProxyType

from catalog.declaration import Catalog, Strategy
from catalog.declaration.schema import ExperimentSpec
from catalog.evidence.database import Database
from catalog.evidence.loading import stored_samples
from catalog.evidence.lookups import (
    accuracy_done,
    doubtful_rounds,
    inapplicable_artifacts,
    last_accuracy_failure,
    last_measurement,
    measured_pool,
    rounds_with_looks,
    unequal_compositions,
)
from catalog.evidence.queries import Reader
from catalog.evidence.records import LastMeasurement, RoundLook
from catalog.statistics.feasibility import error_share, look_of
from catalog.statistics.samples import Samples
from catalog.units import counted, parse_wait
from runner.errors import RunnerError, SubjectError, describe
from runner.measuring.keyed_strategy import KeyedStrategy, RunContext, key_strategy
from runner.measuring.round_inputs import FixedInputs
from runner.measuring.stopping import Narrowness, assess, planned_looks
from runner.measuring.tiers import route_links
from runner.operators.base import passes_code
from runner.subjects.dataset import Subject
from runner.subjects.folders import FolderDataset

_NAMED = 5


@dataclass(frozen=True)
class FillScope:
    """What a plan covers; without arguments, the declared rounds of all strategies.

    Attributes
    ----------
    rounds : int or None
        Rounds of each strategy, in place of the declared number. It may be more or less.
    only : tuple of str
        The strategies, each as `operator@placement` or `subject:operator:placement`; empty for all.
    redo_doubtful : bool
        Whether rounds whose verdict is DOUBTFUL are measured again.
    race : bool or None
        Whether strategies race, in place of what the catalog says.
    max_time : str or None
        How long rounds are added, in place of the catalog's.
    """

    rounds: int | None = None
    only: tuple[str, ...] = ()
    redo_doubtful: bool = False
    race: bool | None = None
    max_time: str | None = None

    def races(self, experiment: ExperimentSpec) -> bool:
        """Return whether further rounds are those of a race; a number of rounds replaces it."""
        return self.rounds is None and (experiment.race if self.race is None else self.race)

    def max_time_s(self, experiment: ExperimentSpec) -> float | None:
        """Return for how long rounds may be added; None without a limit."""
        return experiment.max_time_s if self.max_time is None else parse_wait(self.max_time)

    def covers(self, strategy: Strategy) -> bool:
        """Return whether the strategy is one of those to measure."""
        return not self.only or bool(_spellings(strategy) & set(self.only))

    def check(self, strategies: Iterable[Strategy]) -> None:
        """Raise RunnerError for a name that is not declared, so that a misspelled one is not taken for a filled one."""
        spellings = {spelling: strategy for strategy in strategies for spelling in _spellings(strategy)}
        for name in self.only:
            if name not in spellings:
                likely = get_close_matches(name, spellings, _NAMED) or list(spellings)[:_NAMED]
                raise RunnerError(f"{name!r} is no declared strategy; some that are: {', '.join(sorted(likely))}")

    @property
    def arguments(self) -> str:
        """Return the options that ask for this scope, each after a blank."""
        rounds = [] if self.rounds is None else ["--rounds", str(self.rounds)]
        only = [word for name in self.only for word in ("--only", name)]
        redo = ["--redo", "doubtful"] if self.redo_doubtful else []
        race = [] if self.race is None else ["--race" if self.race else "--no-race"]
        time = [] if self.max_time is None else ["--max-time", self.max_time]
        return "".join(f" {shlex.quote(word)}" for word in (*rounds, *only, *redo, *race, *time))


EVERYTHING = FillScope()


def _spellings(strategy: Strategy) -> set[str]:
    subject, operator, placement = strategy.subject, strategy.operator, strategy.placement.name
    return {f"{operator}@{placement}", f"{subject}:{operator}:{placement}", strategy.name}


# To start and stop the first tier; each link adds the next tier, with its shaping and its probes.
_FIRST_TIER_S, _LINK_S = 1.0, 1.2
_ACCURACY_S = 3.0
# Of a model whose file is not there yet.
_GUESSED_LATENCY_S = 0.06
# From the file's size: about right for classifiers from MobileNet to BERT, too short for segmentation.
_LEAST_LATENCY_S, _LATENCY_S_PER_BYTE = 0.005, 1e-9
_GUESSED_INPUT_BYTES = 50_000
# A warm-up until the latency is steady sends one input about so often.
_STEADY_INFERENCES = 12
# Accuracies are measured on all CPUs, and items one after another without a link.
_ITEMS_AT_ONCE = 2
# How much of what no strategy is certain to measure a race takes: few strategies stay, and those are mostly fast ones.
_LEAST_SHARE, _MOST_SHARE = 0.1, 0.5


@dataclass(frozen=True)
class TimeRange:
    """The least and the most seconds that something is likely to take."""

    least_s: float
    most_s: float


def round_estimate_s(context: RunContext, keyed: KeyedStrategy, last: LastMeasurement | None) -> float:
    """Return how long a round of a strategy will take; `last` is its last measurement."""
    # The last measurement under the same key took as long as the next one will.
    if last is not None and last.status == "complete" and last.latency_key == keyed.latency_key:
        return last.duration_s
    experiment, subject = context.catalog.experiment, context.subjects[keyed.strategy.subject]
    rates = [link.up_bit_per_s for link in route_links(context.catalog, keyed.strategy, context.scale)]
    # A transfer takes as long as its slowest link lets it; the others overlap with it.
    transmission_s = 8 * _input_bytes(subject) / min(rates) if rates else 0.0
    tiers = (context.catalog.tiers[name] for name in keyed.strategy.placement.tiers)
    cpus = min(1.0, *(float(context.scale.factor) * tier.cpus for tier in tiers))
    inputs = keyed.inputs.count
    warmup = _STEADY_INFERENCES if experiment.warmup == "steady" else inputs * experiment.warmup
    count = warmup + inputs * experiment.repetitions
    return _FIRST_TIER_S + _LINK_S * len(rates) + count * (_latency_s(subject) / cpus + transmission_s)


def accuracy_estimate_s(subject: Subject) -> float:
    """Return how long an accuracy of a subject will take."""
    return _ACCURACY_S + subject.dataset.item_count() * _latency_s(subject) / _ITEMS_AT_ONCE


def race_range(certain_s: float, all_s: float) -> TimeRange:
    """Return how long a race is likely to take until its next look.

    Parameters
    ----------
    certain_s : float
        What everything takes that comes before strategies may leave.
    all_s : float
        What it takes if none leaves until the look.

    Examples
    --------
    >>> race_range(40.0, 120.0)
    TimeRange(least_s=48.0, most_s=80.0)
    """
    rest_s = all_s - certain_s
    return TimeRange(certain_s + _LEAST_SHARE * rest_s, certain_s + _MOST_SHARE * rest_s)


def _latency_s(subject: Subject) -> float:
    """Return a guess at the latency of one inference on a whole CPU."""
    try:
        return _LEAST_LATENCY_S + _LATENCY_S_PER_BYTE * subject.model.stat().st_size
    except OSError:
        return _GUESSED_LATENCY_S


def _input_bytes(subject: Subject) -> float:
    """Return the mean size of a subject's inputs; a guess where they would have to be generated to be weighed."""
    if not isinstance(subject.dataset, FolderDataset):
        return _GUESSED_INPUT_BYTES
    sizes = [entry.size for entry in subject.dataset.input_pool().inputs]
    return sum(sizes) / len(sizes)


# Of the rounds of a declared plan, which is one look that may spend the whole error.
DECLARED_LOOK = RoundLook()
_NONE: Mapping[str, tuple[str, ...]] = MappingProxyType({})


@dataclass(frozen=True)
class MissingRound:
    """One round of one strategy to measure; `supersedes` is set where it takes the place of a DOUBTFUL one.

    `look` is what the round is measured for, with what a decision at it may spend of the error.
    """

    keyed: KeyedStrategy
    round: int
    reason: str
    estimate_s: float
    supersedes: bool = False
    look: RoundLook = DECLARED_LOOK


@dataclass(frozen=True)
class MissingAccuracy:
    """An accuracy that has no evidence; `keyed` is one of the strategies that need it."""

    keyed: KeyedStrategy
    reason: str
    estimate_s: float


@dataclass(frozen=True)
class Plan:
    """Everything a fill has to do, in order; `unready` says which subjects lack what.

    `inapplicable` gives the reason by artifact key. `race_time` is how long a race is likely to take, whose rounds are
    those until its next look if no strategy leaves before; None where all rounds are measured in any case.
    """

    declared: tuple[KeyedStrategy, ...]
    inapplicable: Mapping[str, str]
    accuracies: tuple[MissingAccuracy, ...]
    rounds: tuple[MissingRound, ...]
    unready: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scope: FillScope = EVERYTHING
    race_time: TimeRange | None = None

    @property
    def estimate_s(self) -> float:
        return sum(task.estimate_s for task in self.accuracies) + sum(task.estimate_s for task in self.rounds)


def make_plan(
    context: RunContext,
    database: Database,
    scope: FillScope = EVERYTHING,
    *,
    unusable: Mapping[str, tuple[str, ...]] = _NONE,
) -> Plan:
    """Key the declared strategies and look up what evidence they lack within a scope.

    `unusable` says what subjects lack that cannot be seen before their data are read (`RunContext.prepare`).
    """
    lacking = ((name, unusable.get(name) or _lacks(context, name)) for name in context.catalog.subjects)
    unready = {name: lacks for name, lacks in lacking if lacks}
    with database.reading() as reading:
        declared = _key_all(context, unready, unequal_compositions(reading))
        return _look_up(context, Plan(declared, {}, (), (), unready, scope), reading)


def _key_all(
    context: RunContext, unready: dict[str, tuple[str, ...]], unequal: Collection[str]
) -> tuple[KeyedStrategy, ...]:
    """Key the strategies of all subjects that are ready; one whose files changed since is added to `unready`."""
    keyed: list[KeyedStrategy] = []
    for strategy in context.catalog.strategies():
        if strategy.subject not in unready:
            try:
                keyed.append(key_strategy(context, strategy, unequal=unequal))
            except (SubjectError, OSError) as error:
                unready[strategy.subject] = (describe(error),)
    return tuple(own for own in keyed if own.strategy.subject not in unready)


def _lacks(context: RunContext, name: str) -> tuple[str, ...]:
    """Return what a subject lacks that can be seen before its data are read."""
    if name in context.unopened:
        return (context.unopened[name].removeprefix(f"subject {name}: "),)
    return context.subjects[name].absent()


def rounds_until(
    plan: Plan, context: RunContext, database: Database, targets: Mapping[str, int], *, reason: str
) -> tuple[MissingRound, ...]:
    """Return the rounds that strategies, by name, lack of so many; `reason` is why more than are known are needed."""
    covered = _covered(plan.declared, plan.scope, plan.inapplicable)
    with database.reading() as reading:
        missing: list[MissingRound] = []
        for keyed in covered:
            if keyed.strategy.name in targets:
                lookup = _RoundLookup(context, keyed, reading, plan.scope)
                missing += lookup.undone(targets[keyed.strategy.name], reason=reason)
        return _once(missing)


def remaining(plan: Plan, context: RunContext, database: Database) -> Plan:
    """Look up what the strategies of a plan still lack; their keys stay as they are."""
    with database.reading() as reading:
        return _look_up(context, plan, reading)


def update_plan(plan: Plan, context: RunContext, database: Database) -> Plan:
    """Return the plan with what building its artifacts showed.

    An operator may have turned out inapplicable, and parts that do not equal the model they were cut from have an
    accuracy of their own. Only those strategies are keyed and looked up again; the others keep their tasks.
    """
    with database.reading() as reading:
        unequal, inapplicable = unequal_compositions(reading), inapplicable_artifacts(reading, refused_by=passes_code())
        declared = tuple(_keyed_by_proof(keyed, context, unequal) for keyed in plan.declared)
        # By name: a strategy whose accuracy is judged in another way has another accuracy key, but stays the same task.
        usable = {keyed.strategy.name: keyed for keyed in _covered(declared, plan.scope, inapplicable)}
        # A task keeps its inputs: those of a further look are more than the declared ones.
        rounds = tuple(
            replace(task, keyed=replace(usable[task.keyed.strategy.name], inputs=task.keyed.inputs))
            for task in plan.rounds
            if task.keyed.strategy.name in usable
        )
        # An imported refusal does not outlive an artifact that was built here.
        freed = [keyed for keyed in usable.values() if keyed.artifact_key in plan.inapplicable]
        rounds += _missing_rounds(context, freed, reading, plan.scope)
        accuracies = _updated_accuracies(context, plan, _with_metric(context, usable.values()), reading)
    return replace(plan, declared=declared, inapplicable=inapplicable, accuracies=accuracies, rounds=rounds)


def _look_up(context: RunContext, plan: Plan, reading: Reader) -> Plan:
    inapplicable = inapplicable_artifacts(reading, refused_by=passes_code())
    usable = _covered(plan.declared, plan.scope, inapplicable)
    accuracies = _missing_accuracies(context, _with_metric(context, usable), reading)
    rounds = _missing_rounds(context, usable, reading, plan.scope)
    return replace(plan, inapplicable=inapplicable, accuracies=accuracies, rounds=rounds)


def _covered(declared: Iterable[KeyedStrategy], scope: FillScope, inapplicable: Collection[str]) -> list[KeyedStrategy]:
    """Return the strategies that can be measured and that the scope names."""
    return [keyed for keyed in declared if keyed.artifact_key not in inapplicable and scope.covers(keyed.strategy)]


def _keyed_by_proof(keyed: KeyedStrategy, context: RunContext, unequal: Collection[str]) -> KeyedStrategy:
    """Key a strategy again if its parts turned out unequal where equality was expected, or the other way round."""
    inherits = keyed.judged.artifact_key != keyed.artifact_key
    is_cut = inherits or keyed.judged.composed
    if not is_cut or inherits != (keyed.artifact_key in unequal):
        return keyed
    return key_strategy(context, keyed.strategy, unequal=unequal)


def _with_metric(context: RunContext, strategies: Iterable[KeyedStrategy]) -> list[KeyedStrategy]:
    """Return the strategies of subjects that are judged by something; others are only timed."""
    return [keyed for keyed in strategies if context.subjects[keyed.strategy.subject].metric is not None]


def _updated_accuracies(
    context: RunContext, plan: Plan, strategies: Sequence[KeyedStrategy], reading: Reader
) -> tuple[MissingAccuracy, ...]:
    """Keep the planned accuracies that a strategy still needs, and add those whose key is new."""
    planned = {task.keyed.accuracy_key: task for task in plan.accuracies}
    looked_up = {keyed.accuracy_key for keyed in _covered(plan.declared, plan.scope, plan.inapplicable)}
    added = [keyed for keyed in strategies if keyed.accuracy_key not in looked_up]
    planned |= {task.keyed.accuracy_key: task for task in _missing_accuracies(context, added, reading)}
    # The strategy that stood for an accuracy may be gone; the first one left that needs it takes its place.
    needed: dict[str, MissingAccuracy] = {}
    for keyed in strategies:
        if keyed.accuracy_key in planned and keyed.accuracy_key not in needed:
            needed[keyed.accuracy_key] = replace(planned[keyed.accuracy_key], keyed=keyed)
    return tuple(needed.values())


def _missing_accuracies(
    context: RunContext, declared: Sequence[KeyedStrategy], reading: Reader
) -> tuple[MissingAccuracy, ...]:
    missing: dict[str, MissingAccuracy] = {}
    subjects = {keyed.strategy.subject for keyed in declared}
    estimates = {name: accuracy_estimate_s(context.subjects[name]) for name in subjects}
    for keyed in declared:
        if keyed.accuracy_key not in missing and not accuracy_done(reading, keyed.accuracy_key):
            failure = last_accuracy_failure(reading, keyed.accuracy_key)
            reason = f"last attempt failed: {failure.splitlines()[0]}" if failure else "no accuracy with this key"
            missing[keyed.accuracy_key] = MissingAccuracy(keyed, reason, estimates[keyed.strategy.subject])
    return tuple(missing.values())


def _missing_rounds(
    context: RunContext, declared: Sequence[KeyedStrategy], reading: Reader, scope: FillScope
) -> tuple[MissingRound, ...]:
    missing, experiment = [], context.catalog.experiment
    for keyed in declared:
        lookup = _RoundLookup(context, keyed, reading, scope)
        undone = lookup.undone(scope.rounds or experiment.rounds, reason="more declared")
        # A number of rounds replaces the rule that adds rounds until the interval is narrow.
        if not undone and experiment.precision is not None and scope.rounds is None:
            undone = lookup.further()
        missing += undone
        if scope.redo_doubtful:
            missing += lookup.doubtful()
    return _once(missing)


def _once(rounds: Iterable[MissingRound]) -> tuple[MissingRound, ...]:
    """Return each round once: two subjects of one model and the same data share their evidence."""
    return tuple({(task.keyed.latency_key, task.round): task for task in rounds}.values())


@dataclass(frozen=True, eq=False)
class _RoundLookup:
    """Looks up which rounds a strategy lacks."""

    context: RunContext
    keyed: KeyedStrategy
    reading: Reader
    scope: FillScope

    @cached_property
    def done(self) -> Mapping[int, RoundLook]:
        """The rounds that count, with the look of each."""
        return rounds_with_looks(self.reading, self.keyed.latency_key)

    @cached_property
    def last(self) -> LastMeasurement | None:
        """The last measurement in this environment, under whichever key."""
        strategy = self.keyed.strategy
        place, environment = strategy.placement.name, self.context.environment_key
        return last_measurement(self.reading, strategy.subject, strategy.operator, place, environment)

    def undone(self, rounds: int, *, reason: str) -> list[MissingRound]:
        """Return what is missing of so many rounds."""
        numbers = [number for number in range(1, rounds + 1) if number not in self.done]
        # Why is looked up only where something is missing: most plans are of complete evidence.
        why = _why(self.keyed, self.last, len(self.done), self.reading, reason) if numbers else ""
        return [self._missing(number, why) for number in numbers]

    def further(self) -> list[MissingRound]:
        """Return the rounds of the next look of a precision; none where the interval is narrow enough."""
        samples = stored_samples(self.reading, self.keyed.latency_key)
        if samples is None:
            return []
        narrowness = assess_stored(self.context, self.keyed, samples, self.done)
        if narrowness.next is None:
            return []
        reason = f"{narrowness}, {100 * narrowness.target:g} % wanted"
        return [self._missing(number, reason) for number in narrowness.next.rounds if number not in self.done]

    def doubtful(self) -> list[MissingRound]:
        """Return the rounds that are DOUBTFUL, to be measured again, each for the look that it was measured for."""
        reasons = sorted(doubtful_rounds(self.reading, self.keyed.latency_key).items())
        return [
            replace(self._missing(number, f"DOUBTFUL: {reason}"), supersedes=True, look=self.done[number])
            for number, reason in reasons
        ]

    def _missing(self, number: int, reason: str) -> MissingRound:
        sending = with_inputs_of_round(self.context, self.keyed, number)
        estimate_s = round_estimate_s(self.context, sending, self.last)
        return MissingRound(sending, number, reason, estimate_s, look=self._look(number))

    def _look(self, number: int) -> RoundLook:
        """Return the look of a round: that of the race's schedule, or one more where a fixed plan is extended."""
        experiment = self.context.catalog.experiment
        former = max((look.look or 1 for look in self.done.values()), default=1)
        if self.scope.races(experiment):
            scheduled = look_of(number, experiment.rounds)
            # An extension by hand was a look, too, and may have had a later number.
            look = scheduled.number if former <= scheduled.number else former + 1
            return RoundLook(look=look, error_share=error_share(look))
        extends = self.scope.rounds is not None and number > experiment.rounds <= len(self.done)
        return RoundLook(look=former + 1, error_share=error_share(former + 1)) if extends else DECLARED_LOOK


def with_inputs_of_round(context: RunContext, keyed: KeyedStrategy, number: int) -> KeyedStrategy:
    """Return a strategy with the inputs of a round, which are more than the declared ones in a further look."""
    experiment, subject = context.catalog.experiment, context.subjects[keyed.strategy.subject]
    if experiment.precision is None or not isinstance(keyed.inputs, FixedInputs):
        return keyed
    looks = planned_looks(experiment, len(subject.dataset.input_ids()))
    inputs = next((look.inputs for look in looks if number in look.rounds), looks[-1].inputs)
    ids = _more_inputs(keyed.inputs.ids, context.catalog, subject, inputs)
    return replace(keyed, inputs=replace(keyed.inputs, ids=ids))


def assess_stored(context: RunContext, keyed: KeyedStrategy, samples: Samples, done: Collection[int]) -> Narrowness:
    """Return how narrow the interval of a strategy's stored samples is, and the look that comes after rounds `done`."""
    experiment, dataset = context.catalog.experiment, context.subjects[keyed.strategy.subject].dataset
    looks = planned_looks(experiment, len(dataset.input_ids()))
    return assess(samples, experiment, looks=looks, done=done)


def _more_inputs(chosen: tuple[str, ...], catalog: Catalog, subject: Subject, count: int) -> tuple[str, ...]:
    """Return the chosen inputs followed by the next ones of the same selection."""
    if count <= len(chosen):
        return chosen
    if catalog.experiment.select == "largest":
        return tuple(subject.dataset.largest(count))
    # Seeded, and after the chosen ones: a wider look contains the narrower one, so that its rounds compare.
    rest = sorted(set(subject.dataset.input_ids()) - set(chosen))
    random.Random(catalog.experiment.seed).shuffle(rest)
    return (*chosen, *rest[: count - len(chosen)])


def _why(keyed: KeyedStrategy, last: LastMeasurement | None, done: int, reading: Reader, more: str) -> str:
    """Return why rounds are missing, in a phrase that a person can check."""
    if last is None:
        return "never measured in this environment"
    if last.latency_key == keyed.latency_key:
        if last.status == "failed":
            return f"last attempt failed: {last.reason}"
        if last.verdict == "INVALID":
            return f"last attempt invalid: {last.reason}"
        return f"{counted(done, 'round')} measured, {more}"
    names = dict.fromkeys((*keyed.conditions, *last.conditions))
    changed = [name for name in names if keyed.conditions.get(name) != last.conditions.get(name)]
    if changed:
        return f"{', '.join(changed)} changed since it was measured"
    return _changed_inputs(keyed, measured_pool(reading, last.latency_key)) or "model, operator or inputs changed"


def _changed_inputs(keyed: KeyedStrategy, before: Mapping[str, int]) -> str | None:
    """Say in what a pool differs from the one measured before; None where it does not, or nothing is known of it."""
    # The second one last: embedded pictures have to be generated for it.
    if not before or keyed.inputs.pool is None:
        return None
    unit, now = keyed.inputs.pool.unit, {entry.id: entry.size for entry in keyed.inputs.pool.inputs}
    said = [f"{name} is gone" for name in before if name not in now]
    resized = [name for name in before if name in now and now[name] != before[name]]
    said += [f"{name} had {before[name]} {unit} and has {now[name]}" for name in resized]
    said += [f"{name} is new" for name in now if name not in before]
    more = f", and {len(said) - 1} more" if len(said) > 1 else ""
    return f"inputs changed since it was measured: {said[0]}{more}" if said else None


@dataclass(frozen=True)
class SettingPlan:
    """What a fill has to do at one setting of its catalog."""

    context: RunContext
    plan: Plan


def without_repeats(plans: Sequence[SettingPlan]) -> Iterator[SettingPlan]:
    """Yield the plans in order, each without what an earlier one measures: some strategies no setting touches."""
    rounds: set[tuple[str, int]] = set()
    accuracies: set[str] = set()
    for own in plans:
        yield replace(
            own,
            plan=replace(
                own.plan,
                rounds=tuple(task for task in own.plan.rounds if (task.keyed.latency_key, task.round) not in rounds),
                accuracies=tuple(task for task in own.plan.accuracies if task.keyed.accuracy_key not in accuracies),
            ),
        )
        rounds |= {(task.keyed.latency_key, task.round) for task in own.plan.rounds}
        accuracies |= {task.keyed.accuracy_key for task in own.plan.accuracies}


def joined(plans: Sequence[SettingPlan]) -> Plan:
    """Return one plan of all settings; of several races, the time is that of all of them."""
    first = plans[0].plan
    times = [own.plan.race_time for own in plans if own.plan.race_time is not None]
    race_time = TimeRange(sum(time.least_s for time in times), sum(time.most_s for time in times)) if times else None
    return replace(
        first,
        inapplicable={key: reason for own in plans for key, reason in own.plan.inapplicable.items()},
        rounds=tuple(task for own in plans for task in own.plan.rounds),
        accuracies=tuple(task for own in plans for task in own.plan.accuracies),
        race_time=race_time,
    )
