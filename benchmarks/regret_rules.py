"""What `benchmarks.regret` compares: the recommender, the recommender without one of its parts, and simpler rules."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from scipy import special

from catalog.statistics.feasibility import drop_within, latency_within, step_down
from catalog.statistics.outcomes import sidak
from recommender.ranking import Budgets, Candidate, RankedAnswer, estimate, interval, recommend

PERCENTILE = 90.0
# What the study's conclusion calls a minimal loss of accuracy, in percentage points.
MINIMAL_LOSS_PP = 1.0


@dataclass(frozen=True)
class Choice:
    """A strategy, or none; `infeasible` when the rule says that there is none rather than that it cannot tell.

    `asserted` are all that the rule says keep within the budgets, `undecided` those it knows and cannot tell about.
    """

    candidate: Candidate | None
    infeasible: bool = False
    asserted: frozenset[tuple[str, str]] = frozenset()
    undecided: frozenset[tuple[str, str]] = frozenset()


Rule = Callable[[Sequence[Candidate], Budgets], Choice]


def recommender(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Apply the recommender as it is."""
    return _recommended(tuple(candidates), budgets)


@lru_cache(maxsize=1)
def _recommended(candidates: tuple[Candidate, ...], budgets: Budgets) -> Choice:
    return _choice(recommend(candidates, budgets))


