"""What a promise about accuracy needs, drawn once for the same items.

The strategies of a subject share few accuracies, and a refresh seldom brings a new one, while a bootstrap over images
takes seconds: bounds are kept by the content they rest on.
"""

from collections.abc import Callable, Hashable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from catalog.evidence.loading import ReadAccuracies
from catalog.evidence.store import AccuracyEvidence, StrategyEvidence
from catalog.statistics import AccuracyDrop, hit_drop, mean_iou_drop, pair_items
from recommender.ranking import Accuracy

# The same evidence gives the same bounds.
_SEED = 1


class AccuracyBounds:
    """Accuracies with their bounds, remembered from one snapshot to the next; `read` are the rows they come from."""

    def __init__(self) -> None:
        self._known: dict[Hashable, AccuracyDrop] = {}
        self._used: set[Hashable] = set()
        self.read: ReadAccuracies = {}

    def accuracy(self, row: StrategyEvidence) -> Accuracy | None:
        """Of one strategy; None while it has not been measured."""
        found = row.accuracy
        if found is None:
            return None
        return Accuracy(
            metric=found.metric,
            accuracy_pct=found.accuracy_pct,
            drop_pp=row.drop_pp,
            items=found.items,
            hits=found.top1 if found.top1.size else None,
            short=self._short(found) if found.intersection_px.size else None,
            drop=self._drop(row, found, row.reference) if row.reference is not None else None,
            remark=found.remark,
        )

    def forget_unused(self) -> None:
        """Drop what the snapshot just taken did not ask for."""
        self._known = {key: drop for key, drop in self._known.items() if key in self._used}
        self._used = set()

    def _short(self, found: AccuracyEvidence) -> AccuracyDrop:
        """Against a reference without error, whose intersections are its unions."""
        flawless, own = (found.union_px, found.union_px), (found.intersection_px, found.union_px)
        return self._once((*flawless, *own), lambda: mean_iou_drop(flawless, own, rng=_SEED))

    def _drop(self, row: StrategyEvidence, found: AccuracyEvidence, reference: AccuracyEvidence) -> AccuracyDrop | None:
        """Paired by item; None where either has no items."""
        items = pair_items(reference.item_ids, found.item_ids)
        if not items.reference.size:
            return None
        same = row.bit_identical
        if found.top1.size and reference.top1.size:
            hits = reference.top1[items.reference], found.top1[items.candidate]
            return self._once(hits, lambda: hit_drop(*hits, bit_identical=same), same)
        if found.intersection_px.size and np.array_equal(found.class_ids, reference.class_ids):
            first = reference.intersection_px[items.reference], reference.union_px[items.reference]
            second = found.intersection_px[items.candidate], found.union_px[items.candidate]
            return self._once(
                (*first, *second), lambda: mean_iou_drop(first, second, bit_identical=same, rng=_SEED), same
            )
        return None

    def _once(
        self, arrays: tuple[NDArray[np.generic], ...], compute: Callable[[], AccuracyDrop], same: bool = False
    ) -> AccuracyDrop:
        key = (same, *((each.shape, each.dtype.str, _digest(each)) for each in arrays))
        self._used.add(key)
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


def _digest(array: NDArray[np.generic]) -> bytes:
    return blake2b(np.ascontiguousarray(array).tobytes()).digest()
