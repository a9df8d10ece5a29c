"""Whether an accuracy says more than always giving the same answer would, by how often each class occurs."""

from collections.abc import Mapping
from typing import Any

import scipy

_LEVEL = 0.95
_METRICS = {"top1": "top-1 accuracy", "miou": "mIoU", "agreement": "agreement"}


def chance_remark(metric: str, accuracy_pct: float, items: int, class_counts: Any) -> str | None:
    """Return what keeps an accuracy from saying anything; None where nothing does, or no classes were counted.

    Parameters
    ----------
    metric : str
        `top1`, `miou` or `agreement`.
    accuracy_pct : float
    items : int
    class_counts : mapping of str to int, or None
        By class, of how many items, or of how many pixels of all masks, it is the truth: the label, or identity's
        answer where agreement is measured.

    Returns
    -------
    str or None

    Notes
    -----
    Items are independent, so the share that was hit is tested against the share of the most frequent class by the exact
    binomial test, one-sided, at 95 %. Pixels are not: there the two figures are compared as they are.

    Examples
    --------
    >>> chance_remark("agreement", 100 * 12 / 22, 22, {"0": 12, "1": 10})
    'agreement 54.55 % is not told from always answering class 0, which gives 54.55 % of these 22 items'
    >>> chance_remark("top1", 100.0, 22, {"3": 22})
    'all 22 items are of class 3: an accuracy on one class says nothing'
    >>> chance_remark("top1", 90.0, 200, {"0": 100, "1": 100}) is None
    True
    """
    counts = _sound(class_counts)
    if not counts or items < 1:
        return None
    total, most = sum(counts.values()), max(counts, key=lambda name: counts[name])
    by_item = total == items
    what = f"{items} items" if by_item else "pixels"
    if len(counts) == 1:
        return _one_class(metric, most, what)
    guess = counts[most] / total / (len(counts) if metric == "miou" else 1)
    if _beats(accuracy_pct / 100, guess, items if by_item else None):
        return None
    name, of_these = _METRICS.get(metric, metric), "" if metric == "miou" else f" of these {what}"
    constant = f"always answering class {most}, which gives {100 * guess:.2f} %{of_these}"
    return f"{name} {accuracy_pct:.2f} % is not told from {constant}"


def _one_class(metric: str, label: str, what: str) -> str:
    if metric == "agreement":
        return f"identity answers class {label} on all {what}: an agreement on one class says nothing"
    return f"all {what} are of class {label}: an accuracy on one class says nothing"


def _beats(share: float, guess: float, items: int | None) -> bool:
    """Return whether a share is above that of a constant answer: shown so by the items, or as it is."""
    if items is None:
        return share > guess
    hits = round(share * items)
    # The probability of so many hits or more, where each item is one with the probability of the guess.
    pvalue = 1.0 if hits == 0 else float(scipy.special.betainc(hits, items - hits + 1, guess))
    return pvalue <= 1 - _LEVEL


def _sound(class_counts: Any) -> Mapping[str, int]:
    """Return the classes that occur; nothing where what was stored is no count of classes."""
    if not isinstance(class_counts, Mapping):
        return {}
    values = class_counts.values()
    if not all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in values):
        return {}
    return {str(name): count for name, count in class_counts.items() if count}
