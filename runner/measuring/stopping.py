"""The stopping rule: rounds are added, then inputs, at looks fixed beforehand, until the interval is narrow enough.

The number of inputs is fixed for each round number, so the stored evidence says which look comes next. All rounds of a
strategy have one latency key, that of the declared inputs; later looks send those and more. So no earlier round is
measured again, and evidence of the fixed protocol counts as the first look. Where each round draws its own inputs, only
rounds are added: they bring other inputs with them.

Which declared targets no result of the declared measurements could prove is said before anything is measured
(`unprovable_targets`). The rules are those of the answers: what an interval needs, and what so many items show where
none of them is lost.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from catalog.declaration import Catalog, Strategy
from catalog.declaration.schema import ExperimentSpec, SloSpec
from catalog.statistics.drop_bounds import AlikeImages, DropBound, PairedCounts, upper_share
from catalog.statistics.feasibility import with_share
from catalog.statistics.intervals import PercentileInterval, model_reason, percentile_intervals, refuse
from catalog.statistics.outcomes import COUNTED, sidak
from catalog.statistics.posterior import ROUNDS_MAX
from catalog.statistics.samples import Samples
from catalog.units import counted, duration
from runner.measuring.round_inputs import SystematicInputs, systematic_inputs
from runner.subjects.dataset import Subject

if TYPE_CHECKING:
    from recommender.ranking.model import Unit


# Rounds come first: they cost least, and the variance between rounds is the least certain. Then the inputs double.
_MORE_ROUNDS = (2, 3, 4)
_ROUNDS_PER_DOUBLING = 3
_DOUBLINGS = 3
# Where every round draws its own inputs: three declared rounds grow to thirty at most.
_ROUNDS_PER_LOOK = 3
_LAST_LOOKS = 6
# Of a question that names none. Not taken from `recommender.ranking`, whose import costs a fifth of `runner validate`.
CONFIDENCE = 0.95


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
    (interval,) = percentile_intervals(samples, [experiment.percentile], confidence_level=CONFIDENCE, rng=1)
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
    return math.exp(replace(interval.estimate, variance_rounds=0.0).margin(CONFIDENCE)) - 1


# The passes that leave every answer as it is, bit by bit, so that no item has to show it.
_EXACT_PASSES = frozenset({"partition"})


@dataclass(frozen=True)
class UnprovableTarget:
    """What cannot be proven of a target for a subject, and what would be needed."""

    slo: str
    subject: str
    reason: str


def unprovable_targets(catalog: Catalog, subjects: Mapping[str, Subject]) -> tuple[UnprovableTarget, ...]:
    """Return what the declared rounds, inputs and items cannot prove of the declared targets.

    `subjects` are those whose data are on this machine.
    """
    return tuple(
        UnprovableTarget(name, subject.name, reason)
        for name, slo in catalog.slos.items()
        for subject in subjects.values()
        for reason in (*_latency(catalog, subject, slo), *_accuracy(catalog, subject, slo))
    )


def _latency(catalog: Catalog, subject: Subject, slo: SloSpec) -> Iterator[str]:
    experiment, available = catalog.experiment, len(subject.dataset.input_ids())
    rounds, inputs = experiment.rounds, min(experiment.inputs, available)
    if experiment.precision is not None:
        # Rounds are added while an interval is too wide, so that the last look is what can be measured.
        last = planned_looks(experiment, available)[-1]
        rounds, inputs = last.rounds[-1], min(last.inputs, available)
    if experiment.race:
        rounds = max(rounds, ROUNDS_MAX)
    draw = systematic_inputs(catalog, subject.name, subject.dataset) if experiment.systematic else None
    for percentile in slo.latency_s:
        if draw is not None and "all" not in draw.sizes:
            reason = _of_draws(draw, rounds, percentile)
        else:
            refusal = refuse(rounds=rounds, inputs=inputs, percentile=percentile)
            reason = None if refusal is None else refusal.reason
        if reason is not None:
            measured = f"{counted(inputs, 'input')} x {counted(rounds, 'round')}"
            yield f"p{percentile:g} cannot be proven with {measured} ({reason})"


def _of_draws(draw: SystematicInputs, rounds: int, percentile: float) -> str | None:
    """Return why rounds that draw their inputs cannot prove a percentile, however well sizes explain the latencies."""
    certain, (tail, tail_drawn) = draw.sizes["certainty"][1], draw.sizes.get("tail", (0, 0))
    inputs = rounds * draw.count + certain
    refusal = refuse(rounds=rounds, inputs=inputs, percentile=percentile, interpenetrating=True, explained=1.0)
    if refusal is not None:
        return refusal.reason
    # Inputs of the tail are drawn again once all were.
    return model_reason(percentile, inputs=inputs, tail_inputs=min(tail, rounds * tail_drawn) + certain)


def _accuracy(catalog: Catalog, subject: Subject, slo: SloSpec) -> Iterator[str]:
    drop, floor = slo.accuracy.max_drop_pp, slo.accuracy.min_pct
    strategies = [strategy for strategy in catalog.strategies() if strategy.subject == subject.name]
    level = _level(strategies, with_latency=bool(slo.latency_s))
    if level is None or (drop is None and floor is None):
        return
    if subject.metric != "accuracy":
        yield "without labels, no budget of accuracy can be proven of an operator that changes answers"
        return
    items = subject.dataset.item_count()
    if drop is not None:
        # As if no item was lost: what is worse shows less.
        best: DropBound = PairedCounts(0, 0, items) if subject.task == "classification" else AlikeImages(0.0, items)
        needed = best.items_needed(drop, level)
        if needed is None or items < needed:
            more = "" if needed is None else f"; {counted(needed, 'item')} could"
            yield f"max_drop of {drop:g} cannot be proven: {_shown(items, best.upper_pp(level), 'pp')}{more}"
    if floor is not None:
        bound = 100 * (1 - upper_share(0, items, chance=1 - level))
        if bound < floor:
            yield f"min of {floor:g} cannot be proven: {_shown(items, bound, '%')}"


def _shown(items: int, bound: float, unit: "Unit") -> str:
    # Imported here: the words of answers cost more than checking a catalog, and most catalogs need none of them.
    from recommender.answer.wording import cannot_show

    return cannot_show(items, bound, unit)


def _level(strategies: Sequence[Strategy], *, with_latency: bool) -> float | None:
    """Return the mildest level at which the accuracy of a changed model is judged; None where no model is changed.

    Where latencies are judged too, all others may be far beyond a budget and leave the family. Of accuracies alone the
    strategies whose answers do not change may be proven before, and leave it then.
    """
    # Placements share an accuracy, as does a partition with what it cuts.
    accuracies = [
        tuple(repr(step) for step in strategy.passes if step.name not in _EXACT_PASSES) for strategy in strategies
    ]
    changed = [accuracy for accuracy in accuracies if accuracy]
    if not changed:
        return None
    if with_latency and len(strategies) > 1:
        return with_share(CONFIDENCE, COUNTED)
    sharing = max(Counter(changed).values())
    return sidak(CONFIDENCE, comparisons=len(changed)) ** sharing
