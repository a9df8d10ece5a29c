"""How many rounds, or machines of a class, would prove what the estimates promise."""

from collections.abc import Callable
from dataclasses import replace

import scipy

from catalog.statistics.log_estimate import LogEstimate, MachineVariance

# More rounds than this are no plan: another budget or a lower confidence is.
ROUNDS_MAX = 60
# A laboratory that has more boards of one kind than this does not ask.
MACHINES_MAX = 20
# The chance that so many rounds prove it, if the estimate is the truth.
_POWER = 0.8


def rounds_needed(
    estimate: LogEstimate,
    limit: float,
    *,
    confidence_level: float,
    rounds: int,
    new_inputs: bool,
    tests: int = 1,
    most: int = ROUNDS_MAX,
) -> int | None:
    """Return how many rounds would bring the upper bound of a log latency below a limit.

    Parameters
    ----------
    estimate : LogEstimate
        From `rounds` rounds.
    limit : float
        On the scale of the estimate.
    confidence_level : float
        Of the one-sided bound.
    rounds : int
        As measured.
    new_inputs : bool
        Whether each round draws inputs of its own: then the variance from the inputs falls with the rounds too.
    tests : int
        Of how many bounds it is one, each at this level (`LogEstimate.upper`).
    most : int
        The largest number to try.

    Returns
    -------
    int or None
        In total, above `rounds`; None where not even `most` would do.

    Notes
    -----
    Takes the estimate for the truth. For a chance of four in five the distance to the limit must hold the guarded
    margin plus 0.84 standard errors. The variances fall with 1 / rounds, and each further round adds a degree of
    freedom; a model's error stays. An approximation, as `catalog.statistics.outcomes.still_needed`.

    Where the rounds ran on several machines of a class, further ones are taken to run on the same machines: what these
    differ in stays, and no degree of freedom is added (`machines_needed`).

    Examples
    --------
    >>> estimate = LogEstimate(0.0, variance_rounds=0.01, variance_inputs=0.0, df_rounds=2, df_inputs=1)
    >>> [rounds_needed(estimate, limit, confidence_level=0.95, rounds=3, new_inputs=False) for limit in (0.25, 0.1, 0)]
    [5, 20, None]
    """
    return _fewest(
        rounds,
        most,
        lambda number: (
            _bound_after(estimate, rounds, number, confidence_level, new_inputs=new_inputs, tests=tests) <= limit
        ),
    )


def machines_needed(
    estimate: LogEstimate, limit: float, *, confidence_level: float, tests: int = 1, most: int = MACHINES_MAX
) -> int | None:
    """Return how many machines of a class would bring the upper bound of a log latency below a limit.

    Parameters
    ----------
    estimate : LogEstimate
        From rounds on at least two machines (`LogEstimate.machines`).
    limit : float
        On the scale of the estimate.
    confidence_level : float
        Of the one-sided bound.
    tests : int
        Of how many bounds it is one, each at this level (`LogEstimate.upper`).
    most : int
        The largest number to try.

    Returns
    -------
    int or None
        In total, above those that it has; None where not even `most` would do, or where it has rounds of one machine.

    Notes
    -----
    As `rounds_needed`, with as many rounds on every further machine as on those before.

    Examples
    --------
    >>> from catalog.statistics.log_estimate import MachineVariance
    >>> boards = MachineVariance(2, variance=0.01, lasting=0.01)
    >>> estimate = LogEstimate(0.0, 0.01, 0.0, df_rounds=1, df_inputs=1, machines=boards)
    >>> rounds_needed(estimate, 0.4, confidence_level=0.95, rounds=6, new_inputs=True)
    >>> [machines_needed(estimate, limit, confidence_level=0.95) for limit in (0.4, 0.2, 0.01)]
    [3, 5, None]
    """
    machines = estimate.machines
    if machines is None:
        return None

    def within(number: int) -> bool:
        return _likely_bound(_on_machines(estimate, machines, number), confidence_level, tests) <= limit

    return _fewest(machines.count, most, within)


def _fewest(present: int, most: int, within: Callable[[int], bool]) -> int | None:
    """Return the smallest number above the present one that is within; None where not even `most` is."""
    low, high = present + 1, most + 1
    # More are never worse, so bisection finds the fewest.
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if within(middle) else (middle + 1, high)
    return low if low <= most else None


def _bound_after(
    estimate: LogEstimate, rounds: int, number: int, confidence_level: float, *, new_inputs: bool, tests: int
) -> float:
    """Return the bound that so many rounds would give with the chance of `_POWER`."""

    def bound() -> float:
        later = _after(estimate, rounds, number, new_inputs=new_inputs)
        return _likely_bound(later, confidence_level, tests)

    # Kept, because every question about the same evidence searches through the same numbers of rounds.
    return estimate.tables.bound((rounds, number, confidence_level, new_inputs, tests), bound)


def _likely_bound(later: LogEstimate, confidence_level: float, tests: int) -> float:
    """Return the bound that an estimate gives with the chance of `_POWER`."""
    return later.upper(confidence_level, tests=tests) + float(scipy.special.ndtri(_POWER)) * later.standard_error


def _after(estimate: LogEstimate, rounds: int, number: int, *, new_inputs: bool) -> LogEstimate:
    """Return the estimate as so many rounds would know it, on the same machines."""
    share, machines = rounds / number, estimate.machines
    later = _with_rounds(estimate, share, number - rounds, new_inputs=new_inputs)
    return later if machines is None else _bounded_by(machines, machines.after(share), machines.df, estimate, later)


def _on_machines(estimate: LogEstimate, machines: MachineVariance, number: int) -> LogEstimate:
    """Return the estimate as so many machines would know it, on each of which as many rounds ran."""
    share = machines.count / number
    later = _with_rounds(estimate, share, number - machines.count, new_inputs=True)
    return _bounded_by(machines, machines.variance * share, number - 1, estimate, later)


def _bounded_by(
    machines: MachineVariance, variance: float, df: float, estimate: LogEstimate, later: LogEstimate
) -> LogEstimate:
    """Return a later estimate with a variance over machines, where that decides."""
    if not estimate.by_machines:
        return later.widened(variance, df)
    # What the other strategies say of it is in the estimate, and stays in proportion.
    steadied, others_df = estimate.variance_rounds / machines.variance, estimate.df_rounds - machines.df
    return replace(later, variance_rounds=steadied * variance, df_rounds=others_df + df)


def _with_rounds(estimate: LogEstimate, share: float, more: int, *, new_inputs: bool) -> LogEstimate:
    """Return an estimate whose variances have fallen to a share, and are known by more rounds."""
    above = estimate.variance_inputs_above
    return replace(
        estimate,
        variance_rounds=estimate.variance_rounds * share,
        df_rounds=estimate.df_rounds + more,
        variance_shared=estimate.variance_shared * share,
        df_shared=estimate.df_shared + more,
        variance_inputs=estimate.variance_inputs * (share if new_inputs else 1.0),
        variance_inputs_above=None if above is None else above * (share if new_inputs else 1.0),
        df_inputs=estimate.df_inputs + (more if new_inputs else 0),
    )
