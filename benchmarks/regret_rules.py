"""What `benchmarks.regret` compares: the recommender, simpler rules, and a ceiling that knows the true variances."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from benchmarks.regret_studies import Truth
from recommender.ranking import Budgets, Candidate, RankedAnswer, estimate, recommend

PERCENTILE = 90.0
# What the study's conclusion calls a minimal loss of accuracy, in percentage points.
MINIMAL_LOSS_PP = 1.0


@dataclass(frozen=True)
class Choice:
    """A strategy, or none."""

    candidate: Candidate | None


Rule = Callable[[Sequence[Candidate], Budgets], Choice]


def recommender(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Take the head line of an answer."""
    return _choice(recommend(candidates, budgets, relax=False))


def proven_alone(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Take a proven strategy or none."""
    return _choice(recommend(candidates, budgets, proven_only=True, relax=False))


def _choice(answer: RankedAnswer) -> Choice:
    best = answer.recommendation
    return Choice(None if best is None else best.candidate)


def knowing(error_of_latency: ArrayLike, error_of_drop_pp: Sequence[float]) -> Rule:
    """Build a ceiling from the true standard errors (of log latency and of each drop), with no price for many.

    At the asked confidence no test of one candidate from these estimates finds more that holds. Whatever pays for
    unknown variances or for many candidates answers less.
    """

    def rule(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
        margin = float(special.ndtri(budgets.confidence))
        most = math.inf if budgets.max_accuracy_drop_pp is None else budgets.max_accuracy_drop_pp
        holds = []
        errors = np.broadcast_to(np.asarray(error_of_latency, dtype=np.float64), len(candidates)).tolist()
        for candidate, error, error_pp in zip(candidates, errors, error_of_drop_pp, strict=True):
            assert candidate.accuracy is not None and candidate.accuracy.drop_pp is not None
            late = math.log(estimate(candidate, PERCENTILE).percentile_s) + margin * error
            lost = candidate.accuracy.drop_pp + margin * error_pp
            holds.append(late <= math.log(budgets.latency[0].max_s) and lost <= most)
        return _holding(candidates, holds)

    return rule


def knowing_truths(truths: Sequence[Truth]) -> Rule:
    """Build a rule that chooses the fastest of those whose truths hold, whatever their estimates say."""

    def rule(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
        holding = [pair for pair in zip(candidates, truths, strict=True) if pair[1].holds(budgets)]
        return Choice(min(holding, key=lambda pair: pair[1].latency_s)[0] if holding else None)

    return rule


def point_estimates(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Choose by estimates alone, with no caution: what is left is the noise of judging."""
    return _holding(candidates, [_within(candidate, budgets) for candidate in candidates])


def smallest_median(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Choose the smallest median of those whose medians and estimated drops keep within the budgets."""
    fitting = [
        candidate
        for candidate in candidates
        if estimate(candidate, PERCENTILE).median_s <= budgets.latency[0].max_s and _drops_within(candidate, budgets)
    ]
    if not fitting:
        return Choice(None)
    return Choice(min(fitting, key=lambda candidate: estimate(candidate, PERCENTILE).median_s))


def rules_of_thumb(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Follow the study: quantized on edge for a minimal loss of accuracy, else quantized early exit on edge."""
    most = budgets.max_accuracy_drop_pp
    return _named(candidates, "quantized" if most is not None and most <= MINIMAL_LOSS_PP else "quantized_early_exit")


def quantized_on_edge(candidates: Sequence[Candidate], budgets: Budgets) -> Choice:
    """Choose quantized on edge always."""
    return _named(candidates, "quantized")


def _named(candidates: Sequence[Candidate], operator: str) -> Choice:
    chosen = next((candidate for candidate in candidates if _name(candidate) == (operator, "edge")), None)
    return Choice(chosen)


def _name(candidate: Candidate) -> tuple[str, str]:
    return candidate.operator, candidate.placement


def _holding(candidates: Sequence[Candidate], holds: Sequence[bool]) -> Choice:
    """Choose the fastest of those that hold."""
    return Choice(_fastest([candidate for candidate, holding in zip(candidates, holds, strict=True) if holding]))


def _fastest(candidates: Sequence[Candidate]) -> Candidate | None:
    return min(candidates, key=lambda candidate: estimate(candidate, PERCENTILE).percentile_s, default=None)


def _within(candidate: Candidate, budgets: Budgets) -> bool:
    return estimate(candidate, PERCENTILE).percentile_s <= budgets.latency[0].max_s and _drops_within(
        candidate, budgets
    )


def _drops_within(candidate: Candidate, budgets: Budgets) -> bool:
    most, accuracy = budgets.max_accuracy_drop_pp, candidate.accuracy
    return most is None or (accuracy is not None and (accuracy.drop_pp or 0.0) <= most)


RULES: dict[str, Rule] = {
    "recommender": recommender,
    "recommender, proven alone": proven_alone,
    "point estimates": point_estimates,
    "smallest median": smallest_median,
    "the study's rules of thumb": rules_of_thumb,
    "always quantized on edge": quantized_on_edge,
}
