"""Which models and data sets may be declared together, and what is said of those that may not."""

from pathlib import Path

import pytest

from catalog.declaration import DatasetFiles, SubjectSpec
from runner.errors import SubjectError
from runner.subjects.dataset import Subject
from runner.subjects.declared import resolve_declared
from tierserver.imaging import check
from tierserver.messages import Postprocess, Preprocess

BUILT = Path("built")


def resolve(model: str, task: str, dataset: str | DatasetFiles, base: Path = Path("base")) -> Subject:
    spec = SubjectSpec.model_validate({"model": model, "task": task, "dataset": dataset})
    return resolve_declared("mine", spec, base=base, built=BUILT)


@pytest.mark.parametrize(
    ("model", "task", "dataset", "path"),
    [
        (
            "torchvision:wide_resnet101_2@IMAGENET1K_V2",
            "classification",
            "imagenet:d",
            "wide_resnet101_2@IMAGENET1K_V2",
        ),
        ("torchvision:resnext101_64x4d@random", "any", "imagenet:d", "resnext101_64x4d@random"),
        ("torchvision:fcn_resnet101@COCO_WITH_VOC_LABELS_V1", "segmentation", "coco:d", None),
        ("torchvision:fcn_resnet101@random", "any", "builtin:fashion", "fcn_resnet101@random"),
        ("study:duc", "any", DatasetFiles(images="d"), "duc@random"),
        ("study:duc@random", "any", "cityscapes:d", "duc@random"),
    ],
)
def test_the_study_can_be_declared_before_anything_is_there(
    model: str, task: str, dataset: str | DatasetFiles, path: str | None
) -> None:
    subject = resolve(model, task, dataset)
    assert subject.task == task and subject.model.parent == BUILT
    assert path is None or subject.model.name == f"{path}.onnx"
    check(Preprocess.from_json(subject.preprocess))
    assert Postprocess.from_json(subject.postprocess).kind == {1000: "top_k"}.get(subject.classes, "label_map")
    lacks = subject.absent()
    assert lacks and "has not been built yet" in lacks[0]


def test_duc_may_be_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "zoo.onnx").write_bytes(b"model")
    (tmp_path / "cities").mkdir()
    subject = resolve("study:duc@zoo.onnx", "segmentation", "cityscapes:cities", tmp_path)
    assert subject.model == tmp_path / "zoo.onnx" and subject.absent() == ()
    subject.prepare()
    missing = resolve("study:duc@nowhere.onnx", "segmentation", "cityscapes:cities", tmp_path)
    with pytest.raises(SubjectError, match=r"no model file .*nowhere\.onnx"):
        missing.prepare()


def test_labelled_images_of_ones_own_go_with_the_classifiers() -> None:
    files = DatasetFiles(images="photos", labels="labels.csv")
    subject = resolve("torchvision:resnext101_64x4d@IMAGENET1K_V1", "classification", files)
    assert "no folder base/photos" in subject.absent()[1]


@pytest.mark.parametrize(
    ("model", "task", "dataset", "says"),
    [
        ("./my.pt", "classification", "imagenet:d", r"unknown model './my\.pt'; allowed: \./FILE\.onnx, builtin:"),
        ("./my.onnx", "classification", "imagenet:d", r"'imagenet:d' does not go with your own model; allowed: "),
        ("torchvision:vgg16@random", "any", "imagenet:d", "unknown model"),
        ("torchvision:resnext101_64x4d", "any", "imagenet:d", "unknown weights ''.*@IMAGENET1K_V1, @random"),
        ("torchvision:resnext101_64x4d@V9", "any", "imagenet:d", "unknown weights 'V9'"),
        ("torchvision:resnext101_64x4d@random", "classification", "imagenet:d", "random weights.*task: any"),
        ("torchvision:resnext101_64x4d@IMAGENET1K_V1", "segmentation", "coco:d", "allowed: classification, any"),
        ("torchvision:resnext101_64x4d@IMAGENET1K_V1", "classification", "coco:d", "allowed: imagenet:DIR$"),
        ("torchvision:resnext101_64x4d@IMAGENET1K_V1", "classification", "imagenet:", "does not go with"),
        ("torchvision:resnext101_64x4d@random", "any", "elsewhere:d", "allowed: imagenet:DIR, coco:DIR"),
        ("torchvision:resnext101_64x4d@IMAGENET1K_V1", "classification", DatasetFiles(images="d"), "has no labels"),
        ("study:duc", "any", DatasetFiles(images="d", labels="l"), "remove `labels`"),
        ("study:duc@f", "segmentation", DatasetFiles(images="d", labels="l"), "judged on masks"),
        ("builtin:fashion-resnet", "classification", DatasetFiles(images="d"), "does not go with builtin"),
    ],
)
def test_what_does_not_go_together_is_refused(model: str, task: str, dataset: str | DatasetFiles, says: str) -> None:
    with pytest.raises(SubjectError, match=f"subject mine: .*{says}"):
        resolve(model, task, dataset)
