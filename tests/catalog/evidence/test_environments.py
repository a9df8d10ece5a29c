"""Where the user names no environment, one rule chooses it."""

from dataclasses import replace

import pytest

from catalog.evidence.strategy_evidence import EnvironmentStanding, preferred_environment

HERE = EnvironmentStanding("a", 1, imported=False, measured=True, complete=True, finished_at="2026-11-24")


@pytest.mark.parametrize(
    "other",
    [
        replace(HERE, key="b", id=2, complete=False, finished_at="2026-11-25"),
        replace(HERE, key="b", id=2, complete=False, measured=False, finished_at="2026-11-25"),
        replace(HERE, key="imported:b", id=2, imported=True, finished_at="2026-11-25"),
        replace(HERE, key="b", id=2, finished_at="2026-11-23"),
        replace(HERE, key="b", id=0),
        replace(HERE, key="imported:a.3fa9c1d2e4b5", id=2, imported=True),
    ],
    ids=[
        "newer, not complete",
        "newer, nothing measured",
        "newer, imported",
        "older",
        "declared before",
        "second claim",
    ],
)
def test_the_newest_complete_environment_measured_here_is_preferred(other: EnvironmentStanding) -> None:
    assert preferred_environment([HERE, other]) == preferred_environment([other, HERE]) == HERE


def test_any_evidence_is_better_than_none() -> None:
    empty = replace(HERE, key="b", measured=False, complete=False, finished_at="2026-11-25")
    imported = replace(HERE, key="imported:c", imported=True, complete=False)
    assert preferred_environment([empty, imported]) == imported


def test_a_second_claim_is_chosen_where_it_is_the_only_match() -> None:
    claim = replace(HERE, key="imported:a.3fa9c1d2e4b5", imported=True)
    assert preferred_environment([claim], ["a", claim.key]) == claim
    assert preferred_environment([claim, replace(HERE, complete=False)]).key == "a"
