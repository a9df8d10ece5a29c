"""A race: rounds only for the strategies that can still prove or change an answer, decided at looks.

Each look reads the stored evidence, so that a race that was stopped or killed continues where it was. Which strategies
leave and which are measured next is decided by `recommender.ranking.racing`; here it is turned into rounds.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from catalog.declaration import Catalog
from catalog.evidence.allowed import utc_now, utc_text
from catalog.evidence.database import Database
from catalog.evidence.soundness import sound_database
from catalog.evidence.tables import replace_departures
from catalog.statistics.feasibility import look_of, next_look
from recommender.answer.wording import chance
from recommender.evidence.loading import AccuracyBounds, load
from recommender.evidence.model import DeclaredStrategy, Evidence
from recommender.ranking import Budgets, Candidate, LatencyBudget, Status
from recommender.ranking.racing import Contest, RaceQuestion, RaceState, at_look, race_state
from runner.measuring.fill import Filler, StopRequest
from runner.measuring.keyed_strategy import KeyedStrategy, RunContext
from runner.measuring.plan import MissingRound, Plan, race_range, rounds_until

# Of a strategy that no round says how long it takes.
_GUESSED_ROUND_S = 5.0
TIME_OVER = "the time is over"
UNMEASURABLE = "what is undecided could not be measured"


def declared_questions(catalog: Catalog) -> tuple[RaceQuestion, ...]:
    """Return the declared SLOs as the questions of a race."""
    return tuple(
        RaceQuestion(
            name,
            Budgets(
                latency=tuple(LatencyBudget(percentile, max_s) for percentile, max_s in sorted(slo.latency_s.items())),
                min_accuracy_pct=slo.accuracy.min_pct,
                max_accuracy_drop_pp=slo.accuracy.max_drop_pp,
                percentile=max(slo.latency_s, default=Budgets().percentile),
            ),
        )
        for name, slo in catalog.slos.items()
    )


class RaceEvidence:
    """The measured strategies of an environment, read again at every look."""

    def __init__(self, database: Database, environment_key: str) -> None:
        self._database, self._environment_key = database, environment_key
        self._bounds: dict[str, AccuracyBounds] = {}
        self._before: dict[str, Evidence] = {}

    def read(self, subject: str, keyed: Mapping[str, KeyedStrategy]) -> dict[str, DeclaredStrategy]:
        """Return what is measured of strategies, by name, under the keys that they have now."""
        bounds = self._bounds.setdefault(subject, AccuracyBounds())
        evidence = load(sound_database(self._database), bounds, self._before.get(subject), subject=subject)
        self._before[subject] = evidence
        stored = {
            f"{subject}/{strategy.operator}@{strategy.placement}": strategy
            for member in evidence.subjects.get(subject, ())
            if member.environment.key == self._environment_key
            for strategy in member.strategies
        }
        # A strategy that was declared otherwise before has evidence under another key.
        return {
            name: stored[name]
            for name, own in keyed.items()
            if name in stored and stored[name].candidate and stored[name].latency_evidence_id == own.latency_key
        }


class SubjectRace:
    """The race of one subject: how it stands, and which rounds come next.

    `entrants` are the declared strategies that can be measured, by name, `covered` those of them that a fill's scope
    names. `spent` are those whose rounds failed, so that nothing is tried without end; `end` is why the race stopped
    before everything was decided.
    """

    def __init__(
        self, subject: str, plan: Plan, evidence: RaceEvidence, questions: Sequence[RaceQuestion], *, explicit: bool
    ) -> None:
        self.subject, self.questions = subject, tuple(questions)
        self._explicit, self._evidence = explicit, evidence
        self.entrants = {
            keyed.strategy.name: keyed
            for keyed in plan.declared
            if keyed.strategy.subject == subject and keyed.artifact_key not in plan.inapplicable
        }
        self._covered = {name for name, keyed in self.entrants.items() if plan.scope.covers(keyed.strategy)}
        self.spent: set[str] = set()
        self.end: str | None = None
        self.look()

    def look(self) -> None:
        """Read the evidence and decide by it."""
        measured = self._evidence.read(self.subject, self.entrants)
        self.seconds = {name: strategy.round_s or _GUESSED_ROUND_S for name, strategy in measured.items()}
        self.candidates = {
            name: strategy.candidate for name, strategy in measured.items() if strategy.candidate is not None
        }
        seconds = {candidate: self.seconds[name] for name, candidate in self.candidates.items()}
        self.state = race_state(tuple(self.candidates.values()), self.questions, seconds_per_round=seconds)

    @property
    def contests(self) -> Sequence[Contest]:
        """The declared or asked questions; without any, the one of the fastest."""
        return self.state.contests[: max(1, len(self.questions))]

    def rounds(self, name: str) -> int:
        """Return how many rounds of a strategy count."""
        return self.candidates[name].rounds if name in self.candidates else 0

    def racing(self) -> list[str]:
        """Return the strategies that the next rounds hold, the most deciding first."""
        names = {candidate: name for name, candidate in self.candidates.items()}
        unmeasured = [name for name in self.entrants if name not in self.candidates]
        holding = (*unmeasured, *(names[candidate] for candidate in self._next()))
        return [name for name in holding if name in self._covered and name not in self.spent]

    def _next(self) -> Iterator[Candidate]:
        if not self._explicit:
            yield from self.state.next
            return
        # What would also be good to know is left to the fill of the catalog: a question is answered as soon as it can.
        deciding = {
            candidate
            for contest in self.contests
            if not _settled(contest)
            for candidate in (*contest.undecided, contest.leader, contest.challenger)
        }
        yield from (candidate for candidate in self.state.next if candidate in deciding)

    def targets(self, first: int, left_s: float) -> dict[str, int]:
        """Return for each strategy of the next rounds how many it shall have by then.

        After every round rivals may drop out. Beyond the first look, only as many strategies as the time suffices for
        until the next one, the most deciding first: between looks nothing is promised.
        """
        racing = self.racing()
        if not racing:
            return {}
        least = min(map(self.rounds, racing))
        target, look = least + 1, next_look(least, first).rounds
        behind = [name for name in racing if self.rounds(name) < target]
        if target <= first:
            return dict.fromkeys(behind, target)
        fitting: dict[str, int] = {}
        for name in behind:
            left_s -= (look - self.rounds(name)) * self.seconds.get(name, _GUESSED_ROUND_S)
            if left_s < 0:
                break
            fitting[name] = target
        return fitting

    def between_looks(self, first: int) -> bool:
        """Return whether what would be recommended has rounds of a look that is not complete yet."""
        leaders = (contest.leader for contest in self.contests)
        return any(leader is not None and leader.rounds > first and not at_look(leader) for leader in leaders)

    def seconds_to_look(self, first: int) -> float:
        """Return how long the rounds before the next decision take."""
        racing = self.racing()
        if not racing:
            return 0.0
        target = next_look(min(map(self.rounds, racing)), first).rounds
        return sum(max(0, target - self.rounds(name)) * self.seconds.get(name, _GUESSED_ROUND_S) for name in racing)

    def lines(self) -> list[str]:
        """Return a line for each question."""
        return [f"{self.subject} · {contest_words(contest, len(self.candidates))}" for contest in self.contests]


def _settled(contest: Contest) -> bool:
    """Return whether an asked question needs no further round: it is decided, or what it recommends is proven."""
    best = contest.answer.recommendation
    if best is None or not contest.question.budgets.any_set:
        return contest.decided
    return contest.decided or (best.status is Status.PROVEN and at_look(best.candidate))


def contest_words(contest: Contest, candidates: int) -> str:
    """Say how a question stands among so many candidates."""
    best, budgets = contest.answer.recommendation, contest.question.budgets
    if best is None:
        infeasible = contest.answer.infeasible
        standing = "nothing answers it yet" if infeasible is None else f"no strategy keeps it, {infeasible}"
    else:
        standing = f"{best.candidate.operator} on {best.candidate.placement}"
        if budgets.any_set:
            uncertain = best.status in _UNCERTAIN and best.probability is not None
            standing += f", {best.status}" + (f" {chance(best.probability or 0.0)}" if uncertain else "")
    undecided = len(contest.undecided)
    return f"{contest.question.name}: {standing}" + (f" ({undecided} of {candidates} undecided)" if undecided else "")


_UNCERTAIN = ("likely", "open")


@dataclass(frozen=True, eq=False)
class RaceResult:
    """How the race of one subject ended; `end` is None where nothing was left to decide."""

    subject: str
    contests: tuple[Contest, ...]
    state: RaceState
    rounds: Mapping[str, int]
    samples: int
    seconds: float
    seconds_if_fixed: float
    seconds_to_look: float
    end: str | None

    @property
    def decided(self) -> bool:
        """Whether no further round could prove or change an answer."""
        return bool(self.contests) and all(contest.decided for contest in self.contests)


@dataclass(frozen=True, eq=False)
class RaceOutcome:
    """How the races of all subjects ended."""

    results: tuple[RaceResult, ...]

    @property
    def decided(self) -> bool:
        """Whether every question is decided for every subject."""
        return all(result.decided for result in self.results)


class Race:
    """Measures until every question is decided, the time is over, or nothing further can be measured.

    Parameters
    ----------
    filler : Filler
    questions : sequence of RaceQuestion or None
        What to decide; None for the declared SLOs, with the fastest at every accuracy besides.
    max_time_s : float or None
        How long rounds are begun; one that would end later is not begun. For a question, accuracies count, too.
    expect : callable
        Called with the rounds of each look before they are measured.
    """

    def __init__(
        self,
        filler: Filler,
        *,
        questions: Sequence[RaceQuestion] | None = None,
        max_time_s: float | None = None,
        expect: Callable[[Sequence[MissingRound]], None] = lambda rounds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._filler, self._expect, self._clock = filler, expect, clock
        self._context = filler.setups.context
        self._explicit = questions is not None
        self._questions = declared_questions(self._context.catalog) if questions is None else tuple(questions)
        self._first = self._context.catalog.experiment.rounds
        self._max_time_s = math.inf if max_time_s is None else max_time_s
        self._deadline = clock() + self._max_time_s
        self._late: set[str] = set()
        self._shown: list[str] = []

    def run(self, plan: Plan, stop: StopRequest) -> RaceOutcome:
        """Measure the accuracies of a plan and what it measures again, then look by look."""
        filler = self._filler
        with filler.launcher.kept():
            filler.judge(plan.accuracies, stop)
            # Of a fill only rounds are limited: without accuracies they could decide little.
            if not self._explicit:
                self._deadline = self._clock() + self._max_time_s
            self._measure([task for task in plan.rounds if task.supersedes], stop)
            races = list(self._races(plan))
            self._report(races)
            while not stop.requested and (targets := self._targets(races)):
                database = sound_database(filler.database)
                tasks = rounds_until(plan, self._context, database, targets, reason="undecided")
                self._expect(tasks)
                self._measure(tasks, stop)
                # Without all rounds of a look nothing is decided: the last complete one stands.
                if not stop.requested:
                    self._look(races, targets)
        return RaceOutcome(tuple(self._result(race, stop) for race in races))

    def _races(self, plan: Plan) -> Iterator[SubjectRace]:
        evidence = RaceEvidence(self._filler.database, self._context.environment_key)
        for subject in dict.fromkeys(keyed.strategy.subject for keyed in plan.declared):
            yield SubjectRace(subject, plan, evidence, self._questions, explicit=self._explicit)

    def _targets(self, races: Sequence[SubjectRace]) -> dict[str, int]:
        """Return the rounds that the next look of every race needs; races that nothing can continue end."""
        left_s = self._deadline - self._clock()
        active = [race for race in races if race.end is None and race.racing()]
        for race in active:
            if not race.targets(self._first, left_s):
                race.end = TIME_OVER
        active = [race for race in active if race.end is None]
        targets: dict[str, int] = {}
        for race in active:
            targets |= race.targets(self._first, left_s / len(active))
        # Where no even share suffices, one race can still use all that is left.
        return targets if targets or not active else active[0].targets(self._first, left_s)

    def _measure(self, tasks: Sequence[MissingRound], stop: StopRequest) -> None:
        self._filler.measure_rounds(tasks, stop, in_time=self._in_time)
        self._filler.measure_again(stop, in_time=self._in_time)

    def _in_time(self, task: MissingRound) -> bool:
        if self._clock() + task.estimate_s <= self._deadline:
            return True
        self._late.add(task.keyed.strategy.name)
        return False

    def _look(self, races: Sequence[SubjectRace], targets: Mapping[str, int]) -> None:
        for race in races:
            due = [name for name in race.entrants if name in targets]
            if not due:
                continue
            race.look()
            behind = {name for name in due if race.rounds(name) < targets[name]}
            if behind & self._late:
                race.end = TIME_OVER
            race.spent |= behind - self._late
        self._report(races)

    def _report(self, races: Sequence[SubjectRace]) -> None:
        """Show and store how the races stand."""
        measured = [race for race in races if race.candidates]
        if not self._explicit:
            with self._filler.database.writing_session() as writing:
                for race in measured:
                    rows = departure_rows(race.state, self._first)
                    environment_id = self._filler.environment_id
                    replace_departures(writing, rows, environment_id=environment_id, subject=race.subject)
                writing.commit()
        lines = [line for race in measured for line in race.lines()]
        # A look for which the time did not suffice says nothing new, and nothing is decided between looks.
        if lines != self._shown and not any(race.between_looks(self._first) for race in measured):
            self._shown = lines
            undecided = {candidate for race in measured for contest in race.contests for candidate in contest.undecided}
            open_races = (race for race in races if race.end is None)
            left_s = min(self._deadline - self._clock(), sum(map(self._seconds_to_look, open_races)))
            self._filler.watcher.look(lines, len(undecided), max(0.0, left_s))

    def _seconds_to_look(self, race: SubjectRace) -> float:
        return race.seconds_to_look(self._first)

    def _result(self, race: SubjectRace, stop: StopRequest) -> RaceResult:
        end = "stopped" if stop.requested else race.end
        if end is None and race.spent and not (race.contests and all(contest.decided for contest in race.contests)):
            end = UNMEASURABLE
        rounds = {name: race.rounds(name) for name in race.entrants}
        deepest = max(rounds.values(), default=0)
        return RaceResult(
            subject=race.subject,
            contests=tuple(race.contests),
            state=race.state,
            rounds=rounds,
            samples=sum(candidate.samples for candidate in race.candidates.values()),
            seconds=sum(race.rounds(name) * seconds for name, seconds in race.seconds.items()),
            seconds_if_fixed=sum(deepest * race.seconds.get(name, _GUESSED_ROUND_S) for name in race.entrants),
            seconds_to_look=self._seconds_to_look(race),
            end=end,
        )


def departure_rows(state: RaceState, first: int) -> Iterator[Mapping[str, object]]:
    """Yield who left, as rows of `race_departure`."""
    now = utc_text(utc_now())
    for departure in state.departures.values():
        candidate, by = departure.candidate, departure.by
        yield {
            "operator": candidate.operator,
            "placement": candidate.placement,
            "look": look_of(departure.rounds, first).number,
            "rounds": departure.rounds,
            "reason": departure.reason,
            "by_operator": by and by.operator,
            "by_placement": by and by.placement,
            "slo": departure.slo,
            "margin": departure.margin,
            "created_at": now,
        }


def race_plan(
    plan: Plan, context: RunContext, database: Database, *, questions: Sequence[RaceQuestion] | None = None
) -> Plan:
    """Return a plan with the rounds of the race's next look in place of all declared ones.

    `questions` are as for `Race`.
    """
    evidence, first = RaceEvidence(database, context.environment_key), context.catalog.experiment.rounds
    explicit = questions is not None
    questions = declared_questions(context.catalog) if questions is None else questions
    targets: dict[str, int] = {}
    early: dict[str, int] = {}
    for subject in dict.fromkeys(keyed.strategy.subject for keyed in plan.declared):
        race = SubjectRace(subject, plan, evidence, questions, explicit=explicit)
        racing = race.racing()
        least = min(map(race.rounds, racing), default=0)
        target = next_look(least, first).rounds
        behind = [name for name in racing if race.rounds(name) < target]
        targets |= dict.fromkeys(behind, target)
        # Some drop out after any round, before the look.
        early |= dict.fromkeys(behind, least + 1)
    redone = tuple(task for task in plan.rounds if task.supersedes)
    added = rounds_until(plan, context, database, targets, reason="undecided")
    raced = replace(plan, rounds=(*added, *redone))
    optional_s = sum(task.estimate_s for task in added if task.round > early[task.keyed.strategy.name])
    return replace(raced, race_time=race_range(raced.estimate_s - optional_s, raced.estimate_s))
