"""A bundle's `manifest.json`: everything needed to deploy one strategy, and where its numbers come from."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from catalog.foreign import read_regular
from runner.artifacts.store import CachedArtifact
from runner.bundles.run import damaged
from runner.errors import BundleError
from runner.workdir import temporary
from tierserver.encoding import read_tensors
from tierserver.engine import VERSION, Session
from tierserver.errors import TierError
from tierserver.imaging import preprocess
from tierserver.messages import Postprocess, Preprocess
from tierserver.pipeline import postprocess

MANIFEST = "manifest.json"
SCRIPT = "run.py"
README = "README.md"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BundledFile(_Entry):
    """One file of the bundle; its name has no directory."""

    # No directory, because the name is joined to the path of the bundle.
    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int


class PartEntry(BundledFile):
    """One model file in the order the parts run, the tier it is for, and how its session was made there."""

    part: str
    tier: str
    data: str | None = Field(description="The file of its external data, if it has any")
    provider: str = Field(description="ONNX Runtime's execution provider")
    threads: int = Field(description="Intra-op threads")
    cpus: float = Field(description="CPU quota of the tier when it was measured")
    memory_bytes: int = Field(description="Memory limit of the tier when it was measured")


class SessionEntry(_Entry):
    """The settings of every session in a tier."""

    graph_optimization_level: str = "ORT_ENABLE_ALL"
    inter_op_num_threads: int = 1
    # As `tierserver.engine` sets them in a tier.
    config: dict[str, str] = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}


class EvidenceEntry(_Entry):
    """The ids under which the evidence can be fetched (GET /evidence/ID), and where it was measured."""

    strategy: str
    environment: str
    artifact: str
    latency: str
    accuracy: str | None
    launcher: str
    scale: str
    host: str
    cpu_model: str
    measured_at: str
    imported_from: str | None


class OutputEntry(_Entry):
    """One output of the check, by the digest of its bits."""

    dtype: str
    shape: list[int]
    sha256: str


class CheckEntry(_Entry):
    """The one real input that ran through the bundle's `run.py`, and through the measured files as in a tier."""

    input: str
    input_sha256: str
    outputs: dict[str, OutputEntry]
    identical: Literal[True] = True
    onnxruntime: str


class Manifest(_Entry):
    """The whole file."""

    format: Literal["tierwise-bundle"] = "tierwise-bundle"
    # Any other version is refused and not guessed at.
    version: Literal[1] = 1
    created_at: str
    subject: str
    task: str
    operator: str
    passes: list[dict[str, Any]]
    placement: str
    parts: list[PartEntry]
    session: SessionEntry = SessionEntry()
    links: list[dict[str, Any]] = Field(description="Of the route, as they were when it was measured")
    codec: str = Field(description="How tensors travelled between the tiers")
    preprocess: dict[str, Any]
    postprocess: dict[str, Any]
    question: dict[str, Any] = Field(description="As POST /recommend takes it")
    answer: dict[str, Any] = Field(description="The recommendation: latency, accuracy, intervals, confidence")
    summary: str
    warnings: list[str]
    conditions: str
    evidence: EvidenceEntry
    versions: dict[str, dict[str, str]] = Field(description="Of the libraries: when measured, when bundled")
    check: CheckEntry | None = None
    files: list[BundledFile] = Field(description="Every file but this one")

    def to_json(self) -> str:
        """Return the file's text."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def read_manifest(directory: Path) -> Manifest:
    """Read and check a bundle's manifest; raises BundleError."""
    path = directory / MANIFEST
    try:
        content = read_regular(path)
    except OSError as error:
        raise BundleError(
            f"{directory} is not a bundle: {MANIFEST} cannot be read ({error.strerror}); "
            "`runner bundle SUBJECT -o DIR` makes one"
        ) from error
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first: Mapping[str, Any] = error.errors()[0]
        where = ".".join(str(key) for key in first["loc"]) or "the file"
        raise BundleError(f"{path}: {where}: {first['msg']}; it is not a manifest of a bundle, version 1") from error


