"""The inputs of each round: the same ones in all rounds, or drawn for the round, spread by size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from catalog.declaration import Catalog
from catalog.statistics.input_draw import DrawnInput, Pool, PoolInput, SystematicDesign
from runner.subjects.dataset import Dataset

if TYPE_CHECKING:
    from catalog.statistics.input_draw import Stratum

# Targets from here on are decided by the largest inputs, of which a spread sample has too few.
_TAIL_FROM = 95.0


class RoundInputs(Protocol):
    """How the inputs of a subject's rounds are chosen."""

    @property
    def select(self) -> str:
        """Return the word of the catalog."""

    @property
    def count(self) -> int:
        """Return how many inputs a round has, the certain ones of the first round left aside."""

    @property
    def key(self) -> object:
        """Return what a latency key says of the choice."""

    @property
    def pool(self) -> Pool | None:
        """Return the pool that the rounds draw from; None where all rounds send the same inputs."""

    def draw(self, round_number: int) -> tuple[DrawnInput, ...]:
        """Return the inputs of a round in the order they are sent."""

    def protocol(self, round_number: int) -> Mapping[str, Any]:
        """Return what a measurement of this round stores of the choice."""


@dataclass(frozen=True)
class FixedInputs:
    """The same inputs in every round: rounds and inputs are crossed."""

    ids: tuple[str, ...]
    select: str

    @property
    def count(self) -> int:
        return len(self.ids)

    @property
    def key(self) -> object:
        return list(self.ids)

    @property
    def pool(self) -> Pool | None:
        return None

    def draw(self, round_number: int) -> tuple[DrawnInput, ...]:
        return tuple(DrawnInput(name, "all") for name in self.ids)

    def protocol(self, round_number: int) -> Mapping[str, Any]:
        return {"input_ids": list(self.ids)}


@dataclass(frozen=True)
class SystematicInputs:
    """Inputs that each round draws for itself; all strategies of the subject share them."""

    design: SystematicDesign
    subject: str
    dataset: Dataset
    select: str = "systematic"
    _drawn: dict[int, tuple[DrawnInput, ...]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def sizes(self) -> Mapping["Stratum", tuple[int, int]]:
        """Return for each stratum how many inputs it has and how many of them one round holds."""
        # They follow from the number of inputs alone, so that a plan need not generate pictures to weigh them.
        return self.design.sizes(Pool([PoolInput(name, 0) for name in self.dataset.input_ids()]))

    @property
    def count(self) -> int:
        return sum(drawn for name, (_, drawn) in self.sizes.items() if name != "certainty")

    @property
    def key(self) -> object:
        return {"select": self.select, "inputs": self.design.inputs, "tail": self.design.tail}

    @cached_property
    def pool(self) -> Pool:
        return self.dataset.input_pool()

    def draw(self, round_number: int) -> tuple[DrawnInput, ...]:
        if round_number not in self._drawn:
            self._drawn[round_number] = self.design.draw(self.pool, subject=self.subject, round_number=round_number)
        return self._drawn[round_number]

    def protocol(self, round_number: int) -> Mapping[str, Any]:
        return {
            "select": self.select,
            "inputs": self.design.inputs,
            "tail": self.design.tail,
            "strata": {name: {"pool": total, "drawn": drawn} for name, (total, drawn) in self.sizes.items()},
            "input_ids": [entry.id for entry in self.draw(round_number)],
        }


def systematic_inputs(catalog: Catalog, subject: str, dataset: Dataset) -> SystematicInputs:
    """Return the draw that a catalog declares for a subject."""
    tail = max(catalog.percentiles) >= _TAIL_FROM
    return SystematicInputs(SystematicDesign(catalog.experiment.inputs, tail=tail), subject, dataset)


def in_words(inputs: SystematicInputs) -> str:
    """Say in one line what the rounds of a subject draw.

    Examples
    --------
    >>> from runner.subjects.embedded.datasets import builtin_dataset
    >>> in_words(SystematicInputs(SystematicDesign(10, tail=True), "net", builtin_dataset("builtin:fashion")))
    '10 of 200 inputs per round, spread by size, and 3 of the 3 % largest; the 3 largest in round 1'
    """
    return strata_in_words(inputs.sizes, declared=inputs.design.inputs)


def strata_in_words(strata: Mapping[Any, tuple[int, int]], *, declared: int) -> str:
    """Say what rounds draw from strata: how many inputs each has, and how many of them one round holds.

    Examples
    --------
    >>> strata_in_words({"body": (1995, 10), "certainty": (5, 5)}, declared=10)
    '10 of 2000 inputs per round, spread by size; the 5 largest in round 1'
    """
    total = sum(total for total, _ in strata.values())
    if "all" in strata:
        more = f" (there are no more, and {declared} are declared)" if total < declared else ""
        return f"all {total} inputs in every round{more}"
    tail = f", and {strata['tail'][1]} of the 3 % largest" if "tail" in strata else ""
    certain = strata["certainty"][1]
    largest = "the largest" if certain == 1 else f"the {certain} largest"
    return f"{strata['body'][1]} of {total} inputs per round, spread by size{tail}; {largest} in round 1"


def chosen_ids(drawn: Sequence[DrawnInput]) -> tuple[str, ...]:
    """Return the ids of drawn inputs in the order they are sent."""
    return tuple(entry.id for entry in drawn)
