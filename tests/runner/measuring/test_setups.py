"""What a measurement needs, resolved: an artifact runs on as many tiers as it has parts, or not at all."""

import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.declaration import Placement, parse_catalog
from catalog.declaration.schema import PARTS_MADE
from catalog.evidence.database import open_database
from runner.artifacts.store import ArtifactStore, CachedArtifact
from runner.errors import ChangedFilesError, OperatorError
from runner.host import this_host
from runner.launchers.base import Mount
from runner.launchers.container import volume_name
from runner.launchers.docker import DockerLauncher
from runner.launchers.engine import ContainerSpec, Engine
from runner.launchers.process import ProcessLauncher
from runner.launchers.select import select_launcher
from runner.measuring.experiment import measure
from runner.measuring.fill import Filler, StopRequest
from runner.measuring.keyed_strategy import KeyedStrategy, RunContext, key_strategy
from runner.measuring.plan import MissingRound, Plan
from runner.measuring.setups import Setups, store_environment, sync_strategies
from runner.measuring.tiers import Scale
from runner.operators.base import AppliedPass, Context
from runner.operators.registry import known_passes, make_pass
from runner.operators.static_ptq import StaticPtq
from runner.subjects.embedded.datasets import BUILTIN

CATALOG = """\
version: 1
subjects:
  fashion-resnet: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}
operators: {identity: [], halves: [partition]}
tiers: {mobile: {cpus: 0.5, memory: 512m}, edge: {cpus: 1, memory: 1g}}
links: {mobile-edge: {bandwidth: 200mbit}}
strategies:
  - {operators: [identity], placements: [mobile]}
  - {operators: [halves], placements: [mobile-edge]}
experiment: {inputs: 2, rounds: 1}
"""
IDENTITY, HALVES = 0, 1


class Notes(list[str]):
    """What a fill reported, one line for each task that ended."""

    def begin(self, what: str, estimate_s: float) -> None:
        """Ignore that a task starts."""

    def advance(self, fraction: float) -> None:
        """Ignore how far it is."""

    def end(self, outcome: str) -> None:
        self.append(outcome)


@pytest.fixture
def setups(tmp_path: Path) -> Setups:
    context = RunContext(parse_catalog(CATALOG), tmp_path, "process", Scale.parse("1"), tmp_path, host=this_host())
    return Setups(context, ArtifactStore(tmp_path / "artifacts"), tmp_path)


def elsewhere(setups: Setups, strategy: int, *tiers: str) -> KeyedStrategy:
    """Place a strategy whose artifact is built on other tiers than its declaration allows."""
    keyed = key_strategy(setups.context, setups.context.catalog.strategies()[strategy])
    model = setups.context.subjects["fashion-resnet"].model
    setups.artifacts.build(keyed.artifact_key, model=model, passes=keyed.passes, calibration=lambda count: [])
    return replace(keyed, strategy=replace(keyed.strategy, placement=Placement("-".join(tiers), tiers)))


@pytest.mark.parametrize(
    ("strategy", "tiers"),
    [(HALVES, ("mobile",)), (HALVES, ("mobile", "edge", "cloud")), (IDENTITY, ("mobile", "edge"))],
)
def test_parts_that_are_not_as_many_as_their_tiers_are_not_measured(
    setups: Setups, strategy: int, tiers: tuple[str, ...], tmp_path: Path
) -> None:
    keyed = elsewhere(setups, strategy, *tiers)
    with pytest.raises(OperatorError, match=rf"\d parts? and {'-'.join(tiers)} has {len(tiers)} tiers?;"):
        setups.latency(keyed)
    notes = Notes()
    with open_database(tmp_path / "evidence.db", create=True) as database:
        filler = Filler(setups, database, ProcessLauncher(), 1, notes)
        missing = MissingRound(keyed, 1, "never measured", 1.0)
        outcome = filler.measure(Plan((keyed,), {}, (), (missing,)), StopRequest(notes))
    assert outcome.measured == 0
    assert "each part runs on its own tier" in outcome.failures[0]
    assert notes == [f"failed: {outcome.failures[0]}"]


