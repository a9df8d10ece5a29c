"""The verdicts of rows from elsewhere, by the rules that judge what was measured here (`catalog/validity`)."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import count, repeat
from typing import NamedTuple, cast

from catalog.evidence.records import MeasurementRecord, SampleRecord
from catalog.exchange.row_collector import RoundRows, StrategyName
from catalog.validity import Finding, judge_strategy


class _RowSample(NamedTuple):
    """The attributes of a `SampleRecord` that rules read."""

    seq: int
    input_id: str
    repetition: int
    latency_s: float
    transmission_s: float
    stratum: str | None


def judge_rows(
    strategy: StrategyName, rounds: Mapping[int, RoundRows], percentiles: Iterable[float]
) -> dict[int, tuple[Finding, ...]]:
    """Return the findings of the rounds of a strategy, by the number of the round.

    Rows have no counters: they are judged by repeated inputs, by the number of inputs and between the rounds. A round
    of which nothing can be judged is DOUBTFUL and says why.
    """
    records = [_record(strategy, number, rows) for number, rows in rounds.items()]
    return dict(zip(rounds, judge_strategy(records, percentiles=percentiles), strict=True))


def _record(strategy: StrategyName, number: int, rows: RoundRows) -> MeasurementRecord:
    cells = zip(count(), rows.input_ids, rows.repetitions, rows.latency_s, repeat(0.0), repeat(None))
    # `_make` does the same by a function of Python, which takes three times as long.
    samples = list(map(partial(tuple.__new__, _RowSample), cells))
    now = datetime.now(UTC)
    return MeasurementRecord(
        latency_key="",
        environment_id=0,
        subject=strategy.subject,
        operator=strategy.operator,
        placement=strategy.placement,
        round=number,
        position=0,
        seed=0,
        status="complete",
        verdict="VALID",
        inputs_select="given",
        started_at=now,
        finished_at=now,
        # A record for every row of a large file would take longer than all else of its import.
        samples=cast(Sequence[SampleRecord], samples),
    )
