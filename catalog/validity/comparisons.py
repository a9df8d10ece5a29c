"""Latencies of one round beside each other: did they still fall after the warm-up, and did single ones stand out?"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from catalog.evidence.records import SampleRecord

# To either side half as many, so that the size of the sample lies between theirs.
_NEIGHBOURS = 4


@dataclass(frozen=True)
class WarmUp:
    """How what came first compares with what came later: the end of the warm-up, or the first third of the samples.

    Attributes
    ----------
    slowdown_pct : float
        Median over the inputs of earlier over later latency, minus one; negative if the earlier one was faster.
    pvalue : float
        Of a sign test, one-sided: that as many inputs were slower by chance.
    pairs : int
        Inputs compared.
    """

    slowdown_pct: float
    pvalue: float
    pairs: int


def falling_pvalue(latency_s: Sequence[float]) -> float:
    """Return the probability that values without a trend fall as steadily as these.

    Parameters
    ----------
    latency_s : sequence of float
        Of one input sent again and again, in the order sent.

    Returns
    -------
    float
        From 0 to 1; 1 for fewer than three values.

    Notes
    -----
    Mann's test: the normal approximation of Kendall's S, with a correction for continuity, one-sided.

    References
    ----------
    H. B. Mann, Nonparametric tests against trend, Econometrica 13 (1945).

    Examples
    --------
    >>> round(falling_pvalue([0.9, 0.6, 0.4, 0.3, 0.25, 0.2]), 3), falling_pvalue([0.2, 0.3, 0.2, 0.3]) > 0.5
    (0.004, True)
    """
    values = np.asarray(latency_s)
    count = values.size
    if count < 3:
        return 1.0
    falls = -int(np.triu(np.sign(values[np.newaxis, :] - values[:, np.newaxis])).sum())
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    return float(scipy.special.ndtr(-(falls - 1) / deviation))


def warmup_slowdown(warmup_latency_s: Sequence[float], samples: Sequence[SampleRecord]) -> WarmUp | None:
    """Compare the last third of the last warm-up pass with the first repetition.

    Parameters
    ----------
    warmup_latency_s : sequence of float
        In the order they were taken: whole passes.
    samples : sequence of SampleRecord
        In the order they were taken.

    Returns
    -------
    WarmUp or None
        None where there is no whole pass of either kind.

    Notes
    -----
    A warm-up that was long enough ends as fast as the samples go on. The sign test asks for no distribution.

    Examples
    --------
    >>> taken = [SampleRecord(i, f"{i}", 0, 0.1, 0.0) for i in range(9)]
    >>> found = warmup_slowdown([0.3] * 6 + [0.12, 0.11, 0.1], taken)
    >>> round(found.slowdown_pct, 1), found.pairs
    (10.0, 3)
    """
    first = [sample.latency_s for sample in samples if sample.repetition == 0]
    count = len(first)
    if not count or len(warmup_latency_s) < count:
        return None
    # The last third alone: the beginning of a warm-up is meant to be slow.
    tail = count - max(1, count // 3)
    ratio = np.array(warmup_latency_s[-count:])[tail:] / np.array(first)[tail:]
    return _sign_test(ratio)


def early_slowdown(samples: Sequence[SampleRecord], input_bytes: Mapping[str, int]) -> WarmUp | None:
    """Compare the first third of the samples with later ones of their size.

    Parameters
    ----------
    samples : sequence of SampleRecord
        In the order they were taken, in which sizes are shuffled.
    input_bytes : mapping of str to int
        Size of each input.

    Returns
    -------
    WarmUp or None
        None where fewer than three samples have a size.

    Notes
    -----
    What a later sample of the same size takes is read off the line between its neighbours in size. The sign test is
    that of `warmup_slowdown`.

    Examples
    --------
    >>> taken = [SampleRecord(i, f"{i}", 0, 0.2 if i < 3 else 0.1, 0.0) for i in range(9)]
    >>> slow = early_slowdown(taken, {f"{i}": 1000 + i % 3 for i in range(9)})
    >>> round(slow.slowdown_pct), slow.pairs
    (100, 3)
    """
    sized = [sample for sample in samples if sample.input_id in input_bytes]
    count = len(sized) // 3
    if not count:
        return None
    early = sized[:count]
    later = sorted(sized[count:], key=lambda sample: input_bytes[sample.input_id])
    expected = np.interp(
        [input_bytes[sample.input_id] for sample in early],
        [input_bytes[sample.input_id] for sample in later],
        [sample.latency_s for sample in later],
    )
    return _sign_test(np.array([sample.latency_s for sample in early]) / expected)


def _sign_test(ratio: NDArray[np.float64]) -> WarmUp:
    slower, decided = int((ratio > 1).sum()), int((ratio != 1).sum())
    # Sign test, one-sided: a few slow inputs do not make a warm-up too short.
    pvalue = float(scipy.special.bdtrc(slower - 1, decided, 0.5)) if decided else 1.0
    return WarmUp(100 * (float(np.median(ratio)) - 1), float(pvalue), int(ratio.size))


def sized_outliers_pct(
    samples: Sequence[SampleRecord], input_bytes: Mapping[str, int], *, factor: float, least_s: float
) -> float | None:
    """Return how many samples took much longer than samples of inputs of nearly their size, in percent.

    Parameters
    ----------
    samples, input_bytes
        As `early_slowdown`.
    factor, least_s
        As `outliers_pct`.

    Returns
    -------
    float or None
        Percent of the samples; None where fewer than five have a size.

    Notes
    -----
    Each sample is compared with the four nearest in size, two smaller and two larger ones where there are as many. A
    latency grows with size at most in proportion, so that beside a smaller input the ratio of sizes is allowed as well.

    Examples
    --------
    >>> taken = [SampleRecord(i, f"{i}", 0, latency_s, 0.0) for i, latency_s in enumerate([0.1, 0.1, 0.3, 0.1, 0.4])]
    >>> sized_outliers_pct(taken, {"0": 10, "1": 10, "2": 11, "3": 12, "4": 48}, factor=2, least_s=0.02)
    20.0
    """
    sized = sorted(
        (sample for sample in samples if sample.input_id in input_bytes), key=lambda item: input_bytes[item.input_id]
    )
    if len(sized) <= _NEIGHBOURS:
        return None
    slow = 0
    for index, sample in enumerate(sized):
        first = min(max(index - _NEIGHBOURS // 2, 0), len(sized) - _NEIGHBOURS - 1)
        neighbours = [other for other in sized[first : first + _NEIGHBOURS + 1] if other is not sample]
        own = input_bytes[sample.input_id]
        # An empty file has no ratio; one byte more changes none that is worth a comparison.
        scaled = [other.latency_s * max(1.0, (own + 1) / (input_bytes[other.input_id] + 1)) for other in neighbours]
        expected = float(np.median(scaled))
        slow += sample.latency_s > max(factor * expected, expected + least_s)
    return 100 * slow / len(sized)


def outliers_pct(
    warmup_latency_s: Sequence[float], samples: Sequence[SampleRecord], *, factor: float, least_s: float
) -> float | None:
    """Return how many samples took much longer than the same input in another pass, in percent.

    Parameters
    ----------
    warmup_latency_s, samples
        As `warmup_slowdown`.
    factor : float
        Above 1.
    least_s : float
        Seconds that a sample must be slower by, at least.

    Returns
    -------
    float or None
        Percent of the samples; None where no input was sent twice.

    Examples
    --------
    >>> taken = [SampleRecord(i, f"{i}", 0, latency_s, 0.0) for i, latency_s in enumerate([0.1, 0.3])]
    >>> outliers_pct([0.1, 0.1], taken, factor=2, least_s=0.02)
    50.0
    """
    passes: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        passes[sample.input_id].append(sample.latency_s)
    own = {input_id: tuple(latencies_s) for input_id, latencies_s in passes.items()}
    count = len(passes)
    # With one repetition, the last warm-up pass is the only other pass over the inputs.
    if count and len(warmup_latency_s) >= count:
        for input_id, latency_s in zip(passes, warmup_latency_s[-count:], strict=True):
            passes[input_id].append(latency_s)
    if not any(len(step) > 1 for step in passes.values()):
        return None
    # By input and not by sample: a file from elsewhere may have a million samples of a few inputs.
    fastest = {input_id: min(latencies_s) for input_id, latencies_s in passes.items()}
    limits_s = {input_id: max(factor * least, least + least_s) for input_id, least in fastest.items()}
    slow = sum(
        sum(latency_s > limits_s[input_id] for latency_s in latencies_s)
        for input_id, latencies_s in own.items()
        if max(latencies_s) > limits_s[input_id]
    )
    return 100 * slow / len(samples)
