"""The study's catalogs are accepted, and a subject of the study goes the whole way at a small width."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from sqlalchemy import text

from catalog.evidence.database import open_database
from runner.cli import app, run
from runner.study.duc import write_duc
from runner.subjects.layouts.published import EVALUATED_IDS

CATALOGS = Path(__file__).parents[2] / "catalogs"
SMALL = """\
version: 1
subjects:
  duc: {{model: "study:duc@duc.onnx", task: {task}, dataset: "cityscapes:cities"}}
operators: {{identity: []}}
tiers: {{mobile: {{cpus: 1, memory: 1g}}}}
strategies: [{{operators: [identity], placements: [mobile]}}]
experiment: {{inputs: 2, select: largest, rounds: 1, warmup: 0}}
"""


Runner = Callable[..., str]


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Runner:
    """Run a command in its own directory, inside this process; return what it prints."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> str:
        capfd.readouterr()
        code = run(lambda: app(list(arguments)))
        said = capfd.readouterr()
        assert code == 0, said.out + said.err
        return said.out

    return command


@pytest.mark.parametrize("name", ["paper", "paper-latency"])
def test_the_study_is_accepted_without_its_models_and_data(name: str, runner: Runner) -> None:
    catalog = ("-c", str(CATALOGS / f"{name}.yaml"))
    checked = json.loads(runner("validate", *catalog, "--json"))
    assert len(checked["strategies"]) == 4 * 18 and set(checked["unchecked"]) == set(checked["subjects"])
    planned = ("plan", *catalog, "--scale", "1/16", "--launcher", "process")
    made = json.loads(runner(*planned, "--json"))
    assert set(made["unready"]) == {"resnet", "resnext", "fcn", "duc"} and made["missing_rounds"] == []
    said = runner(*planned)
    assert said.count("18 strategies cannot be planned yet") == 4 and "Nothing is missing" not in said


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Build a narrow DUC and four street scenes."""
    write_duc(tmp_path / "duc.onnx", width=1)
    rng = np.random.default_rng(5)
    for number in range(4):
        stem = f"ulm_{number:06d}_000019"
        image = tmp_path / "cities/leftImg8bit/val/ulm" / f"{stem}_leftImg8bit.png"
        label = tmp_path / "cities/gtFine/val/ulm" / f"{stem}_gtFine_labelIds.png"
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 40, 3), np.uint8)).resize((160, 80)).save(image)
        Image.fromarray(rng.choice([*EVALUATED_IDS[:3], 0], (8, 8)).astype(np.uint8)).resize((160, 80), 0).save(label)
    return tmp_path


def query(cwd: Path, statement: str) -> list[tuple[Any, ...]]:
    database = open_database(cwd / "tierwise.db", readonly=True)
    try:
        with database.session() as session:
            return [tuple(row) for row in session.execute(text(statement))]
    finally:
        database.close()


def expected_miou(cwd: Path, judged: list[str]) -> float:
    """Compute the score by its definition: whole-image arrays, none of the product's code."""
    session = onnxruntime.InferenceSession(str(cwd / "duc.onnx"), providers=["CPUExecutionProvider"])
    confusion = np.zeros((19, 20))
    for name in judged:
        image = Image.open(cwd / "cities/leftImg8bit/val/ulm" / name).resize((800, 800), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, np.float32)
        feed = (pixels - pixels.mean(axis=(0, 1))).transpose(2, 0, 1)[None]
        labels = session.run(None, {"data": feed})[0].reshape(19, 4, 4, 100, 100).argmax(0)
        seen = np.empty((400, 400), int)
        for i in range(4):
            for j in range(4):
                seen[i::4, j::4] = labels[i, j]
        truth = Image.open(cwd / "cities/gtFine/val/ulm" / name.replace("leftImg8bit", "gtFine_labelIds"))
        ids = np.asarray(truth.resize((400, 400), Image.Resampling.NEAREST))
        for column, number in enumerate(EVALUATED_IDS):
            confusion[:, column] += np.bincount(seen[ids == number], minlength=19)
    inner = np.diag(confusion)
    union = confusion[:, :19].sum(0) + confusion[:, :19].sum(1) - inner
    return float(100 * (inner[union > 0] / union[union > 0]).mean())


def test_a_segmenter_of_the_study_is_judged_and_timed_in_real_tiers(small: Path, runner: Runner) -> None:
    (small / "strategies.yaml").write_text(SMALL.format(task="segmentation"))
    runner("fill-catalog", "--launcher", "process")
    ((miou_pct, items),) = query(small, "SELECT miou_pct, items FROM accuracy")
    judged = [name for (name,) in query(small, "SELECT DISTINCT item_id FROM accuracy_class_item")]
    assert items == len(judged) == 3  # one of four calibrates
    assert miou_pct == pytest.approx(expected_miou(small, [name.split("_", 3)[3] for name in judged]), abs=0.02)
    ((protocol,),) = query(small, "SELECT protocol FROM measurement")
    nodes = json.loads(protocol)["provider_nodes"]
    assert set(nodes) == {"mobile"} and 100 < nodes["mobile"]["CPUExecutionProvider"] <= 355


def test_without_labels_nothing_is_judged_and_nothing_is_missing(small: Path, runner: Runner) -> None:
    (small / "strategies.yaml").write_text(SMALL.format(task="any"))
    made = json.loads(runner("plan", "--launcher", "process", "--json"))
    assert made["missing_accuracies"] == [] and len(made["missing_rounds"]) == 1
    runner("fill-catalog", "--launcher", "process")
    assert query(small, "SELECT COUNT(*) FROM accuracy") == [(0,)]
    assert "Nothing is missing" in runner("plan", "--launcher", "process")
    (row,) = json.loads(runner("leaderboard", "--json"))
    assert row["accuracy_pct"] is None and row["metric"] is None and row["median_latency_s"] > 0
