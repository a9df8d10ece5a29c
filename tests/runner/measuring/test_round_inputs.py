"""The inputs of each round: shared by a subject's strategies, another draw in every round, the same one when redone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sqlmodel import select

from catalog.declaration import Catalog, parse_catalog
from catalog.evidence.database import Database, open_database
from catalog.evidence.tables import Measurement, Sample
from runner.artifacts.store import ArtifactStore
from runner.errors import SubjectError
from runner.host import this_host
from runner.launchers.select import select_launcher
from runner.measuring.fill import Filler, FillOutcome, StopRequest
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.plan import Plan, make_plan
from runner.measuring.round_inputs import SystematicInputs, in_words
from runner.measuring.setups import Setups, store_environment, sync_strategies
from runner.measuring.stopping import Look, planned_looks
from runner.measuring.tiers import Scale

# `evidence.db` is a migrated copy: to make one takes longer than most of these tests.
pytestmark = pytest.mark.usefixtures("database_url")

PICTURES = 40
OWN: dict[str, Any] = {
    "version": 1,
    "subjects": {"own": {"model": "./own.onnx", "task": "any", "dataset": {"images": "images"}}},
    "operators": {"identity": [], "quantized": [{"static_ptq": {"calibration_samples": 2}}]},
    "tiers": {"mobile": {"cpus": 0.5, "memory": "512m"}},
    "strategies": [{"operators": ["identity", "quantized"], "placements": ["mobile"]}],
    "experiment": {"inputs": 6, "select": "systematic", "rounds": 3},
}
EMBEDDED = """\
version: 1
subjects:
  fashion-resnet: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}
