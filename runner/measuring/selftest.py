"""The A/A test: one strategy measured under several names, as if they were several strategies.

Whatever an analysis then calls different is wrong. The deciding analysis must stay at its nominal level; the test on
pooled samples, as in the paper, is shown beside it: 500 samples of 100 inputs pass for 500 independent ones there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import scipy

from catalog.declaration import Strategy
from catalog.evidence import Database
from catalog.evidence.reading import latencies
from catalog.keys import content_key
from catalog.statistics.comparison import Question, compare
from catalog.statistics.verdicts import Verdict
from runner.errors import RunnerError
from runner.measuring.fill import Filler, StopRequest
from runner.measuring.keyed_strategy import KeyedStrategy, RunContext, key_strategy
from runner.measuring.plan import MissingRound, Plan
from runner.measuring.stopping import samples_of

_LEVEL = 0.05
# What is INVALID is measured again, as a fill would; a name that never gets a valid round is no matter of luck.
_TRIES = 3
# Of what a correct analysis would show: beyond it, chance is no explanation any more.
_UNLIKELY = 0.01


@dataclass(frozen=True)
class AaResult:
    """Pairs of names of one strategy, and how many of them each analysis calls different."""

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
    """The same strategy under other names, each with a key of its own, so that nothing is shared but the artifact."""
    return tuple(
        replace(
            keyed,
            strategy=replace(keyed.strategy, operator=f"{keyed.strategy.operator}-{number}"),
            latency_key=content_key({"selftest": number, "latency_key": keyed.latency_key}),
        )
        for number in range(1, count + 1)
    )


def find_strategy(context: RunContext, name: str | None) -> Strategy:
    """The declared strategy of this name (`operator@placement` or `subject/operator@placement`), or the first."""
    declared = context.catalog.strategies()
    matching = [each for each in declared if name is None or name in (each.name, each.name.split("/", 1)[1])]
    if not matching:
        raise RunnerError(f"no strategy {name!r} is declared; there are {', '.join(each.name for each in declared)}")
    return matching[0]


def measure_aliases(filler: Filler, strategy: Strategy, stop: StopRequest, *, names: int) -> tuple[KeyedStrategy, ...]:
    """Measure every name in every declared round, shuffled, through the ordinary fill.

    Names of which a round stays INVALID are left out of the result, as long as two others remain.
    """
    if names < 2:
        raise RunnerError(f"an A/A test compares names: it takes at least 2, got {names}")
    keyed = aliases(key_strategy(filler.setups.context, strategy), names)
    numbers = range(1, filler.setups.context.catalog.experiment.rounds + 1)
    missing = tuple(MissingRound(each, number, "A/A test", 0.0) for number in numbers for each in keyed)
    filler.build(Plan(keyed, {}, (), missing), stop)
    for _ in range(_TRIES):
        outcome = filler.measure(Plan(keyed, {}, (), missing), stop)
        if outcome.stopped:
            raise RunnerError("stopped before all names were measured; nothing can be said yet")
        missing = tuple(each for each in missing if each.round not in _known_rounds(filler.database, each.keyed))
        if not missing:
            return keyed
    whole = tuple(each for each in keyed if each not in [lacking.keyed for lacking in missing])
    if len(whole) > 1:
        return whole
    trouble = "; ".join([*outcome.failures, *outcome.invalid])
    raise RunnerError(f"{len(missing)} measurement(s) came to nothing {_TRIES} times: {trouble}")


def _known_rounds(database: Database, keyed: KeyedStrategy) -> set[int]:
    with database.session() as reading:
        return {number for number, _, _ in latencies(reading, keyed.latency_key)}


def compare_aliases(database: Database, keyed: Sequence[KeyedStrategy], *, percentile: float) -> AaResult:
    """Let both analyses compare every pair of names."""
    with database.session() as reading:
        rows = {each.strategy.operator: latencies(reading, each.latency_key) for each in keyed}
    samples = {name: samples_of(taken) for name, taken in rows.items()}
    question = Question(percentile, equivalent_within=0.0, confidence_level=1 - _LEVEL)
    different = pooled = 0
    for first, second in combinations(samples, 2):
        found = compare(samples[first], samples[second], question, rng=1)
        if found.refusal is not None:
            raise RunnerError(f"the deciding analysis refuses: {found.refusal.reason}")
        different += found.verdict is Verdict.DIFFERENT
        test = scipy.stats.mannwhitneyu(samples[first].log_latency, samples[second].log_latency)
        pooled += bool(test.pvalue < _LEVEL)
    one = next(iter(samples.values()))
    return AaResult(
        strategy=keyed[0].strategy.name.replace("-1@", "@"),
        names=len(keyed),
        rounds=one.rounds.size,
        inputs=one.inputs.size,
        percentile=percentile,
        pairs=len(samples) * (len(samples) - 1) // 2,
        different=different,
        different_pooled=pooled,
        nominal=_LEVEL,
        medians_s={name: float(np.exp(np.median(each.log_latency))) for name, each in samples.items()},
    )
