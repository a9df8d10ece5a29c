"""When a race looks at its evidence, and what part of the error each look may spend.

A promise that is tested again and again errs more often than one that is tested once. So a race decides only at looks,
and each look has its share of the error; all shares together are at most one, however many looks there will be.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

# Rounds of a strategy at the looks of a race; further ones are half as many again as those before.
LOOKS = (3, 5, 8, 12)
# Rounds before anything is decided. Strategies may leave after these, as after any later round: leaving spends none of
# the error.
LEAVING_LOOKS = (1, 2)
_GROWTH = 1.5
_SHARES = (0.3, 0.3, 0.2)


@dataclass(frozen=True)
class RaceLook:
    """A moment at which a race decides.

    Attributes
    ----------
    number : int
        From 1.
    rounds : int
        Of a strategy, at this look.
    error_share : float
        What a decision at this look may spend of the error.
    """

    number: int
    rounds: int
    error_share: float


def error_share(look: int) -> float:
    """Return what part of the error a look may spend.

    Parameters
    ----------
    look : int
        From 1.

    Returns
    -------
    float
        Of the first three looks as in `_SHARES`, of the further ones a falling part of the rest; the sum is 1.

    Raises
    ------
    ValueError
        For a look below 1.

    Notes
    -----
    The chance that any look errs is at most the sum of the chances at each (Boole). Most answers are proven at the
    second or the third look, and what is clear at the first needs little error; docs/racing.md compares schedules.

    Examples
    --------
    >>> [round(error_share(look), 3) for look in (1, 2, 3, 4, 5)]
    [0.3, 0.3, 0.2, 0.1, 0.033]
    >>> round(sum(error_share(look) for look in range(1, 100_000)), 4)
    1.0
    """
    if look < 1:
        raise ValueError(f"looks count from 1, got {look}")
    if look <= len(_SHARES):
        return _SHARES[look - 1]
    further = look - len(_SHARES)
    # 1 / (j (j + 1)) sums to 1 over all j.
    return (1 - sum(_SHARES)) / (further * (further + 1))


def looks(first: int) -> Iterator[RaceLook]:
    """Yield the looks of a race without end.

    Parameters
    ----------
    first : int
        Rounds at the first look: as many as are declared.

    Yields
    ------
    RaceLook

    Examples
    --------
    >>> from itertools import islice
    >>> [look.rounds for look in islice(looks(3), 8)], [look.rounds for look in islice(looks(4), 3)]
    ([3, 5, 8, 12, 18, 27, 40, 60], [4, 5, 8])
    """
    rounds = max(first, 1)
    for number in count(1):
        yield RaceLook(number, rounds, error_share(number))
        scheduled = (scheduled for scheduled in LOOKS if scheduled > rounds)
        rounds = next(scheduled, math.floor(rounds * _GROWTH))


def look_of(rounds: int, first: int) -> RaceLook:
    """Return the look that a round of a strategy belongs to: the first one that has as many rounds.

    Examples
    --------
    >>> [look_of(number, 3).number for number in (1, 3, 4, 5, 6)]
    [1, 1, 2, 2, 3]
    """
    return next(look for look in looks(first) if look.rounds >= rounds)


def next_look(rounds: int, first: int) -> RaceLook:
    """Return the first look that has more rounds than were measured.

    Examples
    --------
    >>> next_look(3, 3).rounds, next_look(0, 4).rounds
    (5, 4)
    """
    return look_of(rounds + 1, first)


def with_share(level: float, share: float) -> float:
    """Return the level that a decision needs which may spend only a share of the error.

    Examples
    --------
    >>> with_share(0.95, 1.0), round(with_share(0.95, 0.5), 4)
    (0.95, 0.975)
    """
    return 1 - share * (1 - level)


def best_inputs(
    *, seconds_per_round: float, seconds_per_input: float, variance_inputs: float, variance_rounds: float
) -> float:
    """Return how many inputs in each round know a latency best for the time that they take.

    Parameters
    ----------
    seconds_per_round : float
        What a round takes before its first input: starting, probing, warming up.
    seconds_per_input : float
    variance_inputs : float
        Of the log latency of one input around the value of its round, without what its size foretells.
    variance_rounds : float
        Of the value of one round around that of all, without what is due to its inputs.

    Returns
    -------
    float
        sqrt((seconds_per_round / seconds_per_input) * (variance_inputs / variance_rounds)); infinite where rounds do
        not differ.

    References
    ----------
    T. Kalibera and R. Jones, Rigorous benchmarking in reasonable time, International Symposium on Memory Management
    (2013).

    Examples
    --------
    >>> best_inputs(seconds_per_round=2.0, seconds_per_input=0.02, variance_inputs=0.04, variance_rounds=0.01)
    20.0
    """
    if not variance_rounds > 0:
        return math.inf
    return math.sqrt(seconds_per_round / seconds_per_input * variance_inputs / variance_rounds)