operators: {identity: []}
tiers: {mobile: {cpus: 0.5, memory: 512m}}
strategies: [{operators: [identity], placements: [mobile]}]
experiment: EXPERIMENT
"""


def save(graph: onnx.GraphProto, path: Path) -> None:
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A classifier of pictures and forty of them, each larger than the one before."""
    weights = numpy_helper.from_array(np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32), "weights")
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["scores"]),
    ]
    picture = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, (1, 3))
    graph = helper.make_graph(nodes, "g", [picture], [scores], [weights])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "own.onnx"
    )
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(1)
    for index in range(PICTURES):
        pixels = rng.integers(0, 255, (8 + index, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index:02d}.png")
    return tmp_path


def declared(**changes: Any) -> Catalog:
    return parse_catalog(yaml.safe_dump(OWN | changes, sort_keys=False))


def context_of(catalog: Catalog, folder: Path) -> RunContext:
    return RunContext(catalog, folder, "process", Scale.parse("1"), folder / ".tierwise", host=this_host())


def plan_of(catalog: Catalog, folder: Path, database: Database) -> Plan:
    return make_plan(context_of(catalog, folder), database)


def test_rounds_differ_and_strategies_and_repeats_share_them(folder: Path) -> None:
    with open_database(folder / "evidence.db", create=True) as database:
        first, again = (plan_of(declared(), folder, database) for _ in range(2))
    identity, quantized = first.declared
    for number in (1, 2, 3):
        drawn = identity.input_ids(number)
        assert drawn == quantized.input_ids(number) == again.declared[0].input_ids(number)
        assert len(set(drawn)) == len(drawn) == (7 if number == 1 else 6), "the largest one stands for itself, once"
    assert identity.input_ids(2) != identity.input_ids(3)
    assert "39.png" in identity.input_ids(1)


def test_the_key_holds_the_rule_and_the_pool_and_not_the_drawn_ids(folder: Path) -> None:
    def key(**changes: Any) -> str:
        with open_database(folder / "evidence.db", create=True) as database:
            catalog = declared(experiment=OWN["experiment"] | changes.pop("experiment", {}), **changes)
            return plan_of(catalog, folder, database).declared[0].latency_key

    first = key()
    assert key(experiment={"rounds": 9}) == key(experiment={"seed": 5}) == first
    assert key(slos={"s": {"latency": {"p90": "1s"}}}) == first
    different = [
        key(experiment={"inputs": 7}),
        key(slos={"s": {"latency": {"p95": "1s"}}}),
        key(analysis={"percentile": 99.0}),
        key(experiment={"precision": "5%", "percentile": 95.0}),
        key(experiment={"warmup": 1}),
        key(experiment={"select": "random"}),
    ]
    assert len({first, *different}) == 5, "the three that ask for the tail share a key"
    Image.new("RGB", (9, 9)).save(folder / "images" / "more.png")
    assert key() != first


def test_labels_added_later_leave_every_latency_where_it_was(folder: Path) -> None:
    with open_database(folder / "evidence.db", create=True) as database:
        before = plan_of(declared(), folder, database)
        # Not all of them: the others are timed all the same.
        (folder / "labels.csv").write_text("".join(f"{index:02d}.png,{index % 3}\n" for index in range(0, PICTURES, 2)))
        dataset = {"images": "images", "labels": "labels.csv"}
        judged = {"own": {"model": "./own.onnx", "task": "classification", "dataset": dataset}}
        after = plan_of(declared(subjects=judged), folder, database)
    for one, other in zip(before.declared, after.declared, strict=True):
        assert (one.artifact_key, one.latency_key) == (other.artifact_key, other.latency_key)
        assert one.accuracy_key != other.accuracy_key
        assert one.input_ids(1) == other.input_ids(1)


def test_labels_added_to_tensors_leave_every_latency_where_it_was(folder: Path) -> None:
    inputs = {"x": np.random.default_rng(0).normal(size=(20, 3, 8, 8)).astype(np.float32)}
    keys = []
    for task, labels in (("any", {}), ("classification", {"labels": np.arange(20) % 3})):
        np.savez(folder / "own.npz", **inputs, **labels)
        subject = {"model": "./own.onnx", "task": task, "dataset": {"tensors": "own.npz"}}
        with open_database(folder / "evidence.db", create=True) as database:
            plan = plan_of(declared(subjects={"own": subject}), folder, database)
        keys.append([(keyed.latency_key, keyed.accuracy_key) for keyed in plan.declared])
    before, after = keys
    assert [latency for latency, _ in before] == [latency for latency, _ in after]
    assert not {accuracy for _, accuracy in before} & {accuracy for _, accuracy in after}


def test_masks_added_later_leave_every_latency_where_it_was(folder: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["scores"])]
    picture, scores = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, 8, 8)) for name in ("x", "scores"))
    graph = helper.make_graph(nodes, "g", [picture], [scores])
    save(graph, folder / "own.onnx")
    (folder / "masks").mkdir()
    for path in (folder / "images").iterdir():
        with Image.open(path) as image:
            Image.fromarray(np.zeros((image.height, image.width), np.uint8)).save(folder / "masks" / path.name)
    plans = []
    for files in ({"images": "images"}, {"images": "images", "masks": "masks"}):
        subject = {"model": "./own.onnx", "task": "segmentation", "dataset": files}
        with open_database(folder / "evidence.db", create=True) as database:
            plans.append(
                plan_of(
                    declared(subjects={"own": subject}, operators={"identity": [], "quantized": []}), folder, database
                )
            )
    before, after = (plan.declared[0] for plan in plans)
    assert before.latency_key == after.latency_key and before.accuracy_key != after.accuracy_key


