"""The A/A test: one strategy measured under several names, as if they were several strategies.

Every difference that an analysis then reports is wrong. The deciding analysis must stay at its nominal level. The test
on pooled samples, as in the paper, is shown beside it: it takes 500 samples of 100 inputs for 500 independent ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import scipy

from catalog.declaration import Strategy
from catalog.evidence.database import Database
from catalog.evidence.loading import stored_samples
from catalog.evidence.lookups import rounds_done
from catalog.keys import content_key
from catalog.statistics.comparison import Question, compare
from catalog.statistics.outcomes import ComparisonOutcome
from catalog.units import counted
from runner.errors import RunnerError
from runner.measuring.fill import Filler, StopRequest
from runner.measuring.keyed_strategy import KeyedStrategy, RunContext, key_strategy
from runner.measuring.plan import MissingRound, Plan

_LEVEL = 0.05
# An INVALID round is measured again, as a fill does; after that many tries it is no longer a matter of luck.
_TRIES = 3
# A result less likely than this under a correct analysis is not explained by chance.
_UNLIKELY = 0.01


@dataclass(frozen=True)
class AaResult:
    """The pairs of names of one strategy, and how many of them each analysis calls different."""

    strategy: str
    names: int
    rounds: int
    inputs: int
    percentile: float
    pairs: int
    different: int
    different_pooled: int
    nominal: float
    medians_s: Mapping[str, float]

    @property
    def share(self) -> float:
        return self.different / self.pairs

    @property
    def share_pooled(self) -> float:
        return self.different_pooled / self.pairs

    @property
    def allowed(self) -> int:
        """The most pairs that chance calls different, 99 times in 100, if the level holds."""
        return int(scipy.stats.binom.ppf(1 - _UNLIKELY, self.pairs, self.nominal))

    @property
    def holds(self) -> bool:
        return self.different <= self.allowed

    def to_json(self) -> dict[str, Any]:
        more = {"share": self.share, "share_pooled": self.share_pooled, "allowed": self.allowed, "holds": self.holds}
        return {**asdict(self), **more}


def aliases(keyed: KeyedStrategy, count: int) -> tuple[KeyedStrategy, ...]:
    """Return the strategy under other names, each with its own key, so that they share nothing but the artifact."""
    return tuple(
        replace(
            keyed,
            strategy=replace(keyed.strategy, operator=f"{keyed.strategy.operator}-{number}"),
            # The number keeps the names apart, and a real fill never computes such a key.
            latency_key=content_key({"selftest": number, "latency_key": keyed.latency_key}),
        )
        for number in range(1, count + 1)
    )


def find_strategy(context: RunContext, name: str | None) -> Strategy:
    """Return the declared strategy of this name (`[subject/]operator@placement`), or the first."""
    declared = context.catalog.strategies()
    matching = [
        strategy for strategy in declared if name is None or name in (strategy.name, strategy.name.split("/", 1)[1])
    ]
    if not matching:
        names = ", ".join(strategy.name for strategy in declared)
        raise RunnerError(f"no strategy {name!r} is declared; there are {names}")
    return matching[0]


def measure_aliases(filler: Filler, strategy: Strategy, stop: StopRequest, *, names: int) -> tuple[KeyedStrategy, ...]:
    """Measure every name in every declared round, shuffled, through the ordinary fill.

    Names of which a round stays INVALID are left out of the result, as long as two others remain.
    """
    if names < 2:
        raise RunnerError(f"an A/A test compares names; at least 2 are needed, got {names}")
    keyed = aliases(key_strategy(filler.setups.context, strategy), names)
    numbers = range(1, filler.setups.context.catalog.experiment.rounds + 1)
    missing = tuple(MissingRound(alias, number, "A/A test", 0.0) for number in numbers for alias in keyed)
    filler.build(Plan(keyed, {}, (), missing), stop)
    for _ in range(_TRIES):
        outcome = filler.measure(Plan(keyed, {}, (), missing), stop)
        if outcome.stopped:
            raise RunnerError("stopped before all names were measured; there is no result yet")
        missing = tuple(task for task in missing if task.round not in _stored_rounds(filler.database, task.keyed))
        if not missing:
            return keyed
    whole = tuple(alias for alias in keyed if alias not in [task.keyed for task in missing])
    if len(whole) > 1:
        return whole
    trouble = "; ".join([*outcome.failures, *outcome.invalid])
    raise RunnerError(f"{counted(len(missing), 'measurement')} failed {_TRIES} times: {trouble}")


def _stored_rounds(database: Database, keyed: KeyedStrategy) -> set[int]:
    with database.session() as reading:
        return rounds_done(reading, keyed.latency_key)


def compare_aliases(database: Database, keyed: Sequence[KeyedStrategy], *, percentile: float) -> AaResult:
    """Let both analyses compare every pair of names."""
    with database.session() as reading:
        stored = {alias.strategy.operator: stored_samples(reading, alias.latency_key) for alias in keyed}
    samples = {name: name_samples for name, name_samples in stored.items() if name_samples is not None}
    # No margin: the test is about false differences, and a margin would call some of them equivalent.
    question = Question(percentile, equivalent_within=0.0, confidence_level=1 - _LEVEL)
    different = pooled = 0
    for first, second in combinations(samples, 2):
        comparison = compare(samples[first], samples[second], question, rng=1)
        if comparison.refusal is not None:
            raise RunnerError(f"the deciding analysis refuses: {comparison.refusal.reason}")
        different += comparison.verdict is ComparisonOutcome.DIFFERENT
        test = scipy.stats.mannwhitneyu(samples[first].log_latency, samples[second].log_latency)
        pooled += bool(test.pvalue < _LEVEL)
    first_samples = next(iter(samples.values()))
    return AaResult(
        # The first alias is the strategy's name with the number 1.
        strategy=keyed[0].strategy.name.replace("-1@", "@"),
        names=len(keyed),
        rounds=first_samples.rounds.size,
        inputs=first_samples.inputs.size,
        percentile=percentile,
        pairs=len(samples) * (len(samples) - 1) // 2,
        different=different,
        different_pooled=pooled,
        nominal=_LEVEL,
        medians_s={name: float(np.exp(np.median(values.log_latency))) for name, values in samples.items()},
    )
