"""The ONNX files of the study's models, and how one is built: DUC needs nothing more, the others need torch."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

from runner.errors import SubjectError
from runner.workdir import scratch, settle

RANDOM = "random"


@dataclass(frozen=True)
class Torchvision:
    """A model of torchvision as the study used it; `weights` is the published set."""

    constructor: str
    weights: str
    size_px: int
    segments: bool = False


TORCHVISION: Mapping[str, Torchvision] = {
    model.constructor: model
    for model in (
        Torchvision("wide_resnet101_2", "IMAGENET1K_V2", 224),
        Torchvision("resnext101_64x4d", "IMAGENET1K_V1", 224),
        Torchvision("fcn_resnet101", "COCO_WITH_VOC_LABELS_V1", 640, segments=True),
    )
}


DUC = "duc"


@dataclass(frozen=True)
class StudyFile:
    """A file that the command builds; without a torchvision model it is DUC."""

    torchvision: Torchvision | None = None
    dynamic: bool = False


FILES: Mapping[str, StudyFile] = {
    "resnet": StudyFile(TORCHVISION["wide_resnet101_2"]),
    "resnext": StudyFile(TORCHVISION["resnext101_64x4d"]),
    "fcn": StudyFile(TORCHVISION["fcn_resnet101"]),
    "duc": StudyFile(),
    "fcn-dynamic": StudyFile(TORCHVISION["fcn_resnet101"], dynamic=True),
}
# Any image size is FCN's published form and another graph; the catalog's tiers feed one size.
DEFAULT_FILES = ("resnet", "resnext", "fcn", "duc")


EXTRA = "this needs torch and torchvision, which are not installed: pip install 'tierwise[torch]' (several GB)"


def has_torch() -> bool:
    """Return whether models can be exported here, without importing anything."""
    # Importing torch takes seconds, and most callers only want to know.
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "torchvision"))


def build(file: StudyFile, weights: str, target: Path) -> None:
    """Write the file, completely or not at all.

    Raises
    ------
    SubjectError
        If torch is missing, the weights are not available, or the folder cannot be written.
    """
    if file.torchvision is not None and not has_torch():
        raise SubjectError(
            f"cannot export {file.torchvision.constructor}: {EXTRA}; or put the file, exported elsewhere, at {target}"
        )
    if file.torchvision is None and weights != RANDOM:
        raise SubjectError("DUC is built with random weights only; download ResNet101-DUC-7.onnx for published ones")
    try:
        # Beside its place and then renamed: a killed build must not leave half a model that looks whole.
        with scratch(target.parent) as directory:
            written = directory / target.name
            _write(file, weights, written)
            settle(written, target)
    except URLError as error:
        raise SubjectError(
            f"the weights {weights} cannot be downloaded: {error.reason}; put them into torch's cache, or declare "
            f"`@{RANDOM}` with `task: any` (latency only)"
        ) from error
    except OSError as error:
        raise SubjectError(f"cannot write {target}: {error.strerror or error}") from error


def _write(file: StudyFile, weights: str, target: Path) -> None:
    if file.torchvision is None:
        # Imported where a file is built: a catalog that only names the study is read without onnx.
        from runner.study.duc import write_duc

        write_duc(target)
        return
    from runner.study.torch_export import export

    export(file.torchvision, weights, target, dynamic=file.dynamic)
