"""A catalog that lists bandwidths is measured at each; what no swept link or tier touches is measured once."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from catalog.declaration import parse_catalog
from catalog.evidence.database import open_database
from catalog.evidence.link_samples import linked_strategies
from catalog.evidence.loading import strategy_evidence
from catalog.exchange import collect, document_bytes, import_files
from runner.host import this_host
from runner.measuring.keyed_strategy import RunContext, key_strategy
from runner.measuring.tiers import Scale
from runner.reports.html.setting_sweeps import setting_sweeps
from tests.catalog_of_one import CATALOG, declare
from tests.runner.commands.conftest import Command
from tests.runner.commands.conftest import command as command  # the fixture, for these tests too

SWEPT = ["10mbit", "100mbit"]


def declared(bandwidth: str | list[str]) -> str:
    """Return the catalog of one small model with a link that has one bandwidth or lists several."""
    experiment = {"inputs": 2, "rounds": 1, "warmup": 0}
    links = {"mobile-edge": {"bandwidth": bandwidth}}
    return yaml.safe_dump(CATALOG | {"links": links, "experiment": experiment}, sort_keys=False)


def contexts(bandwidth: str | list[str], folder: Path) -> tuple[RunContext, ...]:
    declare(folder)
    catalog = parse_catalog(declared(bandwidth))
    return RunContext(catalog, folder, "process", Scale.parse("1"), folder, host=this_host()).settings


def test_settings_are_environments_that_share_what_they_do_not_touch(tmp_path: Path) -> None:
    (plain,), swept = contexts("10mbit", tmp_path), contexts(SWEPT, tmp_path)
    assert len({own.environment_key for own in (plain, *swept)}) == 3
    assert {own.plain_environment_key for own in (plain, *swept)} == {plain.environment_key}
    keys = [
        [key_strategy(own, strategy).latency_key for strategy in own.catalog.strategies()] for own in (plain, *swept)
    ]
    mobile, edge = zip(*keys, strict=True)
    assert len(set(mobile)) == 1
    # Evidence from before the list stays evidence of the same bandwidth.
    assert edge[0] == edge[1] != edge[2]


@pytest.fixture
def swept(command: Command, tmp_path: Path) -> Command:
    declare(tmp_path)
    (tmp_path / "strategies.yaml").write_text(declared(SWEPT))
    return command


def test_a_plan_has_each_round_once_and_says_at_which_setting(swept: Command) -> None:
    plan = json.loads(swept("plan", "--launcher", "process", "--json").out)
    rounds = [(task["placement"], task["setting"]["bandwidth of mobile-edge"]) for task in plan["missing_rounds"]]
    assert rounds == [("mobile", 10_000_000), ("edge", 10_000_000), ("edge", 100_000_000)]
    assert len(plan["missing_accuracies"]) == 1
    printed = swept("plan", "--launcher", "process")
    assert "at bandwidth of mobile-edge 100 Mbit/s: 1 round, about" in printed.out
    assert (
        "2 settings: bandwidth of mobile-edge 10 Mbit/s; bandwidth of mobile-edge 100 Mbit/s" in swept("validate").out
    )


def test_a_fill_measures_every_setting_and_all_commands_tell_them_apart(
    swept: Command, tmp_path: Path, new_database: Callable[[str], str]
) -> None:
    done = swept("fill-catalog", "--launcher", "process")
    assert done.code == 0 and "setting 2 of 2: bandwidth of mobile-edge 100 Mbit/s" in done.said
    assert "measured 3 rounds, 1 accuracy" in done.said
    assert "Nothing is missing" in swept("plan", "--launcher", "process").out
    rows = json.loads(swept("leaderboard", "--json").out)
    settings = ["bandwidth of mobile-edge 10 Mbit/s", "bandwidth of mobile-edge 100 Mbit/s"]
    assert [row["setting"] for row in rows] == [settings[0], settings[0], settings[1], settings[1]]
    coverage = json.loads(swept("status", "--json").out)["coverage"]
    assert {row["setting"]: row["with_evidence"] for row in coverage} == dict.fromkeys(settings, 2)
    answer = json.loads(swept("recommend", "table", "--json").out)
    assert any(text.startswith(f"at {settings[1]}; ") for text in answer["warnings"])
    # The first characters of a key, as the leaderboard prints them, choose another setting.
    other = json.loads(swept("recommend", "table", "--json", "--environment", rows[0]["environment"][:12]).out)
    assert other["environment"]["key"] == rows[0]["environment"]
    assert "is not in the evidence" in swept("recommend", "table", "--environment", rows[0]["environment"][:7]).said
    with open_database(tmp_path / "tierwise.db") as opened, opened.session() as session:
        (sweep,) = setting_sweeps(strategy_evidence(session), adjustment="holm")
        exported = document_bytes(collect(session))
        environments = {row.environment.id for row in strategy_evidence(session)}
        linked = [linked_strategies(session, "table", environment) for environment in environments]
    # Questions about other rates start from all settings, in each of their environments.
    assert [[len(strategy.evidence) for strategy in strategies] for strategies in linked] == [[1, 2], [1, 2]]
    assert [strategy.strategy for strategy in sweep.strategies] == ["identity@edge"]
    assert [value.label for value in sweep.strategies[0].evidence] == ["10 Mbit/s", "100 Mbit/s"]
    (tmp_path / "e.json").write_bytes(exported)
    with open_database(new_database("other.db"), create=True) as other:
        import_files(other, [tmp_path / "e.json"])
        with other.session() as session:
            evidence = strategy_evidence(session)
    assert [str(row.environment.setting) for row in evidence if row.measured] == sorted(2 * settings)
    # A setting that is no longer listed is no longer declared, and what it measured stays.
    (tmp_path / "strategies.yaml").write_text(declared("10mbit"))
    assert "Nothing is missing" in swept("fill-catalog", "--launcher", "process").err
    (first, second) = json.loads(swept("leaderboard", "--json").out)
    assert "setting" not in first and {first["placement"], second["placement"]} == {"mobile", "edge"}
