"""The rounds of one race, without anything that measures: replayed races and simulated ones share it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recommender.ranking import Candidate
from recommender.ranking.racing import RaceQuestion, RaceState, race_state

# Rounds of a strategy in the declared plan of a raced catalog.
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
        After every round of those that race.
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
        # The strategy with the fewest rounds catches up first: strategies are compared over the same rounds.
        target = min(rounds[place] for place in chosen) + 1
        for place in chosen:
            rounds[place] = max(rounds[place], target)