def test_an_old_catalog_means_random_and_keeps_its_keys(folder: Path) -> None:
    old = {name: value for name, value in OWN.items() if name != "experiment"} | {"experiment": {"inputs": 6}}
    catalog = parse_catalog(yaml.safe_dump(old, sort_keys=False))
    assert (catalog.experiment.select, catalog.experiment.warmup) == ("random", 1)
    with open_database(folder / "evidence.db", create=True) as database:
        keyed = plan_of(catalog, folder, database).declared[0]
    assert keyed.conditions["protocol_version"] == 1 and keyed.conditions["warmup"] == 1
    assert keyed.input_ids(1) == keyed.input_ids(2)


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        ("{inputs: 10, select: systematic}", "10 of 200 inputs per round, spread by size; the 3 largest in round 1"),
        (
            "{inputs: 10, select: systematic, precision: 5%, percentile: 99}",
            "10 of 200 inputs per round, spread by size, and 3 of the 3 % largest; the 3 largest in round 1",
        ),
        ("{inputs: 200, select: systematic}", "all 200 inputs in every round"),
        (
            "{inputs: 300, select: systematic}",
            "all 200 inputs in every round (there are no more, and 300 are declared)",
        ),
    ],
)
def test_a_draw_is_said_in_words(tmp_path: Path, experiment: str, words: str) -> None:
    context = context_of(parse_catalog(EMBEDDED.replace("EXPERIMENT", experiment)), tmp_path)
    inputs = context.round_inputs("fashion-resnet")
    assert isinstance(inputs, SystematicInputs) and in_words(inputs) == words


def test_sizes_of_embedded_pictures_are_generated_once(tmp_path: Path) -> None:
    catalog = parse_catalog(EMBEDDED.replace("EXPERIMENT", "{inputs: 10, select: systematic}"))
    pool = context_of(catalog, tmp_path).subjects["fashion-resnet"].dataset.input_pool()
    later = context_of(catalog, tmp_path).subjects["fashion-resnet"].dataset
    later.__dict__["_pool"] = ()  # where generated pictures are kept
    assert later.input_pool().digest == pool.digest
    assert {entry.media for entry in pool.inputs} == {"image/jpeg"} and pool.unit == "bytes"


@pytest.mark.parametrize("harm", ["gone", "longer"])
def test_a_picture_that_changes_during_a_run_is_named(folder: Path, harm: str) -> None:
    context = context_of(declared(), folder)
    dataset = context.subjects["own"].dataset
    name = dataset.input_ids()[3]
    path = folder / "images" / name
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(SubjectError, match=rf"{name} .*put it back as it was, or start the command again"):
        dataset.write_inputs(folder, [name])


def test_precision_adds_rounds_and_never_inputs() -> None:
    spec = declared(experiment=OWN["experiment"] | {"precision": "5%"}).experiment
    looks = planned_looks(spec, pool=200)
    assert [look.rounds[-1] for look in looks] == [3, 5, 8, 12, 15, 18, 21, 24, 27, 30]
    assert {look.inputs for look in looks} == {6}
    assert looks[1] == Look((4, 5), 6)
    random = spec.model_copy(update={"select": "random"})
    assert planned_looks(random, pool=200)[4] == Look((13, 14, 15), 12)


def test_texts_are_sized_by_their_tokens(folder: Path) -> None:
    nodes = [helper.make_node("Mul", ["input_ids", "attention_mask"], ["y"])]
    names = ("input_ids", "attention_mask")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ("n", 6)) for name in names]
    output = helper.make_tensor_value_info("y", TensorProto.INT64, None)
    graph = helper.make_graph(nodes, "g", inputs, [output])
    save(graph, folder / "own.onnx")
    marks = np.tril(np.ones((6, 6), np.int64))
    np.savez(folder / "texts.npz", input_ids=np.ones((6, 6), np.int64), attention_mask=marks)
    subject = {"own": {"model": "./own.onnx", "task": "any", "dataset": {"tensors": "texts.npz"}}}
    pool = context_of(declared(subjects=subject), folder).subjects["own"].dataset.input_pool()
    assert pool.unit == "tokens" and [entry.size for entry in pool.inputs] == [1, 2, 3, 4, 5, 6]


class Notes(list[str]):
    """What a fill reported, one line for each task that ended."""

    def begin(self, what: str, estimate_s: float) -> None:
        """Ignore that a task starts."""

    def advance(self, fraction: float) -> None:
        """Ignore how far it is."""

    def end(self, outcome: str) -> None:
        self.append(outcome)