_RUN_S = 600.0
_TAIL_CHARACTERS = 500
Arrays = Mapping[str, NDArray[Any]]


def check_runs(
    directory: Path, manifest: Manifest, original: CachedArtifact, *, name: str, encoded: bytes
) -> CheckEntry:
    """Run one real input through the bundle, as its user does, and through the measured files, as a tier does.

    Raises
    ------
    BundleError
        When one of them fails, or the outputs differ in a single bit.
    """
    expected = _as_measured(original, manifest, encoded)
    got = _as_bundled(directory, encoded)
    differing = [output for output in expected if not _same(expected[output], got.get(output))]
    # `differing` holds expected outputs only; the sets differ where the bundle gives others besides.
    if differing or set(expected) != set(got):
        raise BundleError(
            f"the bundle does not give what the measured files give on {name}: "
            f"{', '.join(differing or sorted(set(expected) ^ set(got)))} differs. Nothing was handed over; please "
            "report it with the model"
        )
    outputs = {
        output: OutputEntry(dtype=str(array.dtype), shape=list(array.shape), sha256=_sha256(array.tobytes()))
        for output, array in got.items()
    }
    return CheckEntry(input=name, input_sha256=_sha256(encoded), outputs=outputs, onnxruntime=VERSION)


def verify_bundle(directory: Path) -> Manifest:
    """Compare every file of a bundle with its manifest; raises BundleError naming what is wrong."""
    manifest = read_manifest(directory)
    try:
        wrong = damaged(directory)
    except OSError as error:
        raise BundleError(f"{directory} cannot be read: {error.strerror}") from error
    if wrong:
        raise BundleError(f"{directory}: {'; '.join(wrong)}. Make it again: runner bundle {manifest.subject} -o DIR")
    return manifest


def _as_measured(original: CachedArtifact, manifest: Manifest, encoded: bytes) -> Arrays:
    """Run the original files in the tier's engine, one part after the other."""
    settings = Preprocess.from_json({k: v for k, v in manifest.preprocess.items() if v is not None})
    after = Postprocess.from_json({k: v for k, v in manifest.postprocess.items() if v is not None})
    arrays: Arrays = {}
    try:
        for index, part in enumerate(manifest.parts):
            session = Session(original.directory / part.file, threads=part.threads, providers=[part.provider])
            names = [model_input.name for model_input in session.inputs]
            if index == 0 and settings.kind == "tensors":
                arrays = dict(zip(names, read_tensors(encoded), strict=True))
            elif index == 0:
                arrays = {names[0]: preprocess(encoded, settings)}
            arrays = session.run(arrays)
        return postprocess(arrays, after)
    except TierError as error:
        raise BundleError(f"the measured files do not run on this machine: {error}") from error


def _as_bundled(directory: Path, encoded: bytes) -> Arrays:
    """Run `run.py` in its own process, which sees only the bundle's files."""
    with temporary() as scratch:
        source, outputs = scratch / "input", scratch / "outputs.npz"
        source.write_bytes(encoded)
        # Isolated: neither the working directory nor the user's packages are importable.
        command = [sys.executable, "-I", str(directory / SCRIPT), str(source), "-o", str(outputs)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_S, cwd=scratch)
        except subprocess.TimeoutExpired as error:
            raise BundleError(f"one input took the bundle longer than {_RUN_S:g} s; is this machine busy?") from error
        if done.returncode != 0:
            tail = done.stderr.strip()[-_TAIL_CHARACTERS:]
            raise BundleError(f"the bundle does not run on this machine: {tail.splitlines()[-1] if tail else 'killed'}")
        with np.load(outputs, allow_pickle=False) as content:
            # Whole, because the file goes with its directory.
            return dict(content)


def _same(one: NDArray[Any], other: NDArray[Any] | None) -> bool:
    # By bytes: a NaN equals itself, and 0.0 is not -0.0.
    return other is not None and (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
