"""The rounds of one race, without anything that measures: replayed races and simulated ones share it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from catalog.statistics.looks import LEAVING_LOOKS, looks
from recommender.ranking import Candidate
from recommender.ranking.racing import RaceQuestion, RaceState, race_state

# Of a strategy: the declared plan of a raced catalog.
FIRST_LOOK = 3


@dataclass(frozen=True, eq=False)
class RaceRun:
    """A race that is over, or ran out of rounds.

    Attributes
    ----------
    candidates : sequence of Candidate
        In the order of the strategies.
    rounds : sequence of int
        Of each.
    states : sequence of RaceState
        After every look, leaving looks included.
    """

    candidates: Sequence[Candidate]
    rounds: Sequence[int]
    states: Sequence[RaceState]


def run_race(
    measured: Callable[[int, int], Candidate],
    strategies: int,
    questions: Sequence[RaceQuestion],
    *,
    most: int,
    seconds: Callable[[int], float] = lambda _: 1.0,
) -> RaceRun:
    """Run a race as a fill does.

    Parameters
    ----------
    measured : callable
        From the place of a strategy and a number of rounds to the candidate with so many.
    strategies : int
    questions : sequence of RaceQuestion
    most : int
        Rounds of a strategy, however undecided it is.
    seconds : callable
        From the place of a strategy to what a round of it takes.
    """
    rounds, states = [1] * strategies, []
    while True:
        candidates = [measured(place, count) for place, count in enumerate(rounds)]
        places = {candidate: place for place, candidate in enumerate(candidates)}
        spent = {candidate: seconds(place) for candidate, place in places.items()}
        states.append(race_state(candidates, questions, seconds_per_round=spent))
        chosen = [places[candidate] for candidate in states[-1].next if candidate.rounds < most]
        if not chosen:
            return RaceRun(candidates, rounds, states)
        # The strategy with the fewest rounds catches up first: strategies are decided about at the same looks.
        stop = min(_next_stop(rounds[place]) for place in chosen)
        for place in chosen:
            rounds[place] = min(max(rounds[place], stop), most)


def _next_stop(rounds: int) -> int:
    leaving = next((stop for stop in LEAVING_LOOKS if stop > rounds), None)
    if leaving is not None:
        return leaving
    return next(look.rounds for look in looks(FIRST_LOOK) if look.rounds > rounds)
