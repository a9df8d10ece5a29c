"""The shipped files are what their manifests say, and score what their cards say."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from runner.errors import SubjectError
from runner.subjects.dataset import Subject, png
from runner.subjects.embedded.datasets import (
    BUILTIN,
    CANVAS,
    FASHION,
    SUBJECTS,
    CanvasDataset,
    FashionDataset,
    SubjectFamily,
    canvases_sha256,
    manifest,
    resolve_subject,
    validation_canvases,
)
from runner.subjects.training.ship import card, miou_pct, normalise, score, sha256, shipped_items
from tests.forked_command import forked
from tierserver.imaging import preprocess
from tierserver.messages import Postprocess, Preprocess

_PACKAGES = ("catalog", "recommender", "runner", "tierserver")
# What trains and exports needs torch, and programs of their own are not imported.
_OF_TORCH = ("networks", "train", "torch_export", "__main__", "neural_compressor_worker")

NAMES = ("fashion-resnet", "fashion-resnext", "canvas-fcn", "canvas-duc")


def resolved(name: str) -> Subject:
    family = SUBJECTS[f"builtin:{name}"]
    return resolve_subject(name, f"builtin:{name}", family.dataset, family.task)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_files_have_the_hashes_of_their_manifest(name: str) -> None:
    content = manifest(name)
    assert sha256(BUILTIN / f"{name}.onnx") == content["model_sha256"]
    shipped = content["shipped_sha256"]
    assert isinstance(shipped, dict) and len(shipped) == 2
    assert all(sha256(BUILTIN / file) == digest for file, digest in shipped.items())
    assert (BUILTIN / "fashion_validation.npz").stat().st_size < 1_000_000


@pytest.mark.parametrize("name", NAMES)
def test_the_card_is_the_one_the_manifest_yields(name: str) -> None:
    assert (BUILTIN / f"{name}.md").read_text(encoding="utf-8") == card(name, manifest(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_scores_on_all_test_items_reach_their_floors(name: str) -> None:
    content = manifest(name)
    items, metric, floor = (10_000, "top1_pct", 88) if "fashion" in name else (1_000, "miou_pct", 62)
    assert content["test_items"] == items
    assert content["score"][metric] >= floor  # type: ignore[index]


def test_the_classifier_scores_on_the_shipped_items_what_its_card_says() -> None:
    actual = score(BUILTIN / "fashion-resnet.onnx", shipped_items(BUILTIN, segmentation=False), FASHION)
    text = (BUILTIN / "fashion-resnet.md").read_text(encoding="utf-8")
    row = re.search(r"2,000 shipped validation items \| ([\d.]+) \| ([\d.]+) \|", text)
    assert row is not None
    # Two of 2 000 images may round to the other side on another CPU.
    assert [actual["top1_pct"], actual["top5_pct"]] == pytest.approx([float(value) for value in row.groups()], abs=0.11)


def test_the_composed_validation_canvases_have_the_pinned_hash() -> None:
    garments = FashionDataset(BUILTIN).validation_garments
    canvases = validation_canvases(garments)
    assert canvases_sha256(canvases) == manifest("canvas-fcn")["validation_canvases_sha256"]
    masks = np.stack([canvas.mask for canvas in canvases])
    assert set(np.unique(masks)) == set(range(11))


@pytest.mark.parametrize("name", NAMES)
def test_models_take_one_gray_image_and_end_in_four_identical_blocks(name: str) -> None:
    graph = onnx.load(BUILTIN / f"{name}.onnx").graph
    (taken,) = graph.input
    assert [dim.dim_value for dim in taken.type.tensor_type.shape.dim][:2] == [1, 1]
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    kernels = [shapes[node.input[1]] for node in graph.node if node.op_type == "Conv"]
    head = {"canvas-fcn": 2, "canvas-duc": 4}.get(name, 0)
    backbone = kernels[: len(kernels) - head]
    assert backbone[-12:] == backbone[-3:] * 4
    last = {"canvas-fcn": {"Shape", "Resize"}, "canvas-duc": {"DepthToSpace"}}.get(name, {"Gemm"})
    assert {node.op_type for node in graph.node} >= last


@pytest.mark.parametrize("name", NAMES)
def test_a_resolved_subject_speaks_the_tier_servers_messages(name: str) -> None:
    subject = resolved(name)
    assert Preprocess.from_json(subject.preprocess).color == "gray"
    assert Postprocess.from_json(subject.postprocess).kind == {10: "top_k", 11: "label_map"}[subject.classes]
    assert subject.dataset.fingerprint() != subject.dataset.inputs_fingerprint()


@pytest.mark.parametrize("family", [FASHION, CANVAS], ids=["fashion", "canvas"])
def test_the_declared_preprocessing_is_what_was_trained_and_scored_with(family: SubjectFamily) -> None:
    item = shipped_items(BUILTIN, segmentation=family is CANVAS).pictures[0]
    expected = normalise(item[None], family)
    actual = preprocess(png(item), Preprocess.from_json(family.preprocess))
    assert actual.dtype == expected.dtype and np.allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "dataset", "task", "allowed"),
    [
        ("./my.onnx", "builtin:fashion", "classification", "builtin:fashion-resnet, builtin:fashion-resnext"),
        ("builtin:fashion-resnet", "builtin:canvas", "classification", "allowed: builtin:fashion"),
        ("builtin:canvas-fcn", "builtin:canvas", "classification", "allowed: segmentation"),
    ],
)
def test_what_is_not_embedded_is_refused_with_what_is(model: str, dataset: str, task: str, allowed: str) -> None:
    with pytest.raises(SubjectError, match=allowed):
        resolve_subject("mine", model, dataset, task)


def test_changed_canvases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match="pinned is 0000"):
        CanvasDataset(BUILTIN, "0000").write_items(tmp_path / "items.npz")


def test_miou_of_half_a_class() -> None:
    truth, actual = np.array([[0, 0, 1, 1]]), np.array([[0, 0, 0, 1]])
    assert miou_pct(actual, truth, 2) == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)


def test_the_product_does_not_import_torch() -> None:
    """Import every module but those that train, export or are programs of their own."""
    root = Path(__file__).parents[3]
    files = (file for package in _PACKAGES for file in (root / package).rglob("*.py") if file.stem not in _OF_TORCH)
    modules = sorted(".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for file in files)
    assert len(modules) > 200

    def look() -> None:
        for name in modules:
            importlib.import_module(name)
        sys.exit("torch" in sys.modules)

    looking = forked(look)
    looking.join()
    assert looking.exitcode == 0
