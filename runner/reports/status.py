"""What is wrong with the evidence, in a line for each kind; `runner verify` shows every measurement.

And how many inputs each round should have, by what rounds and inputs cost and how much each of them varies.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import numpy as np

from catalog.statistics.input_draw import best_inputs
from catalog.units import counted

Row = Mapping[str, Any]
# What a finding says of its figures, such as which processes were busy.
_NOTE = re.compile(r" \([^()]*\)$")


@dataclass(frozen=True)
class _Trouble:
    """One reason why a round is not VALID, with the rule that it is of; of a failure the whole reason."""

    row: Row
    rule: str
    text: str

    @property
    def place(self) -> str:
        return f"{_strategy(self.row)} round {self.row['round']}"


def trouble_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each verdict and rule, and each kind of failure, the most frequent first.

    Examples
    --------
    >>> row = {"subject": "net", "operator": "quantized", "placement": "edge", "status": "complete"}
    >>> rows = [row | {"round": n, "verdict": "DOUBTFUL", "reason": f"steal: {n}.5 %, limit 2.0 %"} for n in (3, 4)]
    >>> list(trouble_lines(rows))[0]
    'DOUBTFUL by steal: 2 rounds of net'
    """
    judged = [trouble for row in rows if row["status"] == "complete" for trouble in _by_rule(row)]
    kinds: dict[tuple[str, str], list[_Trouble]] = {}
    for trouble in judged:
        kinds.setdefault((trouble.row["verdict"], trouble.rule), []).append(trouble)
    for (verdict, rule), troubles in sorted(kinds.items(), key=lambda kind: -len(kind[1])):
        yield f"{verdict} by {rule}: {_share(troubles)}"
    if judged:
        yield "each of these rounds, and what to do: runner verify"
    failed = [(f"{_strategy(row)} round {row['round']}", _line(row["reason"])) for row in rows if _failed(row)]
    for group in grouped_messages(failed):
        yield f"failed: {counted(group.count, 'round')}, {_names(group.names)}: {group.words}"


def _failed(row: Row) -> bool:
    return bool(row["status"] != "complete")


def _by_rule(row: Row) -> Iterator[_Trouble]:
    """Yield the broken rules that a stored reason names: `rule (where): figures; rule: figures`."""
    for finding in str(row["reason"] or "unknown").split("; "):
        head, colon, text = finding.partition(": ")
        rule, _, where = head.partition(" (")
        # A reason from elsewhere may have another form, and is a rule of its own.
        yield _Trouble(row, rule, f"{where.rstrip(')')}, {text}" if where else text if colon else "no figure")


def _share(troubles: Sequence[_Trouble]) -> str:
    """Return how many rounds of which subjects have a trouble; of a single one its figures."""
    if len(troubles) == 1:
        return f"{troubles[0].place}: {_NOTE.sub('', troubles[0].text)}"
    subjects = Counter(subject for subject, *_ in {_round_of(trouble.row) for trouble in troubles})
    total = counted(sum(subjects.values()), "round")
    if len(subjects) == 1:
        return f"{total} of {next(iter(subjects))}"
    return f"{total} ({', '.join(f'{name} {count}' for name, count in subjects.most_common())})"


def _round_of(row: Row) -> tuple[Any, ...]:
    return (row["subject"], row["operator"], row["placement"], row["round"], row.get("started_at"))


def failure_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each kind of reason why accuracies failed."""
    for group in grouped_messages((f"{row['subject']}/{row['operator']}", _line(row["reason"])) for row in rows):
        yield f"failed: {counted(group.count, 'accuracy')}, {_names(group.names)}: {group.words}"


def inapplicable_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each operator that a model does not allow."""
    placements: dict[tuple[str, str, str], int] = Counter(
        (row["subject"], row["operator"], _line(row["reason"])) for row in rows
    )
    for (subject, operator, reason), count in placements.items():
        yield f"inapplicable: {subject}/{operator} ({counted(count, 'placement')}): {reason}"


def departure_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each look at which strategies left the last race of a subject, and why."""
    looks: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        looks.setdefault((row["subject"], row["environment"], row["rounds"]), []).append(row)
    for (subject, _, rounds), left in sorted(looks.items(), key=lambda look: (look[0][0], look[0][2])):
        reasons = ", ".join(filter(None, (_departures(left, *reason) for reason in _REASONS.items())))
        place = f"after {counted(rounds, 'round')} (look {left[0]['look']})"
        yield f"{subject}: {counted(len(left), 'strategy')} left the race {place}: {reasons}"
    if rows:
        yield "which ones, and why: runner leaderboard"


_REASONS = {"misses": "beyond every SLO", "beaten": "slower than another"}


def _departures(rows: Sequence[Row], reason: str, words: str) -> str:
    """Say how many left for a reason, and the least margin of them; nothing where none did."""
    margins = [100 * float(row["margin"]) for row in rows if row["reason"] == reason]
    return f"{len(margins)} {words} by {min(margins):.2g} % or more" if margins else ""


def _short(row: Row) -> str:
    return f"{row['operator']}@{row['placement']}"


def _strategy(row: Row) -> str:
    return f"{row['subject']}/{_short(row)}"


def _names(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _line(text: object) -> str:
    """Return the first line of a reason that may be a whole log."""
    return (str(text or "").strip().splitlines() or ["no reason is known"])[0]


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


_VARYING = re.compile(r"\([^()]*\)|[-+±]?\d[\d.,e]*")


@dataclass(frozen=True)
class MessageGroup:
    """Messages of one kind: the first of them, how many there are, and what they are about, in their order."""

    first: str
    count: int
    names: tuple[str, ...]
    alike: bool

    @property
    def words(self) -> str:
        """Return the first message, and that others have other figures where they do."""
        return self.first if self.alike else f"{self.first} (the first; figures differ)"


def grouped_messages(messages: Iterable[tuple[str, str]]) -> Iterator[MessageGroup]:
    """Group messages, given with the name of what they are about, by their kind; the most frequent kind comes first.

    Examples
    --------
    >>> groups = grouped_messages([("a", "steal: 2.6 %"), ("b", "gone"), ("c", "steal: 3.1 %")])
    >>> [(group.words, group.count, group.names) for group in groups]
    [('steal: 2.6 % (the first; figures differ)', 2, ('a', 'c')), ('gone', 1, ('b',))]
    """
    kinds: dict[str, list[tuple[str, str]]] = {}
    for name, message in messages:
        kinds.setdefault(_VARYING.sub("#", message), []).append((name, message))
    for members in sorted(kinds.values(), key=len, reverse=True):
        texts = {message for _, message in members}
        names = tuple(dict.fromkeys(name for name, _ in members))
        yield MessageGroup(members[0][1], len(members), names, len(texts) == 1)