def fill(context: RunContext, database: Database, *, meanwhile: Callable[[], None]) -> FillOutcome:
    """Build what is missing with the process launcher and, when something has happened, measure it."""
    selection = select_launcher("process")
    setups, notes = Setups(context, ArtifactStore(context.workdir / "artifacts"), context.workdir), Notes()
    with database.session() as writing:
        environment_id = store_environment(writing, context, selection)
        writing.commit()
    plan = make_plan(context, database)
    filler = Filler(setups, database, selection.launcher, environment_id, notes)
    filler.build(plan, StopRequest(notes))
    with database.session() as writing:
        sync_strategies(writing, plan, environment_id, context)
        writing.commit()
    meanwhile()
    return filler.measure(plan, StopRequest(notes))


def test_rounds_store_what_they_drew_and_a_vanished_input_stops_its_rounds_alone(folder: Path) -> None:
    timed = [{"operators": ["identity"], "placements": ["mobile"]}]
    changes = {"strategies": timed, "slos": {"slow": {"latency": {"p95": "9s"}}}}
    context = context_of(declared(**changes), folder)
    with open_database(folder / "evidence.db", create=True) as database:
        keyed = make_plan(context, database).declared[0]
        first, second, third = (set(keyed.input_ids(number)) for number in (1, 2, 3))
        lost = min(second - first - third)
        outcome = fill(context, database, meanwhile=(folder / "images" / lost).unlink)
        assert outcome.measured == 2
        assert all(f"{lost} cannot be read any more" in failure for failure in outcome.failures)
        with database.session() as reading:
            (last,) = {row.pool_key for row in reading.exec(select(Measurement)).all()}
            samples = reading.exec(select(Measurement.round, Sample.input_id, Sample.stratum).join(Sample)).all()  # type: ignore[call-overload]
            (protocol, *_) = [row.protocol for row in reading.exec(select(Measurement)).all()]
        assert {name for number, name, _ in samples if number == 1} == first
        assert {name for number, name, _ in samples if number == 3} == third
        strata = {name: stratum for _, name, stratum in samples}
        assert strata["39.png"] == "certainty" and set(strata.values()) == {"body", "certainty", "tail"}
        assert protocol["strata"] == {
            "body": {"pool": 38, "drawn": 6},
            "tail": {"pool": 1, "drawn": 1},
            "certainty": {"pool": 1, "drawn": 1},
        }
        assert last == keyed.inputs.pool.digest if keyed.inputs.pool else False
        # What the next plan says of it: another pool, so that every round is missing.
        later = make_plan(context_of(declared(**changes), folder), database)
    assert {task.reason for task in later.rounds} == {f"inputs changed since it was measured: {lost} is gone"}
    assert len(later.rounds) == 3


def test_unreadable_pictures_are_counted_before_anything_is_measured(folder: Path) -> None:
    for name in ("03.png", "07.png"):
        (folder / "images" / name).write_bytes(b"no picture")
    with pytest.raises(SubjectError, match=r"03\.png.*not a decodable image.*\(1 more cannot be used\)"):
        context_of(declared(), folder).prepare()


@pytest.mark.parametrize("count", [0, 1])
def test_a_pool_of_one_is_refused(folder: Path, count: int) -> None:
    for path in sorted((folder / "images").iterdir())[count:]:
        path.unlink()
    with pytest.raises(SubjectError, match=rf"holds {count} pictures?; expected a folder with at least two image"):
        context_of(declared(), folder).subjects["own"].dataset.input_pool()


def test_a_pool_of_equal_sizes_is_drawn_in_a_random_order(folder: Path) -> None:
    one = (folder / "images" / "00.png").read_bytes()
    for path in (folder / "images").iterdir():
        path.write_bytes(one)
    inputs = context_of(declared(), folder).round_inputs("own")
    drawn = [{entry.id for entry in inputs.draw(number)} for number in range(2, 30)]
    assert len(set.union(*drawn)) == PICTURES - 1, "all but the one that stands for itself are drawn in some round"
