"""The stopping rule: rounds are added, then inputs, at looks fixed beforehand, until the interval is narrow enough.

The number of inputs is fixed for each round number, so the stored evidence says which look comes next. All rounds of a
strategy have one latency key, that of the declared inputs; later looks send those and more. So no earlier round is
measured again, and evidence of the fixed protocol counts as the first look. Where each round draws its own inputs, only
rounds are added: they bring other inputs with them.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from catalog.declaration.schema import ExperimentSpec
from catalog.statistics.intervals import PercentileInterval, percentile_intervals
from catalog.statistics.samples import Samples
from catalog.units import counted, duration

# Rounds come first: they cost least, and the variance between rounds is the least certain. Then the inputs double.
_MORE_ROUNDS = (2, 3, 4)
_ROUNDS_PER_DOUBLING = 3
_DOUBLINGS = 3
# Where every round draws its own inputs: three declared rounds grow to thirty at most.
_ROUNDS_PER_LOOK = 3
_LAST_LOOKS = 6
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Look:
    """Rounds that are measured before the interval is computed again, and the number of inputs of each."""

    rounds: tuple[int, ...]
    inputs: int


@dataclass(frozen=True)
class Narrowness:
    """How narrow a strategy's interval is, and the look that comes next.

    `target` and `half_width` are relative to the percentile, the latter None where there is no interval yet; `next` is
    None when the interval is narrow enough or no look is left.
    """

    target: float
    interval: PercentileInterval
    half_width: float | None
    next: Look | None

    @property
    def reached(self) -> bool:
        return self.half_width is not None and self.half_width <= self.target

    def __str__(self) -> str:
        interval = self.interval
        width = "unknown" if self.half_width is None else f"± {100 * self.half_width:.1f} %"
        samples = f"{counted(interval.rounds, 'round')}, {counted(interval.samples, 'sample')}"
        return f"p{interval.percentile:g} {duration(interval.estimate_s)} {width} ({samples})"


def planned_looks(experiment: ExperimentSpec, pool: int) -> tuple[Look, ...]:
    """Return all looks of a protocol, the declared one first; `pool` is the number of inputs there are."""
    looks = [Look(tuple(range(1, experiment.rounds + 1)), experiment.inputs)]
    further = [(rounds, experiment.inputs) for rounds in _MORE_ROUNDS]
    if experiment.systematic:
        further += [(_ROUNDS_PER_LOOK, experiment.inputs)] * _LAST_LOOKS
    else:
        doubled = {min(pool, experiment.inputs * 2**doubling) for doubling in range(1, _DOUBLINGS + 1)}
        further += [(_ROUNDS_PER_DOUBLING, inputs) for inputs in sorted(doubled) if inputs > experiment.inputs]
    for rounds, inputs in further:
        first = looks[-1].rounds[-1] + 1
        looks.append(Look(tuple(range(first, first + rounds)), inputs))
    return tuple(looks)


def assess(samples: Samples, experiment: ExperimentSpec, *, looks: Sequence[Look], done: Collection[int]) -> Narrowness:
    """Compute the interval and choose what would be measured next.

    Parameters
    ----------
    samples : Samples
        Of the rounds in `done`.
    experiment : ExperimentSpec
        With a precision.
    looks : sequence of Look
        As `planned_looks` gives them.
    done : collection of int
        Rounds that count.
    """
    assert experiment.precision is not None
    # A fixed seed, so that the same evidence always leads to the same next look.
    (interval,) = percentile_intervals(samples, [experiment.percentile], confidence_level=_CONFIDENCE, rng=1)
    half_width = None if interval.high_s is None else interval.high_s / interval.estimate_s - 1
    target = experiment.precision
    open_looks = [look for look in looks if not set(look.rounds) <= set(done)]
    if not experiment.systematic:
        # Rounds of less than half of the most inputs would be left out when they are loaded.
        open_looks = [look for look in open_looks if 2 * look.inputs >= samples.inputs.size]
    if half_width is not None and half_width <= target:
        open_looks = []
    # More rounds could not reach the target, whatever they show.
    elif not experiment.systematic and _inputs_alone(interval) > target:
        open_looks = [look for look in open_looks if look.inputs > experiment.inputs]
    return Narrowness(target, interval, half_width, open_looks[0] if open_looks else None)


def _inputs_alone(interval: PercentileInterval) -> float:
    """Return the half width that any number of rounds would leave: only more inputs can narrow it."""
    if interval.estimate is None:
        return 0.0
    return math.exp(replace(interval.estimate, variance_rounds=0.0).margin(_CONFIDENCE)) - 1
