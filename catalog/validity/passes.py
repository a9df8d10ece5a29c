"""The passes over the inputs within one measurement, warm-up included: was it warm, and which samples stand out.

A warm-up sends the same inputs in the same order as each repetition: its latencies pair with the samples by position.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from catalog.evidence.records import SampleRecord


@dataclass(frozen=True)
class WarmUp:
    """How the end of the warm-up compares with the same inputs afterwards.

    Attributes
    ----------
    slowdown_pct : float
        Median over the inputs of warm-up over first repetition, minus one; negative if the warm-up was faster.
    pvalue : float
        Of a sign test, one-sided: that as many inputs were slower by chance.
    pairs : int
        Inputs compared.
    """

    slowdown_pct: float
    pvalue: float
    pairs: int


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
    tail = count - max(1, count // 3)
    ratio = np.array(warmup_latency_s[-count:])[tail:] / np.array(first)[tail:]
    slower, decided = int((ratio > 1).sum()), int((ratio != 1).sum())
    pvalue = float(special.bdtrc(slower - 1, decided, 0.5)) if decided else 1.0
    return WarmUp(100 * (float(np.median(ratio)) - 1), float(pvalue), int(ratio.size))


def outliers_pct(
    warmup_latency_s: Sequence[float], samples: Sequence[SampleRecord], *, factor: float, least_s: float
) -> float | None:
    """How many samples took much longer than the same input in another pass.

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
    count = len(passes)
    if count and len(warmup_latency_s) >= count:
        for input_id, latency_s in zip(passes, warmup_latency_s[-count:], strict=True):
            passes[input_id].append(latency_s)
    if not any(len(each) > 1 for each in passes.values()):
        return None
    fastest = {input_id: min(each) for input_id, each in passes.items()}
    slow = [
        sample.latency_s > max(factor * fastest[sample.input_id], fastest[sample.input_id] + least_s)
        for sample in samples
    ]
    return 100 * sum(slow) / len(slow)
