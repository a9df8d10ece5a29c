"""When measuring goes on, with what, and when it stops: on latencies with known spread."""

import math

import numpy as np
import pytest

from catalog.declaration.schema import ExperimentSpec
from catalog.statistics.samples import Samples, wide_rounds
from runner.measuring.stopping import Look, assess, planned_looks

Rows = list[tuple[int, str, float]]


def experiment(precision: str, **changes: object) -> ExperimentSpec:
    return ExperimentSpec.model_validate({"precision": precision, "inputs": 30, "rounds": 3, **changes})


def samples_of(rows: Rows) -> Samples:
    """Return the samples of the wide rounds, as they are loaded from the evidence."""
    inputs: dict[int, set[str]] = {}
    for number, name, _ in rows:
        inputs.setdefault(number, set()).add(name)
    wide = wide_rounds({number: len(names) for number, names in inputs.items()})
    kept = [row for row in rows if row[0] in wide]
    numbers, names, latencies_s = zip(*kept, strict=True)
    return Samples.from_arrays(latencies_s, numbers, [int(name) for name in names])


def taken(rounds: dict[int, int], *, sd_rounds: float, sd_inputs: float) -> Rows:
    rng = np.random.default_rng(3)
    inputs = rng.normal(0, sd_inputs, 500)
    starts = {number: rng.normal(0, sd_rounds) for number in rounds}
    return [
        (number, f"{index:04d}", 0.1 * math.exp(starts[number] + inputs[index] + rng.normal(0, 0.01)))
        for number, count in rounds.items()
        for index in range(count)
    ]


def test_rounds_come_first_then_inputs_up_to_what_there_is() -> None:
    looks = planned_looks(experiment("5%"), pool=200)
    assert looks[0] == Look((1, 2, 3), 30)
    assert [(look.rounds[-1], look.inputs) for look in looks] == [
        (3, 30),
        (5, 30),
        (8, 30),
        (12, 30),
        (15, 60),
        (18, 120),
        (21, 200),
    ]
    numbers = [number for look in looks for number in look.rounds]
    assert numbers == list(range(1, 22)), "a round has one number of inputs, whenever it is measured"
    assert [look.inputs for look in planned_looks(experiment("5%"), pool=30)] == [30] * 4


def test_a_narrow_interval_ends_it() -> None:
    spec = experiment("50%")
    rows = taken({1: 30, 2: 30, 3: 30}, sd_rounds=0.02, sd_inputs=0.1)
    narrowness = assess(samples_of(rows), spec, looks=planned_looks(spec, 200), done={1, 2, 3})
    assert narrowness.reached and narrowness.next is None
    assert narrowness.half_width is not None and narrowness.half_width <= 0.5


def test_rounds_that_differ_ask_for_rounds() -> None:
    spec = experiment("5%")
    rows = taken({1: 30, 2: 30, 3: 30}, sd_rounds=0.1, sd_inputs=0.001)
    narrowness = assess(samples_of(rows), spec, looks=planned_looks(spec, 200), done={1, 2, 3})
    assert narrowness.next == Look((4, 5), 30)


def test_inputs_that_differ_ask_for_inputs_at_once() -> None:
    """Ask for inputs where no number of rounds can narrow the interval."""
    spec = experiment("5%")
    rows = taken({1: 30, 2: 30, 3: 30}, sd_rounds=0.001, sd_inputs=0.6)
    narrowness = assess(samples_of(rows), spec, looks=planned_looks(spec, 200), done={1, 2, 3})
    assert narrowness.next == Look((13, 14, 15), 60)


def test_more_inputs_narrow_it_and_narrow_rounds_do_not_come_back() -> None:
    spec = experiment("5%")
    looks = planned_looks(spec, 200)
    few = {1: 30, 2: 30, 3: 30}
    many = {**few, 13: 60, 14: 60, 15: 60, 16: 120, 17: 120, 18: 120}
    widths = []
    for rounds in (few, many):
        rows = taken(rounds, sd_rounds=0.001, sd_inputs=0.6)
        narrowness = assess(samples_of(rows), spec, looks=looks, done=set(rounds))
        widths.append(narrowness.half_width or math.inf)
    assert widths[1] < 0.7 * widths[0]
    assert narrowness.next == Look((19, 20, 21), 200)


def test_after_the_last_look_there_is_none() -> None:
    spec = experiment("1%")
    looks = planned_looks(spec, 30)
    rounds = {number: 30 for look in looks for number in look.rounds}
    narrowness = assess(samples_of(taken(rounds, sd_rounds=0.2, sd_inputs=0.3)), spec, looks=looks, done=set(rounds))
    assert not narrowness.reached and narrowness.next is None


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"precision": "5%", "inputs": 28}, "needs inputs: 29 or more, got 28"),
        ({"precision": "5%", "percentile": 99.0}, "needs inputs: 299 or more"),
        ({"percentile": 95.0}, "belong to precision"),
        ({"max_time": "5min"}, "belong to precision"),
        ({"precision": 0.05}, "has no unit; write a percentage such as 5%"),
        ({"precision": "0%"}, "greater than 0"),
    ],
)
def test_what_cannot_be_attained_is_refused_when_declared(declared: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ExperimentSpec.model_validate(declared)
