"""The plan of a fill: made once, then updated with what building and measuring showed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catalog.declaration import parse_catalog
from catalog.evidence.database import Database, open_database
from catalog.evidence.writing import upsert_artifact
from runner.artifacts.store import CachedArtifact, CachedFile
from runner.host import this_host
from runner.measuring import records
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.plan import FillScope, Plan, make_plan, remaining, update_plan
from runner.measuring.round_inputs import FixedInputs
from runner.measuring.tiers import Scale
from runner.operators.base import passes_code
from runner.subjects.embedded.datasets import BUILTIN, FashionDataset

# `evidence.db` is a migrated copy: to make one takes longer than most of these tests.
pytestmark = pytest.mark.usefixtures("database_url")

CATALOG = """\
version: 1
subjects:
  fashion-resnet: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}
operators: {halves: [partition], identity: []}
tiers: {mobile: {cpus: 0.5, memory: 512m}, edge: {cpus: 1, memory: 1g}}
links: {mobile-edge: {bandwidth: 200mbit}}
strategies:
  - {operators: [halves], placements: [mobile-edge]}
  - {operators: [identity], placements: [mobile]}
experiment: {inputs: 2, rounds: 2}
"""
HALVES = "halves"


class CountingDataset(FashionDataset):
    """The embedded dataset, which counts how often a content key asks for its inputs."""

    reads = 0

    def inputs_fingerprint(self) -> str:
        CountingDataset.reads += 1
        return super().inputs_fingerprint()


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    context = RunContext(parse_catalog(CATALOG), tmp_path, "process", Scale.parse("1"), tmp_path, host=this_host())
    subjects = dict(context.subjects)
    subjects["fashion-resnet"] = replace(subjects["fashion-resnet"], dataset=CountingDataset(BUILTIN))
    context.__dict__["subjects"] = subjects  # where the cached property keeps its value
    return context


def store_halves(
    database: Database, plan: Plan, *, identical: bool = True, refusal: str | None = None, by: str | None = None
) -> None:
    """Store what building the parts showed, and the code of the passes that refused."""
    keyed = next(keyed for keyed in plan.declared if keyed.strategy.operator == HALVES)
    files = tuple(CachedFile(part, f"{part}.onnx", "0" * 64, 1) for part in ("head", "tail"))
    details: dict[str, Any] = {"proof": {"composition": {"bit_identical": identical}}}
    details |= {"refused_by": by} if by else {}
    cached = CachedArtifact(keyed.artifact_key, Path(), files, refusal, details)
    with database.session() as writing:
        upsert_artifact(
            writing, records.artifact(keyed.artifact_key, "fashion-resnet", HALVES, keyed.passes, cached, refusal)
        )
        writing.commit()


def test_parts_that_equal_their_model_leave_the_plan_as_it_was(context: RunContext, tmp_path: Path) -> None:
    with open_database(tmp_path / "evidence.db", create=True) as database:
        plan = make_plan(context, database)
        store_halves(database, plan)
        assert update_plan(plan, context, database) == plan
    assert len(plan.accuracies) == 1 and len(plan.rounds) == 4


@pytest.mark.parametrize(("identical", "refusal"), [(True, None), (False, None), (True, "there is nothing to cut")])
def test_an_updated_plan_is_the_one_that_would_be_made(
    context: RunContext, tmp_path: Path, identical: bool, refusal: str | None
) -> None:
    with open_database(tmp_path / "evidence.db", create=True) as database:
        plan = make_plan(context, database)
        store_halves(database, plan, identical=identical, refusal=refusal)
        updated = update_plan(plan, context, database)
        assert updated == make_plan(context, database) == remaining(updated, context, database)
        store_halves(database, plan)
        assert update_plan(updated, context, database).accuracies == make_plan(context, database).accuracies


@pytest.mark.parametrize(("by", "is_tried"), [(None, False), (passes_code(), False), ("an earlier version", True)])
def test_a_refusal_by_other_code_of_the_passes_is_tried_again(
    context: RunContext, tmp_path: Path, by: str | None, is_tried: bool
) -> None:
    with open_database(tmp_path / "evidence.db", create=True) as database:
        declared = make_plan(context, database)
        store_halves(database, declared, refusal="there is nothing to cut", by=by)
        plan = make_plan(context, database)
    assert {task.keyed.strategy.operator for task in declared.rounds} >= {HALVES}
    assert (HALVES in {task.keyed.strategy.operator for task in plan.rounds}) == is_tried


def test_an_accuracy_stays_planned_when_the_strategy_that_stood_for_it_is_refused(
    context: RunContext, tmp_path: Path
) -> None:
    with open_database(tmp_path / "evidence.db", create=True) as database:
        plan = make_plan(context, database)
        assert plan.accuracies[0].keyed.strategy.operator == HALVES
        store_halves(database, plan, refusal="there is nothing to cut")
        (accuracy,) = update_plan(plan, context, database).accuracies
    assert accuracy.keyed.strategy.operator == "identity"


def test_strategies_are_keyed_once(context: RunContext, tmp_path: Path) -> None:
    with open_database(tmp_path / "evidence.db", create=True) as database:
        CountingDataset.reads = 0
        plan = make_plan(context, database)
        assert CountingDataset.reads == 2
        updated = update_plan(plan, context, database)
        remaining(updated, context, database)
        assert CountingDataset.reads == 2
        store_halves(database, plan, identical=False)
        update_plan(plan, context, database)
        assert CountingDataset.reads == 3


def test_a_round_beyond_the_declared_ones_has_the_inputs_of_its_look(tmp_path: Path) -> None:
    catalog = CATALOG.replace("inputs: 2", "inputs: 5, precision: 1%, percentile: 50.0")
    context = RunContext(parse_catalog(catalog), tmp_path, "process", Scale.parse("1"), tmp_path, host=this_host())
    scope = FillScope(rounds=14, only=("identity@mobile",))
    with open_database(tmp_path / "evidence.db", create=True) as database:
        plan = make_plan(context, database, scope)
        assert update_plan(plan, context, database) == plan
    assert [len(task.keyed.input_ids(task.round)) for task in plan.rounds] == [5] * 11 + [10] * 3
    assert {task.keyed.strategy.name for task in plan.rounds} == {"fashion-resnet/identity@mobile"}
    assert [task.keyed.strategy.operator for task in plan.accuracies] == ["identity"]


def test_the_rounds_of_a_further_look_keep_their_inputs(context: RunContext, tmp_path: Path) -> None:
    with open_database(tmp_path / "evidence.db", create=True) as database:
        plan = make_plan(context, database)
        more = FixedInputs(("0001.jpg", "0002.jpg", "0003.jpg", "0004.jpg"), "random")
        longer = replace(plan.rounds[0].keyed, inputs=more)
        plan = replace(plan, rounds=(replace(plan.rounds[0], keyed=longer),))
        store_halves(database, plan, identical=False)
        (task,) = update_plan(plan, context, database).rounds
    assert task.keyed.input_ids(task.round) == more.ids
    assert task.keyed.judged.composed
