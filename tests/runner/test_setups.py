"""What a measurement needs, resolved: an artifact runs on as many tiers as it has parts, or not at all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog.declaration import Placement, parse_catalog
from catalog.declaration.schema import PARTS_MADE
from catalog.evidence import open_database
from runner.artifacts import ArtifactStore
from runner.errors import OperatorError
from runner.fill import Filler, StopRequest
from runner.host import this_host
from runner.launchers.process import ProcessLauncher
from runner.operators import Context, known_passes, make_pass
from runner.plan import Keyed, MissingRound, Plan, Session, key_strategy
from runner.setups import Setups
from runner.subjects.registry import BUILTIN
from runner.tiers import Scale

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
        """A task starts."""

    def advance(self, fraction: float) -> None:
        """It goes on."""

    def end(self, outcome: str) -> None:
        self.append(outcome)


@pytest.fixture
def setups(tmp_path: Path) -> Setups:
    session = Session(parse_catalog(CATALOG), tmp_path, "process", Scale.parse("1"), tmp_path, host=this_host())
    return Setups(session, ArtifactStore(tmp_path / "artifacts"), tmp_path)


def elsewhere(setups: Setups, strategy: int, *tiers: str) -> Keyed:
    """A strategy whose artifact is built, on other tiers than its declaration allows."""
    keyed = key_strategy(setups.session, setups.session.catalog.strategies()[strategy])
    model = setups.session.subjects["fashion-resnet"].model
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
    with pytest.raises(OperatorError, match=rf"\d part\(s\) and {'-'.join(tiers)} has {len(tiers)} tier\(s\)"):
        setups.latency(keyed)
    notes = Notes()
    with open_database(tmp_path / "evidence.db", create=True) as database:
        filler = Filler(setups, database, ProcessLauncher(), 1, notes)
        missing = MissingRound(keyed, 1, "never measured", 1.0)
        outcome = filler.measure(Plan((keyed,), {}, (), (missing,)), StopRequest(notes))
    assert outcome.measured == 0
    assert "each part runs on a tier of its own" in outcome.failures[0]
    assert notes == [f"failed: {outcome.failures[0]}"]


def test_the_declaration_knows_how_many_parts_each_pass_makes(tmp_path: Path) -> None:
    assert set(PARTS_MADE) == set(known_passes())
    images = [np.random.default_rng(3).random((1, 1, 28, 28), np.float32) for _ in range(2)]
    for name, count in PARTS_MADE.items():
        (tmp_path / name).mkdir()
        step = make_pass(name, {"calibration_samples": 2} if name == "static_ptq" else {})
        applied = step.apply([BUILTIN / "fashion-resnet.onnx"], Context(tmp_path / name, images))
        assert len(applied.parts) == count