def test_a_fill_quantizes_a_model_once_in_whatever_order_operators_are_declared(
    setups: Setups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize = "static_ptq: {calibration_samples: 2}"
    operators = f"shortened: [{quantize}, early_exit], quantized: [{quantize}]"
    text = CATALOG.replace("halves: [partition]", operators).replace("[identity]", "[shortened, quantized]")
    catalog = parse_catalog("".join(line for line in text.splitlines(keepends=True) if "[halves]" not in line))
    setups = replace(setups, context=replace(setups.context, catalog=catalog))
    apply = StaticPtq.apply

    def note(*arguments: Any) -> AppliedPass:
        with (tmp_path / "applied").open("a") as stream:
            stream.write("static_ptq\n")
        return apply(*arguments)

    monkeypatch.setattr(StaticPtq, "apply", note)
    declared = tuple(key_strategy(setups.context, strategy) for strategy in catalog.strategies())
    plan = Plan(declared, {}, (), tuple(MissingRound(keyed, 1, "never measured", 1.0) for keyed in declared))
    with open_database(tmp_path / "evidence.db", create=True) as database:
        Filler(setups, database, ProcessLauncher(), 1, Notes()).build(plan, StopRequest(Notes()))
    assert all(setups.artifacts.find(keyed.artifact_key) for keyed in declared)
    # Quantized in a process of its own, which the patch reaches because it is forked.
    assert (tmp_path / "applied").read_text().count("static_ptq") == 1


def altered(path: Path) -> None:
    """Change the last byte; size and modification time stay."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_inputs_and_items_that_changed_are_made_again(setups: Setups, caplog: pytest.LogCaptureFixture) -> None:
    keyed = key_strategy(setups.context, setups.context.catalog.strategies()[IDENTITY])
    first = setups.protocol(keyed, 1)
    picture = first.inputs[first.input_ids[0]]
    items = setups.items(keyed)
    assert not caplog.records
    for path in (picture, items.path):
        before = path.read_bytes()
        altered(path)
        setups.protocol(keyed, 1), setups.items(keyed)
        assert path.read_bytes() == before
    assert len(caplog.records) == 2
    assert setups.protocol(keyed, 1) == first and setups.items(keyed) == items


@pytest.mark.parametrize("launcher", ["process", pytest.param("docker", marks=pytest.mark.docker)])
def test_what_a_tier_reads_is_what_the_key_promises(
    setups: Setups, launcher: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Change a byte of the cached artifact between two rounds: only the one built again is measured."""
    selection = select_launcher(launcher)
    selection.launcher.prepare()
    keyed = key_strategy(setups.context, setups.context.catalog.strategies()[IDENTITY])
    plan = Plan((keyed,), {}, (), (MissingRound(keyed, 1, "never measured", 1.0),))
    notes = Notes()
    with open_database(tmp_path / "evidence.db", create=True) as database:
        with database.session() as writing:
            environment_id = store_environment(writing, setups.context, selection)
            sync_strategies(writing, plan, environment_id, setups.context)
            writing.commit()
        filler = Filler(setups, database, selection.launcher, environment_id, notes)
        filler.build(plan, StopRequest(notes))
        filler.measure(plan, StopRequest(notes))
        artifact = setups.artifacts.find(keyed.artifact_key)
        assert artifact is not None
        before = artifact.path(0).read_bytes()
        altered(artifact.path(0))
        second = replace(plan, rounds=(MissingRound(keyed, 2, "more declared", 1.0),))
        outcome = filler.measure(second, StopRequest(notes))
    assert outcome.measured == 2 and not outcome.failures
    assert artifact.path(0).read_bytes() == before
    assert any("model.onnx was changed since it was made" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("kind", ["model", "inputs"])
def test_files_that_change_under_a_tier_are_noticed_there(setups: Setups, kind: str) -> None:
    keyed = key_strategy(setups.context, setups.context.catalog.strategies()[IDENTITY])
    model = setups.context.subjects["fashion-resnet"].model
    setups.artifacts.build(keyed.artifact_key, model=model, passes=keyed.passes, calibration=lambda count: [])
    setup, protocol = setups.latency(keyed), setups.protocol(keyed, 1)
    altered(setup.artifact.path(0) if kind == "model" else protocol.inputs[protocol.input_ids[0]])
    with pytest.raises(ChangedFilesError, match=f"tier 'mobile' reads other bytes than were made for {kind} "):
        measure(ProcessLauncher(), setup, protocol)


@pytest.mark.docker
def test_a_volume_that_was_changed_is_filled_again(setups: Setups) -> None:
    launcher = DockerLauncher(Engine.connect())
    keyed = key_strategy(setups.context, setups.context.catalog.strategies()[IDENTITY])
    model = setups.context.subjects["fashion-resnet"].model
    setups.artifacts.build(keyed.artifact_key, model=model, passes=keyed.passes, calibration=lambda count: [])
    setup, protocol = setups.latency(keyed), setups.protocol(keyed, 1)
    measure(launcher, setup, protocol)
    damage_volume(launcher, setup.artifact)
    with pytest.raises(ChangedFilesError, match=r"tier 'mobile' reads other bytes .* for model .*: model\.onnx"):
        measure(launcher, setup, protocol)
    assert measure(launcher, setup, protocol).samples


def damage_volume(launcher: DockerLauncher, artifact: CachedArtifact) -> None:
    """Write another model into the volume that holds an artifact."""
    files = {file.file: artifact.directory / file.file for file in artifact.files}
    mount = Mount("model", files, artifact.key, {file.file: file.sha256 for file in artifact.files})
    content = bytearray(artifact.path(0).read_bytes())
    content[-1] ^= 1
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("model.onnx")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(bytes(content)))
    archive.seek(0)
    engine = Engine.connect()
    binds = {volume_name(mount): "/tierwise/model"}
    spec = ContainerSpec(
        image=launcher.image().tag,
        command=["python"],
        name=f"damage-{os.getpid()}",
        labels={},
        binds=binds,
        writable_binds=True,
    )
    container = engine.create_container(spec)
    try:
        engine.put_archive(container, "/tierwise/model", archive)
    finally:
        engine.remove_container(container)


def test_the_declaration_knows_how_many_parts_each_pass_makes(tmp_path: Path) -> None:
    assert set(PARTS_MADE) == set(known_passes())
    images = [np.random.default_rng(3).random((1, 1, 28, 28), np.float32) for _ in range(2)]
    for name, count in PARTS_MADE.items():
        (tmp_path / name).mkdir()
        step = make_pass(name, {"calibration_samples": 2} if name == "static_ptq" else {})
        applied = step.apply([BUILTIN / "fashion-resnet.onnx"], Context(tmp_path / name, images))
        assert len(applied.parts) == count
