"""The content-addressed cache of artifacts: what an operator made of a model, with its proof.

`<root>/<artifact key>/manifest.json` names the files; a directory exists only once it is complete, because it is built
beside its place and renamed into it.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from runner.errors import OperatorError
from runner.operators import Context, Pass, Refusal

_MANIFEST_VERSION = 1


@dataclass(frozen=True)
class ArtifactFile:
    """One part of an artifact, in the order the parts run."""

    part: str
    file: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Artifact:
    """A complete artifact on disk, or the reason why there can be none."""

    key: str
    directory: Path
    files: tuple[ArtifactFile, ...]
    reason: str | None = None

    @property
    def inapplicable(self) -> bool:
        return self.reason is not None

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def path(self, index: int) -> Path:
        return self.directory / self.files[index].file


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class ArtifactStore:
    """Builds each artifact once and verifies it before anything may use it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, key: str) -> Artifact | None:
        """The artifact with this key, if it was built; a damaged one is removed and counts as absent."""
        directory = self._root / key
        manifest = directory / "manifest.json"
        try:
            content = json.loads(manifest.read_text())
            files = tuple(ArtifactFile(**entry) for entry in content["files"])
            intact = content["version"] == _MANIFEST_VERSION and all(
                (directory / file.file).stat().st_size == file.size_bytes for file in files
            )
        except FileNotFoundError:
            intact = False
        except (ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            shutil.rmtree(directory, ignore_errors=True)
            return None
        return Artifact(key, directory, files, content["reason"])

    def build(
        self,
        key: str,
        *,
        model: Path,
        passes: Sequence[Pass],
        calibration: Callable[[int], Sequence[NDArray[np.generic]]],
    ) -> Artifact:
        """Run the passes over the model and verify what they made; raises OperatorError where one fails."""
        self._root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._root, prefix="building-") as scratch:
            target = Path(scratch) / "artifact"
            target.mkdir()
            try:
                parts = _apply(model, passes, calibration, Path(scratch), self._root.parent / "envs")
                files, reason = _collect(model, parts, target), None
            except Refusal as refusal:
                files, reason = (), str(refusal)
            manifest = {"version": _MANIFEST_VERSION, "reason": reason, "files": [asdict(file) for file in files]}
            (target / "manifest.json").write_text(json.dumps(manifest, indent=2))
            shutil.rmtree(self._root / key, ignore_errors=True)
            target.rename(self._root / key)
        return Artifact(key, self._root / key, files, reason)


def _apply(
    model: Path,
    passes: Sequence[Pass],
    calibration: Callable[[int], Sequence[NDArray[np.generic]]],
    scratch: Path,
    environments: Path,
) -> tuple[Path, ...]:
    """The files after the last pass."""
    _check(model)
    parts: tuple[Path, ...] = (model,)
    for number, step in enumerate(passes):
        workdir = scratch / f"{number}-{step.name}"
        workdir.mkdir()
        arrays = calibration(step.calibration_samples) if step.calibration_samples else ()
        parts = step.apply(parts, Context(workdir, arrays, environments))
    return parts


def _collect(model: Path, parts: Sequence[Path], target: Path) -> tuple[ArtifactFile, ...]:
    """Verify the parts and move copies of them into the artifact's directory."""
    names = {1: ["model"], 2: ["head", "tail"]}.get(len(parts)) or [f"part{index}" for index in range(len(parts))]
    for part in parts:
        _check(part)
    _same_signature(model, parts)
    files = []
    for name, part in zip(names, parts, strict=True):
        destination = target / f"{name}.onnx"
        shutil.copyfile(part, destination)
        files.append(ArtifactFile(name, destination.name, file_sha256(destination), destination.stat().st_size))
    return tuple(files)


def _check(path: Path) -> None:
    """ONNX checker, then a load in the real engine."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
        _session(path)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise OperatorError(f"{path.name} is not a valid ONNX model for ONNX Runtime: {reason}") from error


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _same_signature(model: Path, parts: Sequence[Path]) -> None:
    """The first part takes what the model took, the last gives what it gave."""

    def signature(values: Sequence[onnxruntime.NodeArg]) -> list[tuple[str, str, tuple[object, ...]]]:
        return [(value.name, value.type, tuple(value.shape)) for value in values]

    whole, first, last = _session(model), _session(parts[0]), _session(parts[-1])
    expected, got = signature(whole.get_inputs()), signature(first.get_inputs())
    if expected != got:
        raise OperatorError(f"the operator changed the model's inputs from {expected} to {got}")
    names = [(name, kind) for name, kind, _ in signature(whole.get_outputs())]
    result = [(name, kind) for name, kind, _ in signature(last.get_outputs())]
    if names != result:
        raise OperatorError(f"the operator changed the model's outputs from {names} to {result}")
