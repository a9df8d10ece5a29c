from collections.abc import Callable
from dataclasses import replace

import pytest

from catalog.evidence.records import MeasurementRecord
from catalog.statistics.samples import wide_rounds
from catalog.validity import judge_rounds

Make = Callable[..., MeasurementRecord]


def scaled(record: MeasurementRecord, number: int, factor: float, *, inputs: int = 30) -> MeasurementRecord:
    samples = [replace(sample, latency_s=factor * sample.latency_s) for sample in record.samples[:inputs]]
    return replace(record, round=number, samples=samples)


def test_the_round_that_is_off_is_the_doubtful_one(measurement: Make) -> None:
    rounds = [scaled(measurement(), number, factor) for number, factor in ((1, 1.0), (2, 1.05), (3, 1.5))]
    findings_by_round = judge_rounds(rounds)
    assert [findings[0].verdict for findings in findings_by_round] == ["VALID", "VALID", "DOUBTFUL"]
    assert findings_by_round[2][0].figure == pytest.approx(100 * (1.5 / 1.05 - 1))


def test_rounds_are_compared_on_the_inputs_they_share(measurement: Make) -> None:
    """The first inputs are the fastest: comparing plain medians would call the narrow round 20 % faster."""
    rounds = [scaled(measurement(), 1, 1.0), scaled(measurement(), 2, 1.0, inputs=5)]
    assert [findings[0].figure for findings in judge_rounds(rounds)] == pytest.approx([0, 0])


def test_one_round_alone_has_nothing_to_be_compared_with(measurement: Make) -> None:
    assert judge_rounds([measurement()]) == ((),)


@pytest.mark.parametrize(
    ("inputs", "kept"),
    [
        ({}, set()),
        ({1: 30, 2: 30}, {1, 2}),
        ({1: 30, 2: 120, 3: 120}, {1, 2, 3}),
        ({1: 30, 2: 120, 3: 120, 4: 120}, {2, 3, 4}),
        ({1: 60, 2: 120, 3: 120, 4: 120}, {1, 2, 3, 4}),
    ],
)
def test_narrow_rounds_are_left_out_once_three_others_remain(inputs: dict[int, int], kept: set[int]) -> None:
    assert wide_rounds(inputs) == kept
