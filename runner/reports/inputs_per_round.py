"""How many inputs each round should have, by what rounds and inputs cost and how much each of them varies."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import numpy as np

from catalog.statistics.looks import best_inputs

# So many rounds of a strategy show how much rounds differ.
_FEWEST_ROUNDS = 3
# What other numbers of inputs may cost in time before they are worth a change.
_ALIKE = 1.1


@dataclass(frozen=True)
class InputsPerRound:
    """The number of inputs that a subject's rounds have, the best one, and what the difference costs.

    `best` is infinite where rounds differ by their inputs alone. `cost` is the time that the same
    precision takes with the present number, over that with the best one.
    """

    subject: str
    present: int
    best: float
    cost: float

    def words(self) -> str:
        """Return the line that a command prints.

        Examples
        --------
        >>> InputsPerRound("net", 10, 14.2, 1.02).words()
        'net: 10 inputs per round are about right; 14 would be best'
        >>> InputsPerRound("net", 10, 80.0, 2.25).words()
        'net: 10 inputs per round take 2.2 times as long as 80 would for the same precision (experiment: {inputs: 80})'
        """
        if math.isinf(self.best):
            return f"{self.subject}: rounds differ by their inputs alone; more inputs in fewer rounds would say more"
        best = max(1, round(self.best))
        if best == self.present:
            return f"{self.subject}: {self.present} inputs per round are best"
        if self.cost <= _ALIKE:
            return f"{self.subject}: {self.present} inputs per round are about right; {best} would be best"
        return (
            f"{self.subject}: {self.present} inputs per round take {self.cost:.1f} times as long as {best} would for "
            f"the same precision (experiment: {{inputs: {best}}})"
        )


@dataclass(frozen=True)
class _Rounds:
    """The rounds of one strategy: variances relative to the mean squared, and seconds."""

    inputs: float
    variance_inputs: float
    variance_means: float
    round_s: float
    input_s: float


def inputs_per_round(moments: Sequence[Mapping[str, Any]]) -> Iterator[InputsPerRound]:
    """Yield the best number of inputs for each subject of which some strategy has three rounds.

    Parameters
    ----------
    moments
        The rows of `catalog.evidence.reading.round_moments`, in their order.

    Notes
    -----
    Variances are means over strategies, times are medians. The mean of a round of n inputs varies by what rounds
    differ and by 1/n of what inputs differ; the first is what is left of it without the second.
    """
    for subject, rows in groupby(moments, key=lambda row: str(row["subject"])):
        by_strategy = [list(group) for _, group in groupby(rows, key=lambda row: row["latency_key"])]
        strategies = [_rounds(group) for group in by_strategy if len(group) >= _FEWEST_ROUNDS]
        if strategies:
            yield _of_subject(subject, strategies)


def _rounds(rows: Sequence[Mapping[str, Any]]) -> _Rounds:
    means = np.array([row["mean_s"] for row in rows])
    inputs = np.array([row["inputs"] for row in rows], dtype=float)
    # Unbiased, as the rows have the mean square of so many values around nothing.
    unbiased = inputs / np.maximum(inputs - 1, 1)
    within = np.maximum(np.array([row["square_s"] for row in rows]) - means**2, 0.0) * unbiased
    took = [(_moment(row["finished_at"]) - _moment(row["started_at"])).total_seconds() for row in rows]
    return _Rounds(
        inputs=float(np.median(inputs)),
        variance_inputs=float(np.mean(within / means**2)),
        variance_means=float(np.var(means, ddof=1) / means.mean() ** 2),
        round_s=float(np.median(took)),
        input_s=float(np.median([row["total_s"] / row["inputs"] for row in rows])),
    )


def _of_subject(subject: str, strategies: Sequence[_Rounds]) -> InputsPerRound:
    present = float(np.median([rounds.inputs for rounds in strategies]))
    of_inputs = float(np.mean([rounds.variance_inputs for rounds in strategies]))
    of_rounds = float(np.mean([rounds.variance_means for rounds in strategies])) - of_inputs / present
    input_s = max(float(np.median([rounds.input_s for rounds in strategies])), 1e-9)
    round_s = max(float(np.median([rounds.round_s for rounds in strategies])) - present * input_s, 0.0)
    best = best_inputs(
        seconds_per_round=round_s, seconds_per_input=input_s, variance_inputs=of_inputs, variance_rounds=of_rounds
    )
    if math.isinf(best):
        return InputsPerRound(subject, round(present), best, math.nan)

    def cost(inputs: float) -> float:
        return (round_s + inputs * input_s) * (of_rounds + of_inputs / inputs)

    best = max(best, 1.0)
    return InputsPerRound(subject, round(present), best, cost(present) / cost(best))


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
