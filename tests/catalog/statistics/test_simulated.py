"""Small versions of benchmarks/coverage.py: known truth, fixed seeds, bounds of about four standard errors."""

import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

_SCRIPT = Path(__file__).parents[3] / "benchmarks" / "coverage.py"


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    spec = util.spec_from_file_location("coverage_benchmark", _SCRIPT)
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    module.N_RESAMPLES = 200
    return module


def test_intervals_hold_the_truth_where_a_bootstrap_of_three_rounds_does_not(simulation: ModuleType) -> None:
    design = simulation.Design(3, 100, 0.15, 0.1, 0.1)
    p50, _ = simulation.coverage(design, repetitions=200, rng=np.random.default_rng(1))
    assert p50.interval > 0.88
    assert p50.upper > 0.88
    assert p50.rounds_and_inputs_drawn < 0.85


def test_intervals_hold_the_truth_where_inputs_matter_most(simulation: ModuleType) -> None:
    design = simulation.Design(3, 100, 0.05, 0.3, 0.05)
    for coverage in simulation.coverage(design, repetitions=120, rng=np.random.default_rng(2)):
        assert coverage.interval > 0.87


def test_without_a_difference_the_deciding_analysis_is_quiet_and_pooled_samples_are_not(
    simulation: ModuleType,
) -> None:
    design = simulation.Design(5, 30, 0.05, 0.3, 0.05, sd_drift=0.05, repetitions=2)
    deciding = simulation.nominal_error(design, strategies=4, repetitions=100, rng=np.random.default_rng(3))
    assert deciding.all_pairs <= 0.12
    # Many pairs in few rounds: three rounds that agree by luck must not pass for certainty.
    few = simulation.Design(3, 30, 0.15, 0.1, 0.1)
    assert simulation.nominal_error(few, strategies=8, repetitions=100, rng=np.random.default_rng(4)).all_pairs <= 0.12
    pooled = simulation.pooled_error(design, strategies=4, repetitions=12, rng=np.random.default_rng(3))
    assert pooled.kruskal > 0.20
    assert pooled.conover > 0.15


def test_ratios_are_held_and_margins_respected(simulation: ModuleType) -> None:
    design = simulation.Design(5, 40, 0.01, 0.3, 0.05)
    far = simulation.verdicts(design, 50.0, ratio=1.2, repetitions=100, rng=np.random.default_rng(4))
    assert far.covered > 0.85
    assert far.different > 0.9
    assert far.equivalent == 0
    at_margin = simulation.verdicts(design, 50.0, ratio=1.05, repetitions=100, rng=np.random.default_rng(5))
    assert at_margin.equivalent <= 0.08


def test_the_advised_rounds_settle_most(simulation: ModuleType) -> None:
    design = simulation.Design(5, 30, 0.05, 0.3, 0.05)
    rounds = simulation.settling(design, ratio=1.1, asked_for="rounds", repetitions=60, rng=np.random.default_rng(6))
    assert rounds.unresolved > 10
    assert rounds.settled > 0.6
    uneven = simulation.Design(5, 30, 0.005, 0.3, 0.05, sd_own=0.15)
    inputs = simulation.settling(uneven, ratio=1.1, asked_for="inputs", repetitions=60, rng=np.random.default_rng(7))
    assert inputs.unresolved > 10
    assert inputs.settled > 0.6


def test_drops_are_held(simulation: ModuleType) -> None:
    drops = simulation.drop_coverage(500, lost=0.04, gained=0.02, repetitions=300, rng=np.random.default_rng(7))
    assert drops.interval > 0.90
    assert drops.upper > 0.89


@pytest.mark.parametrize("spread", ["all alike", "drawn, up to tenfold", "one fivefold", "a third fivefold"])
def test_bounds_steadied_by_other_strategies_hold_together_and_are_narrower(
    simulation: ModuleType, spread: str
) -> None:
    rng = np.random.default_rng(8)
    joint = simulation.joint_of_rounds(simulation.SPREADS[spread], strategies=18, rounds=3, repetitions=250, rng=rng)
    assert joint.steadied > 0.90
    assert joint.steadied_margin < joint.own_margin
