"""What `benchmarks.regret` compares: the recommender, the recommender without one of its parts, and simpler rules."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from scipy import special

from catalog.statistics import drop_within, latency_within, step_down
from catalog.statistics.outcomes import sidak
from recommender.ranking import Answer, Budgets, Candidate, estimate, interval, recommend

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
    """As it is."""
    return _recommended(tuple(candidates), budgets)


@lru_cache(maxsize=1)
def _recommended(candidates: tuple[Candidate, ...], budgets: Budgets) -> Choice:
    return _choice(recommend(candidates, budgets))


def without_ties(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """The fastest estimate instead of the most accurate of those equivalent to it."""
    choice = recommender(candidates, budgets)
    asserted = [candidate for candidate in candidates if _name(candidate) in choice.asserted]
    return replace(choice, candidate=_fastest(asserted))


def _choice(answer: Answer) -> Choice:
    undecided = frozenset(_name(each.estimate.candidate) for each in answer.undecided)
    if answer.recommendation is None:
        return Choice(None, infeasible=not undecided, undecided=undecided)
    asserted = [answer.recommendation, *(alternative.estimate for alternative in answer.alternatives)]
    return Choice(
        answer.recommendation.candidate,
        asserted=frozenset(_name(each.candidate) for each in asserted),
        undecided=undecided,
    )


def own_rounds_one_level(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Each variance from its own rounds, one level (Sidak's) for all candidates."""
    level = sidak(budgets.confidence, comparisons=len(candidates))
    return _holding(candidates, budgets, [_alone(candidate, budgets) >= level for candidate in candidates])


def own_rounds_step_down(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Each variance from its own rounds, step-down over the candidates."""
    sure = [_alone(candidate, budgets) for candidate in candidates]
    levels = step_down(sure, confidence_level=budgets.confidence).levels
    return _holding(candidates, budgets, [one >= level for one, level in zip(sure, levels, strict=True)])


def uncorrected(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Each candidate at the asked confidence as if it were the only one: promises less than asked."""
    return _holding(candidates, budgets, [_alone(candidate, budgets) >= budgets.confidence for candidate in candidates])


def knowing(error_of_latency: float, error_of_drop_pp: Sequence[float]) -> Rule:
    """A ceiling: the true standard errors (of log latency, and of each candidate's drop), no price for many.

    At the asked confidence no test of one candidate from these estimates finds more that holds. Whatever pays for
    unknown variances or for many candidates answers less.
    """

    def rule(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
        margin = float(special.ndtri(budgets.confidence))
        most = math.inf if budgets.max_accuracy_drop_pp is None else budgets.max_accuracy_drop_pp
        holds = []
        for each, error_pp in zip(candidates, error_of_drop_pp, strict=True):
            assert each.accuracy is not None and each.accuracy.drop_pp is not None
            late = math.log(estimate(each, PERCENTILE).percentile_s) + margin * error_of_latency
            lost = each.accuracy.drop_pp + margin * error_pp
            holds.append(late <= math.log(budgets.latency[0].max_s) and lost <= most)
        return _holding(candidates, budgets, holds)

    return rule


def point_estimates(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Whatever is within the budgets by its estimates, with no caution at all: what is left is the judge's noise."""
    return _holding(candidates, budgets, [_within(candidate, budgets) for candidate in candidates])


def smallest_median(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """The smallest median of those whose medians and estimated drops keep within the budgets."""
    fitting = [
        candidate
        for candidate in candidates
        if estimate(candidate, PERCENTILE).median_s <= budgets.latency[0].max_s and _drops_within(candidate, budgets)
    ]
    if not fitting:
        return Choice(None, infeasible=True)
    best = min(fitting, key=lambda each: estimate(each, PERCENTILE).median_s)
    return Choice(best, asserted=frozenset(map(_name, fitting)))


def rules_of_thumb(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """The study's conclusion: quantized on edge for a minimal loss of accuracy, else quantized early exit on edge."""
    most = budgets.max_accuracy_drop_pp
    return _named(candidates, "quantized" if most is not None and most <= MINIMAL_LOSS_PP else "quantized_early_exit")


def quantized_on_edge(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Always."""
    return _named(candidates, "quantized")


def _named(candidates: Sequence[Candidate], operator: str) -> Choice:
    found = next((candidate for candidate in candidates if _name(candidate) == (operator, "edge")), None)
    return Choice(found, asserted=frozenset() if found is None else frozenset([_name(found)]))


def _name(each: Candidate) -> tuple[str, str]:
    return each.operator, each.placement


def _holding(candidates: Sequence[Candidate], budgets: Budgets, holds: Sequence[bool]) -> Choice:
    """The fastest of those that hold; those that do not though their estimates are within are undecided."""
    asserted = [each for each, held in zip(candidates, holds, strict=True) if held]
    undecided = [each for each, held in zip(candidates, holds, strict=True) if not held and _within(each, budgets)]
    return Choice(
        _fastest(asserted),
        infeasible=not asserted and not undecided,
        asserted=frozenset(map(_name, asserted)),
        undecided=frozenset(map(_name, undecided)),
    )


def _fastest(candidates: Sequence[Candidate]) -> Candidate | None:
    return min(candidates, key=lambda candidate: estimate(candidate, PERCENTILE).percentile_s, default=None)


def _within(each: Candidate, budgets: Budgets) -> bool:
    return estimate(each, PERCENTILE).percentile_s <= budgets.latency[0].max_s and _drops_within(each, budgets)


def _drops_within(each: Candidate, budgets: Budgets) -> bool:
    most, accuracy = budgets.max_accuracy_drop_pp, each.accuracy
    return most is None or (accuracy is not None and (accuracy.drop_pp or 0.0) <= most)


@lru_cache(maxsize=100)
def _alone(each: Candidate, budgets: Budgets) -> float:
    """The confidence of one candidate by itself; 0 where an estimate misses or nothing can be said."""
    if not _within(each, budgets):
        return 0.0
    checks = [latency_within(interval(each, PERCENTILE), budgets.latency[0].max_s)]
    if budgets.max_accuracy_drop_pp is not None:
        if each.accuracy is None or each.accuracy.drop is None:
            return 0.0
        checks.append(drop_within(each.accuracy.drop, budgets.max_accuracy_drop_pp))
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
