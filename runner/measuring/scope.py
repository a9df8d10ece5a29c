"""The scope of a fill: which strategies it measures, by which rule for further rounds, and what is redone."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from catalog.declaration import Strategy
from catalog.declaration.schema import ExperimentSpec
from catalog.units import parse_wait
from runner.errors import RunnerError

_NAMED = 5


@dataclass(frozen=True)
class FillScope:
    """What a plan covers; without arguments, the declared rounds of all strategies.

    Attributes
    ----------
    rounds : int or None
        Rounds of each strategy, in place of the declared number. It may be more or less.
    only : tuple of str
        The strategies, each as `operator@placement` or `subject:operator:placement`; empty for all.
    redo_doubtful : bool
        Whether rounds whose verdict is DOUBTFUL are measured again.
    race : bool or None
        Whether strategies race, in place of what the catalog says.
    max_time : str or None
        How long rounds are added, in place of the catalog's.
    """

    rounds: int | None = None
    only: tuple[str, ...] = ()
    redo_doubtful: bool = False
    race: bool | None = None
    max_time: str | None = None

    def races(self, experiment: ExperimentSpec) -> bool:
        """Return whether further rounds are those of a race; a number of rounds replaces it."""
        return self.rounds is None and (experiment.race if self.race is None else self.race)

    def max_time_s(self, experiment: ExperimentSpec) -> float | None:
        """Return for how long rounds may be added; None without a limit."""
        return experiment.max_time_s if self.max_time is None else parse_wait(self.max_time)

    def covers(self, strategy: Strategy) -> bool:
        """Return whether the strategy is one of those to measure."""
        return not self.only or bool(_spellings(strategy) & set(self.only))

    def check(self, strategies: Iterable[Strategy]) -> None:
        """Raise RunnerError for a name that is not declared, so that a misspelled one is not taken for a filled one."""
        spellings = {spelling: strategy for strategy in strategies for spelling in _spellings(strategy)}
        for name in self.only:
            if name not in spellings:
                likely = get_close_matches(name, spellings, _NAMED) or list(spellings)[:_NAMED]
                raise RunnerError(f"{name!r} is no declared strategy; some that are: {', '.join(sorted(likely))}")

    @property
    def arguments(self) -> str:
        """Return the options that ask for this scope, each after a blank."""
        rounds = [] if self.rounds is None else ["--rounds", str(self.rounds)]
        only = [word for name in self.only for word in ("--only", name)]
        redo = ["--redo", "doubtful"] if self.redo_doubtful else []
        race = [] if self.race is None else ["--race" if self.race else "--no-race"]
        time = [] if self.max_time is None else ["--max-time", self.max_time]
        return "".join(f" {shlex.quote(word)}" for word in (*rounds, *only, *redo, *race, *time))


EVERYTHING = FillScope()


def _spellings(strategy: Strategy) -> set[str]:
    subject, operator, placement = strategy.subject, strategy.operator, strategy.placement.name
    return {f"{operator}@{placement}", f"{subject}:{operator}:{placement}", strategy.name}
