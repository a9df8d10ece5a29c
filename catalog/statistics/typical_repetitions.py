"""Fewer samples that say the same: of very many repetitions of an input, those that stand for their neighbours.

What is resampled or fitted takes time in proportion to the samples. Of ten thousand repetitions of one input in one
round, every hundredth in the order of their latency gives the same percentiles to a fraction of what any interval says.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Far above what a study needs, so that no ordinary figure changes; a question about so many takes less than a second.
MOST_SAMPLES = 10_000
_GOLDEN = (5**0.5 - 1) / 2


def typical_positions(
    latency_s: Sequence[NDArray[np.float64]],
    input_index: Sequence[NDArray[np.int64]],
    *,
    most: int = MOST_SAMPLES,
    drawn: bool = False,
) -> list[NDArray[np.int64]]:
    """Choose the samples of each round that stand for all of them.

    Parameters
    ----------
    latency_s : sequence of float array
        Of each round.
    input_index : sequence of int array
        The input of each latency.
    most : int
        How many samples stay, about; at least one of every input that stays.
    drawn : bool
        Whether rounds drew their inputs. Those stand for parts of a pool, so that all of them stay.

    Returns
    -------
    list of int array
        Positions within each round; all of them where there are no more than `most`.

    Notes
    -----
    Each cell (round and input) is divided into equal shares in the order of latency, and one latency of each share
    stays, at a place that is spread evenly from share to share (multiples of the golden ratio). Where even one of each
    cell is too many, every so many inputs stay, the same in all rounds: fewer inputs, with the wider interval that
    fewer inputs have. O(n log n).

    Examples
    --------
    >>> latency_s, index = np.arange(1.0, 13.0), np.repeat([0, 1], 6)
    >>> [kept] = typical_positions([latency_s], [index], most=4)
    >>> latency_s[kept].tolist()
    [2.0, 4.0, 9.0, 11.0]
    """
    total = sum(values.size for values in latency_s)
    if total <= most:
        return [np.arange(values.size) for values in latency_s]
    step = math.ceil(total / most)
    kept = [_every(step, values, index) for values, index in zip(latency_s, input_index, strict=True)]
    left = sum(positions.size for positions in kept)
    if left <= 2 * most or drawn:
        return kept
    inputs = np.unique(np.concatenate(input_index))
    staying = inputs[:: math.ceil(left / most)]
    return [positions[np.isin(index[positions], staying)] for positions, index in zip(kept, input_index, strict=True)]


def _every(step: int, values: NDArray[np.float64], index: NDArray[np.int64]) -> NDArray[np.int64]:
    order = np.argsort(values)
    # Stable, so that each input's latencies stay ascending.
    order = order[np.argsort(index[order], kind="stable")]
    starts = np.flatnonzero(np.diff(index[order], prepend=index[order[0]] - 1)) if order.size else order
    sizes = np.diff(starts, append=order.size)
    shares = np.maximum(1, np.rint(sizes / step).astype(np.int64))
    share = np.arange(shares.sum()) - np.repeat(np.cumsum(shares) - shares, shares)
    # Not the middle of each share: the upper half of the highest ones, where high percentiles lie, would never stay.
    within = (np.arange(share.size) * _GOLDEN + 0.5) % 1
    place = np.floor((share + within) * np.repeat(sizes / shares, shares)).astype(np.int64)
    # In the order of measurement, on which nothing depends but what a reader compares.
    return np.sort(order[np.repeat(starts, shares) + np.minimum(place, np.repeat(sizes, shares) - 1)])
