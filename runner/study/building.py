"""Building one of the study's ONNX files: DUC needs nothing more, the others need torch."""

import importlib.util
from pathlib import Path
from urllib.error import URLError

from runner.errors import SubjectError
from runner.study.architectures import RANDOM, StudyFile
from runner.study.duc import write_duc
from runner.workdir import scratch, settle

EXTRA = "this needs torch and torchvision, which are not installed: pip install 'tierwise[torch]' (several GB)"


def has_torch() -> bool:
    """Return whether models can be exported here, without importing anything."""
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
        write_duc(target)
        return
    from runner.study.exporting import export

    export(file.torchvision, weights, target, dynamic=file.dynamic)
