"""Holm's procedure against R, against its definition one by one, and against one level for all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.statistics.feasibility import step_down
from catalog.statistics.outcomes import sidak

CONFIDENCES = st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=20)


def one_by_one(confidences: list[float], level: float) -> list[bool]:
    """Test the surest first, each at the level of those that remain, until one fails."""
    holds = [False] * len(confidences)
    remaining = sorted(range(len(confidences)), key=lambda test: -confidences[test])
    while remaining and confidences[remaining[0]] >= sidak(level, comparisons=len(remaining)) - 1e-12:
        holds[remaining.pop(0)] = True
    return holds


@given(CONFIDENCES, st.floats(min_value=0.5, max_value=0.999))
def test_holds_what_the_procedure_by_hand_holds(confidences: list[float], level: float) -> None:
    steps = step_down(confidences, confidence_level=level)
    assert (np.array(confidences) >= steps.levels - 1e-12).tolist() == one_by_one(confidences, level)


@given(CONFIDENCES)
def test_holds_exactly_from_its_joint_confidence_on(confidences: list[float]) -> None:
    joint = step_down(confidences).joint
    for position, test in enumerate(joint):
        if 0.01 < test < 0.99:
            assert step_down(confidences, confidence_level=test - 1e-6).levels[position] <= confidences[position]
            assert step_down(confidences, confidence_level=test + 1e-6).levels[position] > confidences[position]


@given(CONFIDENCES)
def test_is_never_less_sure_than_one_level_for_all(confidences: list[float]) -> None:
    steps = step_down(confidences)
    assert np.all(steps.joint >= np.array(confidences) ** len(confidences) - 1e-12)
    assert np.all(steps.levels <= sidak(0.95, comparisons=len(confidences)) + 1e-12)


@given(CONFIDENCES, st.integers(min_value=0), st.floats(min_value=0, max_value=1))
def test_a_surer_test_takes_nothing_from_the_others(confidences: list[float], which: int, share: float) -> None:
    surer = list(confidences)
    position = which % len(surer)
    surer[position] += share * (1 - surer[position])
    assert np.all(step_down(surer).joint >= step_down(confidences).joint - 1e-12)


def test_near_rs_holm_where_sidak_and_bonferroni_agree() -> None:
    # R 4.2.2: p.adjust(c(1e-5, 4e-6, 3e-5, 2e-5), "holm")
    joint = step_down(1 - np.array([1e-5, 4e-6, 3e-5, 2e-5])).joint
    assert 1 - joint == pytest.approx([3e-5, 1.6e-5, 4e-5, 4e-5], rel=1e-4)


def test_what_cannot_be_tested_counts_and_never_holds() -> None:
    steps = step_down([0.98, 0.0])
    assert steps.joint.tolist() == pytest.approx([0.98**2, 0.0])
    assert step_down([]).joint.size == 0
    with pytest.raises(ValueError, match="from 0 to 1"):
        step_down([1.5])
    with pytest.raises(ValueError, match="above 0 and below 1"):
        step_down([0.5], confidence_level=1.0)
