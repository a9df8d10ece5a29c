"""Data sets in folders, each in a small one of the real layout."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from runner.errors import SubjectError
from runner.subjects.folders import FolderDataset, FolderLayout
from runner.subjects.layouts.own import Images
from runner.subjects.layouts.published import EVALUATED_IDS, VOC_CLASSES, Cityscapes, Coco, ImageNet

WNIDS = ("n01440764", "n01443537", "n01484850")


def picture(path: Path, *, side: int = 16, seed: int = 0) -> Path:
    """Noise, so that a larger image is a larger file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def items(dataset: FolderDataset, tmp_path: Path) -> dict[str, NDArray[Any]]:
    dataset.write_items(tmp_path / "items.npz")
    with np.load(tmp_path / "items.npz", allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    root = tmp_path / "imagenet"
    for index, wnid in enumerate(WNIDS):
        for number in range(3):
            seed = 10 * index + number
            picture(root / "val" / wnid / f"ILSVRC2012_val_{seed:08d}.JPEG", side=16 + seed, seed=seed)
    return root


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two images: one with a cat, a car over a part of it and a pizza; one with a crowd of persons."""
    root = tmp_path / "coco"
    for number in (1, 2):
        picture(root / "val2017" / f"{number:012d}.jpg", side=20, seed=number)
    categories = [{"id": 3 * number, "name": name} for number, name in enumerate(("pizza", *VOC_CLASSES))]
    number_of = {category["name"]: category["id"] for category in categories}

    def annotation(image: int, name: str, segmentation: object) -> dict[str, object]:
        return {"image_id": image, "category_id": number_of[name], "segmentation": segmentation, "iscrowd": 0}

    annotations = [
        annotation(1, "cat", [[0, 0, 9, 0, 9, 9, 0, 9]]),
        annotation(1, "car", [[5, 5, 14, 5, 14, 14, 5, 14]]),
        annotation(1, "pizza", [[0, 0, 19, 0, 19, 19, 0, 19]]),
        annotation(2, "person", {"counts": [0, 100, 300], "size": [20, 20]}),
    ]
    images = [{"id": number, "file_name": f"{number:012d}.jpg", "width": 20, "height": 20} for number in (1, 2)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    root = tmp_path / "cityscapes"
    for part, cities in (("val", ("frankfurt", "munster")), ("train", ("aachen",))):
        for city in cities:
            for number in range(2):
                name = f"{city}_{number:06d}_000019"
                picture(root / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png", seed=number)
                ids = np.full((8, 16), EVALUATED_IDS[number], np.uint8)
                ids[:, 8:] = 4  # static: not evaluated
                label = root / "gtFine" / part / city / f"{name}_gtFine_labelIds.png"
                label.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(ids).save(label)
    return root


def test_imagenet_labels_are_the_positions_of_the_folders(imagenet: Path, tmp_path: Path) -> None:
    dataset = FolderDataset(ImageNet(imagenet, classes=3))
    written = items(dataset, tmp_path)
    assert set(written) == {"item_id", "image", "offset", "label"}
    assert [WNIDS[label] for label in written["label"]] == [name.split("_")[1] for name in written["item_id"]]
    encoded = written["image"][written["offset"][2] : written["offset"][3]].tobytes()
    name = str(written["item_id"][2])
    assert encoded == (imagenet / "val" / name.split("_")[1] / name.split("_", 2)[2]).read_bytes()


def test_imagenet_needs_every_class_folder(imagenet: Path) -> None:
    with pytest.raises(SubjectError, match="has 3 class folders; expected 1000 class folders"):
        FolderDataset(ImageNet(imagenet)).fingerprint()


def test_without_a_training_part_calibration_pictures_are_not_judged_on(imagenet: Path, tmp_path: Path) -> None:
    dataset = FolderDataset(ImageNet(imagenet, classes=3))
    (calibration,) = dataset.calibration(1)
    written = items(dataset, tmp_path)
    judged = [
        written["image"][start:stop].tobytes()
        for start, stop in zip(written["offset"][:-1], written["offset"][1:], strict=True)
    ]
    assert len(judged) == 8 and calibration not in judged
    with pytest.raises(SubjectError, match="allowed: 1 to 1"):
        dataset.calibration(2)


def test_calibration_comes_from_the_training_part_where_there_is_one(imagenet: Path, tmp_path: Path) -> None:
    training = {
        picture(imagenet / "train" / wnid / f"{wnid}_{number}.JPEG", seed=100 + number).read_bytes()
        for wnid in WNIDS
        for number in range(2)
    }
    dataset = FolderDataset(ImageNet(imagenet, classes=3))
    assert set(dataset.calibration(6)) <= training and len(dataset.calibration(6)) == 6
    assert len(items(dataset, tmp_path)["item_id"]) == 9  # all of them are judged on


def test_inputs_are_the_files_and_the_largest_come_first(imagenet: Path, tmp_path: Path) -> None:
    dataset = FolderDataset(ImageNet(imagenet, classes=3))
    largest = dataset.largest(4)
    dataset.write_inputs(tmp_path, largest)
    sizes = [(tmp_path / name).stat().st_size for name in largest]
    every = sorted((path.stat().st_size for path in imagenet.rglob("*.JPEG")), reverse=True)
    assert sizes == every[:4] and set(largest) <= set(dataset.input_ids())
    with pytest.raises(SubjectError, match=r"no picture '\.\./secret'"):
        dataset.write_inputs(tmp_path, ["../secret"])


def test_coco_masks_hold_voc_classes_and_ignore_what_two_claim(coco: Path, tmp_path: Path) -> None:
    layout = Coco(coco, height=20, width=20)
    masks = dict(zip(["first", "second"], layout.truth(layout.validation()).values, strict=True))
    cat, car, person = (1 + VOC_CLASSES.index(name) for name in ("cat", "car", "person"))
    first = masks["first"]
    assert (first[0:4, 0:4] == cat).all() and (first[11:14, 11:14] == car).all()
    assert (first[6:9, 6:9] == 255).all() and first[18, 18] == 0  # only the pizza is there
    assert (masks["second"][:, :5] == person).all() and not masks["second"][:, 5:].any()


def test_masks_are_scaled_to_the_label_map(coco: Path, tmp_path: Path) -> None:
    masks = items(FolderDataset(Coco(coco, height=10, width=40)), tmp_path)["mask"]
    assert masks.shape == (1, 10, 40) and masks.dtype == np.uint8


def test_cityscapes_labels_become_train_ids(cityscapes: Path, tmp_path: Path) -> None:
    written = items(FolderDataset(Cityscapes(cityscapes, height=4, width=8)), tmp_path)
    assert written["mask"].shape == (4, 4, 8)  # the training part calibrates, so all four are judged on
    for name, mask in zip(written["item_id"], written["mask"], strict=True):
        number = int(str(name).split("_")[-3])
        assert (mask[:, :4] == number).all() and (mask[:, 4:] == 255).all()


def test_a_file_of_labels_chooses_and_labels_the_pictures(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / "own" / f"{number}.png", seed=number)
    (tmp_path / "labels.csv").write_text("0.png,7\n2.png, 3\n3.png,0\n")
    written = items(FolderDataset(Images(tmp_path / "own", tmp_path / "labels.csv", classes=10)), tmp_path)
    labels = dict(zip(written["item_id"].tolist(), written["label"].tolist(), strict=True))
    assert len(labels) == 2 and labels.items() <= {"0.png": 7, "2.png": 3, "3.png": 0}.items()
    with pytest.raises(SubjectError, match=r"line 1: got '0.png,7'.*from 0 to 4"):
        FolderDataset(Images(tmp_path / "own", tmp_path / "labels.csv", classes=5)).fingerprint()


def layouts(imagenet: Path, coco: Path, cityscapes: Path) -> Sequence[FolderLayout]:
    return (ImageNet(imagenet, classes=3), Coco(coco, 8, 8), Cityscapes(cityscapes, 8, 8))


def test_fingerprints_know_names_sizes_and_labels(imagenet: Path, coco: Path, cityscapes: Path) -> None:
    def prints() -> list[tuple[str, str]]:
        datasets = [FolderDataset(layout) for layout in layouts(imagenet, coco, cityscapes)]
        return [(dataset.fingerprint(), dataset.inputs_fingerprint()) for dataset in datasets]

    before = prints()
    assert prints() == before and len(set(before)) == 3
    path = coco / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text().replace('"iscrowd": 0', '"iscrowd": 1'))
    label = next(cityscapes.rglob("munster*labelIds.png"))
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(label)
    picture(imagenet / "val" / WNIDS[0] / "another.JPEG")
    after = prints()
    assert [new[0] != old[0] for new, old in zip(after, before, strict=True)] == [True] * 3
    assert [new[1] != old[1] for new, old in zip(after, before, strict=True)] == [True, False, False]


def test_pictures_without_judgement_have_a_fingerprint_of_their_own(coco: Path, tmp_path: Path) -> None:
    judged, timed = FolderDataset(Coco(coco, 8, 8)), FolderDataset(Coco(coco, 8, 8), judged=False)
    assert judged.fingerprint() != timed.fingerprint()
    assert judged.inputs_fingerprint() == timed.inputs_fingerprint()
    with pytest.raises(SubjectError, match="nothing to judge by"):
        timed.write_items(tmp_path / "items.npz")


def test_planning_reads_no_picture(cityscapes: Path) -> None:
    for path in cityscapes.rglob("*_leftImg8bit.png"):
        path.write_bytes(b"not an image")
    dataset = FolderDataset(Cityscapes(cityscapes, 8, 8))
    assert dataset.fingerprint() and dataset.inputs_fingerprint() and len(dataset.largest(4)) == 4


@pytest.mark.parametrize(
    "layout", [ImageNet, lambda root: Coco(root, 8, 8), lambda root: Cityscapes(root, 8, 8), Images]
)
def test_a_missing_or_empty_folder_says_what_is_expected(layout: Any, tmp_path: Path) -> None:
    missing = FolderDataset(layout(tmp_path / "nowhere"))
    assert "expected" in (missing.absent() or "")
    with pytest.raises(SubjectError, match=r"no folder .*nowhere; expected"):
        missing.fingerprint()
    with pytest.raises(SubjectError, match="expected"):
        FolderDataset(layout(tmp_path)).fingerprint()


def test_damaged_labels_are_one_error(coco: Path, cityscapes: Path, tmp_path: Path) -> None:
    annotations = coco / "annotations" / "instances_val2017.json"
    whole = json.loads(annotations.read_text())
    broken = {
        "is not JSON": "{",
        "lacks one of the lists": "[]",
        "lack the categories": json.dumps({**whole, "categories": whole["categories"][:-1]}),
        "COCO's form": json.dumps({**whole, "annotations": [{}]}),
        "cannot draw": json.dumps(
            {**whole, "annotations": [{**entry, "segmentation": [[1]]} for entry in whole["annotations"]]}
        ),
        "not among the images": json.dumps({**whole, "images": []}),
    }
    for says, content in broken.items():
        annotations.write_text(content)
        with pytest.raises(SubjectError, match=says):
            FolderDataset(Coco(coco, 8, 8)).write_items(tmp_path / "items.npz")
    label = next(cityscapes.rglob("munster*labelIds.png"))
    label.write_bytes(label.read_bytes()[:40])
    with pytest.raises(SubjectError, match="not a readable label image"):
        FolderDataset(Cityscapes(cityscapes, 8, 8)).write_items(tmp_path / "items.npz")
    label.unlink()
    with pytest.raises(SubjectError, match="cannot be read"):
        FolderDataset(Cityscapes(cityscapes, 8, 8)).fingerprint()


def test_items_files_are_the_same_bytes_each_time(imagenet: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        FolderDataset(ImageNet(imagenet, classes=3)).write_items(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_encoded_files_decode(imagenet: Path, tmp_path: Path) -> None:
    written = items(FolderDataset(ImageNet(imagenet, classes=3)), tmp_path)
    for start, stop in zip(written["offset"][:-1], written["offset"][1:], strict=True):
        assert Image.open(io.BytesIO(written["image"][start:stop].tobytes())).format == "JPEG"
