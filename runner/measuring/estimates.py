"""How long rounds and accuracies will take, before and after any of them was measured.

The guesses fit the four embedded subjects on two cores within a factor of two; the progress bar corrects them as it
goes. A race is estimated as a range, because its evidence decides how many rounds it needs.
"""

from dataclasses import dataclass

from catalog.evidence.records import LastMeasurement
from runner.measuring.keyed_strategy import KeyedStrategy, RunContext
from runner.measuring.tiers import route_links
from runner.subjects.dataset import Subject
from runner.subjects.folders import FolderDataset

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
