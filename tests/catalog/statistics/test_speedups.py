import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.statistics.study_analysis import speedup

MEDIANS = Path(__file__).parents[2] / "data" / "paper_identity_medians.csv"

SUBJECTS = ("resnet", "resnext", "fcn", "duc")

positive = st.floats(1e-4, 1e4)


def test_the_papers_speedups_come_out_of_its_medians() -> None:
    median = _identity_medians()
    edge, cloud, mobile = ([median[name, tier] for name in SUBJECTS] for tier in ("edge", "cloud", "mobile"))
    # Section 5.1: "3.12x, 4.43x, and 1.21x lower median inference latency compared to the cloud tier for ResNet,
    # ResNext, and DUC"; 17.61 / 3.96, as far as it prints its medians, is 4.45.
    to_cloud = [speedup(ours, theirs) for ours, theirs in zip(edge, cloud, strict=True)]
    assert [f"{to_reference.factor:.2f}x {to_reference.direction}" for to_reference in to_cloud] == [
        "3.12x lower",
        "4.45x lower",
        "3.27x higher",
        "1.21x lower",
    ]
    # "The Edge tier shows 1.83x lower average median inference latency compared to the Mobile tier"
    assert str(speedup(edge, mobile)) == "1.83x lower average median latency"
    assert f"{np.mean(mobile) / np.mean(edge):.2f}" == "1.93"  # not the ratio of the means


def test_equal_medians_are_equal() -> None:
    assert str(speedup(2.0, 2.0)) == "equal median latency"
    assert str(speedup([1.0, 2.0], [2.0, 1.0])) == "equal average median latency"
    assert speedup(2.0, 2.0).factor == 1


def test_of_one_subject_there_is_no_average() -> None:
    assert str(speedup([1.0], [2.0])) == str(speedup(1.0, 2.0)) == "2.00x lower median latency"


@settings(deadline=None)
@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=6))
def test_the_factor_is_at_least_one_and_the_direction_turns_with_the_pair(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = zip(*pairs, strict=True)
    forward, turned = speedup(ours, theirs), speedup(theirs, ours)
    assert forward.factor >= 1 - 1e-9
    assert {forward.direction, turned.direction} in ({"lower", "higher"}, {"equal"})
    assert forward.factor == turned.factor


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [([], []), ([1.0], [1.0, 2.0]), (0.0, 1.0), (1.0, float("nan")), (1.0, -1.0), ([[1.0]], [[1.0]])],
)
def test_what_has_no_ratio_is_refused(ours: object, theirs: object) -> None:
    with pytest.raises(ValueError, match="median"):
        speedup(ours, theirs)  # type: ignore[arg-type]


def _identity_medians() -> dict[tuple[str, str], float]:
    with MEDIANS.open() as lines:
        next(lines)  # the source
        return {(row["subject"], row["tier"]): float(row["median_latency_s"]) for row in csv.DictReader(lines)}
