"""What to measure so that an answer becomes sure: a command that works, and how long it takes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from catalog.statistics.feasibility import BudgetCheck, error_share, with_share
from catalog.statistics.intervals import PercentileInterval
from catalog.statistics.log_estimate import LogEstimate
from catalog.statistics.posterior import MACHINES_MAX, ROUNDS_MAX, machines_needed, rounds_needed
from recommender.answer.question_command import conditions_of, fill_command, recommend_command
from recommender.answer.strategy_fields import strategy_id
from recommender.answer.wording import percentile_name
from recommender.errors import FILL_COMMAND
from recommender.evidence.model import DeclaredStrategy, SubjectEvidence
from recommender.ranking import Candidate, Foresight, Gap, NearMiss, RankedAnswer, UndecidedCandidate, interval
from recommender.ranking.candidates import CandidateCache
from recommender.ranking.feasibility import steadied
from recommender.schemas import NotConsideredOut, RecommendRequest

# With so many, how rounds differ begins to be known; as many more are a step.
_ROUNDS = 3
# More names would make a command too long to read.
_NAMES = 4
# A question measures the rivals of a strategy beside it: as a rule two, of which one is the next best.
_RACING = 3
# Where no round has taken any time yet.
_UNKNOWN_MINUTES = 10
_WORDS = ("Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve")


@dataclass(frozen=True)
class ToDo:
    """What would make an answer sure; `command` is None where no command can, `seconds` where that is unknown.

    Where rounds are what lacks, `by_rounds` are the words for another command and its time.
    """

    words: str
    command: str | None = None
    seconds: float | None = None
    by_rounds: str | None = None


_of_rounds: CandidateCache[ToDo] = CandidateCache()


class Planner:
    """Plans what to measure for one answer."""

    def __init__(
        self,
        answer: RankedAnswer,
        subject_evidence: SubjectEvidence,
        strategies: Mapping[Candidate, DeclaredStrategy],
        request: RecommendRequest,
    ) -> None:
        self._answer = answer
        self._request = request
        self._subject = subject_evidence.subject
        self._environment = subject_evidence.environment
        self._strategies = strategies
        self._intervals: dict[float, Mapping[Candidate, PercentileInterval]] = {}

    def whole(self, not_considered: Sequence[NotConsideredOut]) -> ToDo | None:
        """Return what would make the whole answer sure; None where it is, or where nothing can."""
        best = self._answer.recommendation or next(iter(self._answer.within), None)
        if best is not None:
            to_do = None if best.gap is None else self.for_gap(best.gap)
        else:
            unmeasured = [entry for entry in not_considered if entry.could_change_answer and entry.command is not None]
            to_do = self._for_unmeasured(unmeasured) if unmeasured else None
        return None if to_do is None else self._by_question(to_do)

    def _by_question(self, to_do: ToDo) -> ToDo:
        """Return the same with the command that asks the question again and measures what it lacks.

        What was imported is measured elsewhere, strategy by strategy; predictions on other links take no rounds.
        """
        request, environment = self._request, self._environment
        if to_do.by_rounds is None or environment.imported_from is not None or request.links:
            return to_do
        seconds = None if to_do.seconds is None else _RACING * to_do.seconds
        minutes = _UNKNOWN_MINUTES if seconds is None else max(1, math.ceil(seconds / 60))
        # Those that the question names are among its own options.
        conditions = conditions_of(environment, launcher=request.launcher is None, scale=request.scale is None)
        command = recommend_command(request, *conditions, "--measure", f"{minutes}m")
        if command is None:
            return to_do
        words = to_do.by_rounds.format(time=_time(seconds), command=command)
        return replace(to_do, command=command, seconds=seconds, words=words)

    def _for_unmeasured(self, unmeasured: Sequence[NotConsideredOut]) -> ToDo:
        names = [strategy_id(self._subject, strategy.operator, strategy.placement) for strategy in unmeasured]
        command = self._command(only=names if len(names) <= _NAMES else [])
        count = f"{len(names)} strategies are" if len(names) > 1 else "One strategy is"
        # Those that were measured say how long a round takes.
        taken = [strategy.round_s for strategy in self._strategies.values() if strategy.round_s is not None]
        seconds = len(names) * _ROUNDS * median(taken) if taken else None
        words = f"{count} not measured yet and could change this answer: `{{command}}`"
        return ToDo(words.format(command=command), command, seconds, words)

    def for_gap(self, gap: UndecidedCandidate) -> ToDo:
        """Return what a strategy lacks."""
        candidate = gap.estimate.candidate
        if gap.gap is Gap.ONE_ROUND:
            return self._rounds(candidate, _ROUNDS, "would say how sure that is")
        if gap.miss is not None:
            return self._for_miss(candidate, gap.miss)
        if gap.gap is Gap.TOO_THIN and gap.percentile is not None:
            return self._for_thin(candidate, gap.percentile, gap.inputs_needed)
        if gap.gap is Gap.BY_MODEL:
            # Each round adds inputs of the largest sizes, on which such a percentile rests.
            return self._rounds(candidate, candidate.rounds + _ROUNDS, "may show it with inputs of these sizes")
        if gap.gap is Gap.UNPROVEN and gap.percentile is not None:
            return self._for_latency(gap)
        if gap.gap is Gap.UNPROVEN:
            return ToDo(_items(gap.check))
        if gap.gap is Gap.TOO_FEW_IMAGES:
            return ToDo("Judge it on more validation images, or ask without an accuracy budget")
        return self._for_accuracy(gap)

    def _for_thin(self, candidate: Candidate, percentile: float, inputs_needed: int | None) -> ToDo:
        refusal = interval(candidate, percentile).refusal
        # Further rounds bring further inputs only where each draws its own.
        if candidate.design is not None and refusal is not None:
            return self._rounds(candidate, refusal.rounds_needed, f"would bound {percentile_name(percentile)}")
        if self._environment.of_rows:
            lower = f"ask for a lower percentile than {percentile_name(percentile)}"
            return ToDo(f"Import rows of {inputs_needed} or more inputs, or {lower}")
        return ToDo(
            f"Set `experiment.inputs` to {inputs_needed} or more, with as many inputs in the data, and run "
            f"`{self._command()}`{self._where}, or ask for a lower percentile than {percentile_name(percentile)}"
        )

    def _for_miss(self, candidate: Candidate, miss: NearMiss) -> ToDo:
        if not miss.latency:
            return ToDo(_items(None))
        if candidate.predicted is not None:
            return _on_links(candidate.predicted)
        if self._by_machines(candidate, [late.budget.percentile for late in miss.latency]):
            words = (
                f"{_on_these(candidate, 'show whether it keeps the budgets')} of their class: measure on more testbeds"
            )
            return ToDo(f"{words} with the same `replicas`")
        return self._rounds(
            candidate, candidate.rounds + _ROUNDS, "would show more clearly whether it keeps the budgets"
        )

    def _for_latency(self, gap: UndecidedCandidate) -> ToDo:
        candidate = gap.estimate.candidate
        # More rounds at the present rates would not reduce the model's error; those at the asked rates replace it.
        if candidate.predicted is not None:
            return _on_links(candidate.predicted)
        lost = next((check for check in self._accuracy_checks(gap) if not check.holds), None)
        if lost is not None:
            # Rounds alone would not do.
            return ToDo(_items(lost))
        needed = self._rounds_needed(gap, new_inputs=candidate.design is not None)
        if needed is None and self._rounds_needed(gap, new_inputs=True) is not None:
            return ToDo(
                f"More rounds alone would not prove it, because they send the same {candidate.inputs} inputs: raise "
                f"`experiment.inputs` and run `{self._command()}`{self._where}, or ask at a lower `confidence`"
            )
        if needed is None and self._by_machines(
            candidate, [budget.percentile for budget in self._answer.budgets.latency]
        ):
            return ToDo(self._on_more_machines(gap))
        if needed is None:
            return ToDo(
                f"Not even {ROUNDS_MAX} rounds would prove it: ask for a wider budget, or at a lower `confidence`"
            )
        return self._rounds(candidate, needed, "should make sure")

    def _accuracy_checks(self, gap: UndecidedCandidate) -> Sequence[BudgetCheck]:
        return gap.estimate.checks[len(self._answer.budgets.latency) :]

    def _by_machines(self, candidate: Candidate, percentiles: Sequence[float]) -> bool:
        """Return whether what the machines of a class differ in decides how far a percentile may be off."""
        estimates = (self._steadied(percentile)[candidate].estimate for percentile in percentiles)
        return any(estimate is not None and estimate.by_machines for estimate in estimates)

    def _on_more_machines(self, gap: UndecidedCandidate) -> str:
        """Say how many testbeds of a class would prove it, where further rounds on those that there are cannot."""
        candidate = gap.estimate.candidate

        def needed(steady: LogEstimate, limit: float, level: float, tests: int) -> int | None:
            return machines_needed(steady, limit, confidence_level=level, tests=tests)

        machines, shown = self._most_needed(gap, 2, needed), _on_these(candidate, "prove it")
        if machines is None:
            return (
                f"{shown}, and not even {MACHINES_MAX} of their class would: ask for a wider budget, or at a lower "
                "`confidence`"
            )
        return f"{shown} of their class: {machines} testbeds with the same `replicas`, all measured, should make sure"

    def _rounds_needed(self, gap: UndecidedCandidate, *, new_inputs: bool) -> int | None:
        """Return the rounds that prove every latency budget; None where no number that can be measured would."""
        rounds = gap.estimate.candidate.rounds

        def needed(steady: LogEstimate, limit: float, level: float, tests: int) -> int | None:
            return rounds_needed(
                steady, limit, confidence_level=level, rounds=rounds, new_inputs=new_inputs, tests=tests
            )

        return self._most_needed(gap, rounds, needed)

    def _most_needed(
        self, gap: UndecidedCandidate, present: int, needed: Callable[[LogEstimate, float, float, int], int | None]
    ) -> int | None:
        """Return what proves every latency budget, at the level of the next look; None where one needs too much."""
        candidate, budgets = gap.estimate.candidate, self._answer.budgets.latency
        checks = gap.estimate.checks
        most = present
        for budget, check in zip(budgets, checks, strict=False):
            steady = self._steadied(budget.percentile)[candidate].estimate
            if check.holds or steady is None:
                continue
            # Of one look that may spend everything: the next one has another share than the last.
            level = with_share(check.level, 1 / candidate.error_share)
            number = needed(
                steady,
                math.log(budget.max_s),
                with_share(level, error_share(candidate.looks + 1)),
                _tests(self._answer.budgets.confidence, level),
            )
            if number is None:
                return None
            most = max(most, number)
        return most

    def _steadied(self, percentile: float) -> Mapping[Candidate, PercentileInterval]:
        # Once for all that an answer calls undecided.
        if percentile not in self._intervals:
            considered = [estimate.candidate for estimate in self._answer.considered]
            self._intervals[percentile] = steadied(considered, percentile)
        return self._intervals[percentile]

    def _for_accuracy(self, gap: UndecidedCandidate) -> ToDo:
        candidate = gap.estimate.candidate
        if gap.gap is not Gap.DROP_MISSING and not candidate.judged:
            return ToDo("Ask without an accuracy budget, or give the subject labels (`task: any` has none)")
        # A drop lacks identity's accuracy; any placement of it will do.
        references = [other for other in self._strategies if not other.changed]
        unjudged = references[0] if gap.gap is Gap.DROP_MISSING and references else candidate
        accuracy = candidate.accuracy
        if self._environment.of_rows and gap.gap is Gap.ITEMS_MISSING and accuracy and accuracy.metric != "top1":
            return ToDo(f"Ask without an accuracy budget: rows bound no {accuracy.metric}, an export has its images")
        if self._environment.of_rows:
            column = " with the column `items`" if gap.gap is Gap.ITEMS_MISSING else ""
            return ToDo(f"Importing the accuracy of {unjudged.operator}{column} would say how sure that is")
        command = self._command(only=[self._id(unjudged)])
        return ToDo(f"Measuring the accuracy of {unjudged.operator} would say how sure that is: `{command}`", command)

    def _rounds(self, candidate: Candidate, rounds: int, effect: str) -> ToDo:
        """Return the command that measures up to so many rounds of one strategy."""
        round_s = self._strategies[candidate].round_s
        key = self._subject, self._environment.key, rounds, round_s, effect
        return _of_rounds.get(candidate, key, lambda: self._measured(candidate, rounds, round_s, effect))

    def _measured(self, candidate: Candidate, rounds: int, round_s: float | None, effect: str) -> ToDo:
        if self._environment.of_rows:
            return ToDo(f"Rows of {rounds} rounds in all (column `round`) {effect}")
        command = self._command(rounds=rounds, only=[self._id(candidate)])
        seconds = None if round_s is None else round_s * (rounds - candidate.rounds)
        words = f"{{time}} of measuring{self._where} {effect}: `{{command}}`"
        return ToDo(words.format(time=_time(seconds), command=command), command, seconds, words)

    @property
    def _where(self) -> str:
        # In the environment of another machine nothing can be measured from here.
        return "" if self._environment.imported_from is None else " on the machine that this evidence comes from"

    def _id(self, candidate: Candidate) -> str:
        return strategy_id(self._subject, candidate.operator, candidate.placement)

    def _command(self, *, rounds: int | None = None, only: Sequence[str] = ()) -> str:
        words = [] if rounds is None else ["--rounds", str(rounds)]
        words += [word for name in only for word in ("--only", name)]
        return fill_command(self._environment, *words)


def _on_links(foresight: Foresight) -> ToDo:
    links = " and ".join(foresight.links)
    return ToDo(f"Declare {links} as asked and measure it there (`{FILL_COMMAND}`), or ask at a lower `confidence`")


def _tests(confidence: float, level: float) -> int:
    """Return among how many tests one needs a level, for all to hold together at a confidence.

    Examples
    --------
    >>> _tests(0.95, 0.95 ** (1 / 18)), _tests(0.95, 0.95), _tests(0.9999999999999999, 1.0)
    (18, 1, 1)
    """
    return max(1, round(math.log(confidence) / math.log(level))) if level < 1 else 1


def _on_these(candidate: Candidate, effect: str) -> str:
    """Say that further rounds on the testbeds of a class that a strategy ran on would not have an effect."""
    *names, last = sorted({*candidate.hosts.values()})
    count = len(names) + 1
    on = f"{', '.join(names)} and {last}"
    return f"More rounds on {on} would not {effect}, because {count} testbeds say little about others"


def _items(check: BudgetCheck | None) -> str:
    needed = None if check is None else check.items_needed
    more = "more" if needed is None else f"at least {needed}"
    return f"Judge it on {more} validation items, ask at a lower `confidence`, or for a wider budget of accuracy"


def _time(seconds: float | None) -> str:
    """Return a time as one says it.

    Examples
    --------
    >>> _time(12.0), _time(50), _time(130), _time(7300), _time(None)
    ('12 more seconds', 'One more minute', 'Two more minutes', '2.0 more hours', 'More rounds')
    """
    if seconds is None:
        return "More rounds"
    if seconds < 45:
        return f"{max(1, round(seconds))} more second{'s' if round(seconds) > 1 else ''}"
    minutes = round(seconds / 60)
    if minutes <= 1:
        return "One more minute"
    if minutes <= len(_WORDS) + 1:
        return f"{_WORDS[minutes - 2]} more minutes"
    return f"{minutes} more minutes" if minutes < 90 else f"{minutes / 60:.1f} more hours"