def without_ties(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Choose the fastest estimate instead of the most accurate of those equivalent to it."""
    choice = recommender(candidates, budgets)
    asserted = [candidate for candidate in candidates if _name(candidate) in choice.asserted]
    return replace(choice, candidate=_fastest(asserted))


def _choice(answer: RankedAnswer) -> Choice:
    undecided = frozenset(_name(candidate.estimate.candidate) for candidate in answer.undecided)
    if answer.recommendation is None:
        return Choice(None, infeasible=not undecided, undecided=undecided)
    asserted = [answer.recommendation, *(alternative.estimate for alternative in answer.alternatives)]
    return Choice(
        answer.recommendation.candidate,
        asserted=frozenset(_name(feasible.candidate) for feasible in asserted),
        undecided=undecided,
    )


def own_rounds_one_level(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Take each variance from its own rounds, and one level (Sidak's) for all candidates."""
    level = sidak(budgets.confidence, comparisons=len(candidates))
    return _holding(candidates, budgets, [_alone(candidate, budgets) >= level for candidate in candidates])


def own_rounds_step_down(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Take each variance from its own rounds, and step down over the candidates."""
    sure = [_alone(candidate, budgets) for candidate in candidates]
    levels = step_down(sure, confidence_level=budgets.confidence).levels
    return _holding(candidates, budgets, [one >= level for one, level in zip(sure, levels, strict=True)])


def uncorrected(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Judge each candidate as if it were the only one: promises less than the confidence says."""
    return _holding(candidates, budgets, [_alone(candidate, budgets) >= budgets.confidence for candidate in candidates])


def knowing(error_of_latency: float, error_of_drop_pp: Sequence[float]) -> Rule:
    """Build a ceiling from the true standard errors (of log latency and of each drop), with no price for many.

    At the asked confidence no test of one candidate from these estimates finds more that holds. Whatever pays for
    unknown variances or for many candidates answers less.
    """

    def rule(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
        margin = float(special.ndtri(budgets.confidence))
        most = math.inf if budgets.max_accuracy_drop_pp is None else budgets.max_accuracy_drop_pp
        holds = []
        for candidate, error_pp in zip(candidates, error_of_drop_pp, strict=True):
            assert candidate.accuracy is not None and candidate.accuracy.drop_pp is not None
            late = math.log(estimate(candidate, PERCENTILE).percentile_s) + margin * error_of_latency
            lost = candidate.accuracy.drop_pp + margin * error_pp
            holds.append(late <= math.log(budgets.latency[0].max_s) and lost <= most)
        return _holding(candidates, budgets, holds)

    return rule


def point_estimates(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Choose by estimates alone, with no caution: what is left is the noise of judging."""
    return _holding(candidates, budgets, [_within(candidate, budgets) for candidate in candidates])


def smallest_median(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Choose the smallest median of those whose medians and estimated drops keep within the budgets."""
    fitting = [
        candidate
        for candidate in candidates
        if estimate(candidate, PERCENTILE).median_s <= budgets.latency[0].max_s and _drops_within(candidate, budgets)
    ]
    if not fitting:
        return Choice(None, infeasible=True)
    best = min(fitting, key=lambda candidate: estimate(candidate, PERCENTILE).median_s)
    return Choice(best, asserted=frozenset(map(_name, fitting)))


def rules_of_thumb(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Follow the study: quantized on edge for a minimal loss of accuracy, else quantized early exit on edge."""
    most = budgets.max_accuracy_drop_pp
    return _named(candidates, "quantized" if most is not None and most <= MINIMAL_LOSS_PP else "quantized_early_exit")


def quantized_on_edge(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Choose quantized on edge always."""
    return _named(candidates, "quantized")


def _named(candidates: Sequence[Candidate], operator: str) -> Choice:
    chosen = next((candidate for candidate in candidates if _name(candidate) == (operator, "edge")), None)
    return Choice(chosen, asserted=frozenset() if chosen is None else frozenset([_name(chosen)]))


def _name(candidate: Candidate) -> tuple[str, str]:
    return candidate.operator, candidate.placement


def _holding(candidates: Sequence[Candidate], budgets: Budgets, holds: Sequence[bool]) -> Choice:
    """Choose the fastest of those that hold; those within by estimate only are undecided."""
    asserted = [candidate for candidate, holding in zip(candidates, holds, strict=True) if holding]
    undecided = [
        candidate
        for candidate, holding in zip(candidates, holds, strict=True)
        if not holding and _within(candidate, budgets)
    ]
    return Choice(
        _fastest(asserted),
        infeasible=not asserted and not undecided,
        asserted=frozenset(map(_name, asserted)),
        undecided=frozenset(map(_name, undecided)),
    )


def _fastest(candidates: Sequence[Candidate]) -> Candidate | None:
    return min(candidates, key=lambda candidate: estimate(candidate, PERCENTILE).percentile_s, default=None)


def _within(candidate: Candidate, budgets: Budgets) -> bool:
    return estimate(candidate, PERCENTILE).percentile_s <= budgets.latency[0].max_s and _drops_within(
        candidate, budgets
    )


def _drops_within(candidate: Candidate, budgets: Budgets) -> bool:
    most, accuracy = budgets.max_accuracy_drop_pp, candidate.accuracy
    return most is None or (accuracy is not None and (accuracy.drop_pp or 0.0) <= most)


@lru_cache(maxsize=100)
def _alone(candidate: Candidate, budgets: Budgets) -> float:
    """Return the confidence of one candidate by itself; 0 where an estimate misses or nothing can be said."""
    if not _within(candidate, budgets):
        return 0.0
    checks = [latency_within(interval(candidate, PERCENTILE), budgets.latency[0].max_s)]
    if budgets.max_accuracy_drop_pp is not None:
        if candidate.accuracy is None or candidate.accuracy.drop is None:
            return 0.0
        checks.append(drop_within(candidate.accuracy.drop, budgets.max_accuracy_drop_pp))
    return min(check.confidence for check in checks)


RULES: dict[str, Rule] = {
    "recommender": recommender,
    "… ties to the fastest, not to the most accurate": without_ties,
    "… without the others' variances and shared accuracy": own_rounds_step_down,
    "… and with one level for all": own_rounds_one_level,
    "no correction for many (promises less)": uncorrected,
    "point estimates (promises nothing)": point_estimates,
    "smallest median": smallest_median,
    "the study's rules of thumb": rules_of_thumb,
    "always quantized on edge": quantized_on_edge,
}
