"""The front of cost and gain."""

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float | None]]) -> frozenset[int]:
    """Indices of the points that no other dominates.

    Parameters
    ----------
    points : sequence of (float, float or None)
        A cost, smaller is better, and a gain, larger is better; without a gain a point is never on the front.

    Returns
    -------
    frozenset of int
        Points that are equal in both are on the front together.

    Examples
    --------
    >>> sorted(pareto_front([(1.0, 80.0), (2.0, 90.0), (3.0, 85.0), (2.0, 90.0), (0.5, None)]))
    [0, 1, 3]
    """
    placed = sorted((cost, -gain, index) for index, (cost, gain) in enumerate(points) if gain is not None)
    front: list[int] = []
    best: tuple[float, float] | None = None
    for cost, loss, index in placed:
        if best is None or loss < best[1] or (cost, loss) == best:
            best = (cost, loss)
            front.append(index)
    return frozenset(front)
