"""The check that a bundle runs, and later that its files are still what they were."""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.artifacts.store import Artifact
from runner.bundles.manifest import SCRIPT, CheckEntry, Manifest, OutputEntry, read_manifest
from runner.bundles.run import damaged
from runner.errors import BundleError
from tierserver.engine import VERSION, Session
from tierserver.errors import TierError
from tierserver.imaging import preprocess
from tierserver.messages import Postprocess, Preprocess
from tierserver.pipeline import postprocess
from tierserver.tensors import read_tensors

_RUN_S = 600.0
_TAIL_CHARACTERS = 500
Arrays = Mapping[str, NDArray[Any]]


def check_runs(directory: Path, manifest: Manifest, original: Artifact, *, name: str, encoded: bytes) -> CheckEntry:
    """Run one real input through the bundle, as its user does, and through the measured files, as a tier does.

    Raises
    ------
    BundleError
        When one of them fails, or the outputs differ in a single bit.
    """
    expected = _as_measured(original, manifest, encoded)
    got = _as_bundled(directory, encoded)
    differing = [each for each in expected if not _same(expected[each], got.get(each))]
    if differing or set(expected) != set(got):
        raise BundleError(
            f"the bundle does not give what the measured files give on {name}: "
            f"{', '.join(differing or sorted(set(expected) ^ set(got)))} differs. Nothing was handed over; please "
            "report it with the model"
        )
    outputs = {
        each: OutputEntry(dtype=str(array.dtype), shape=list(array.shape), sha256=_sha256(array.tobytes()))
        for each, array in got.items()
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
        raise BundleError(f"{directory}: {'; '.join(wrong)}. Make it anew: runner bundle {manifest.subject} -o DIR")
    return manifest


def _as_measured(original: Artifact, manifest: Manifest, encoded: bytes) -> Arrays:
    """The tier's engine over the original files, one part after the other."""
    settings = Preprocess.from_json({k: v for k, v in manifest.preprocess.items() if v is not None})
    after = Postprocess.from_json({k: v for k, v in manifest.postprocess.items() if v is not None})
    arrays: Arrays = {}
    try:
        for index, part in enumerate(manifest.parts):
            session = Session(original.directory / part.file, threads=part.threads, providers=[part.provider])
            names = [each.name for each in session.inputs]
            if index == 0 and settings.kind == "tensors":
                arrays = dict(zip(names, read_tensors(encoded), strict=True))
            elif index == 0:
                arrays = {names[0]: preprocess(encoded, settings)}
            arrays = session.run(arrays)
        return postprocess(arrays, after)
    except TierError as error:
        raise BundleError(f"the measured files do not run on this machine: {error}") from error


def _as_bundled(directory: Path, encoded: bytes) -> Arrays:
    """`run.py` in a process of its own, which sees the bundle's files alone."""
    with tempfile.TemporaryDirectory(prefix="tierwise-bundle-") as scratch:
        given, told = Path(scratch) / "input", Path(scratch) / "outputs.npz"
        given.write_bytes(encoded)
        command = [sys.executable, "-I", str(directory / SCRIPT), str(given), "-o", str(told)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_S, cwd=scratch)
        except subprocess.TimeoutExpired as error:
            raise BundleError(f"one input took the bundle longer than {_RUN_S:g} s; is this machine busy?") from error
        if done.returncode != 0:
            tail = done.stderr.strip()[-_TAIL_CHARACTERS:]
            raise BundleError(f"the bundle does not run on this machine: {tail.splitlines()[-1] if tail else 'killed'}")
        with np.load(told, allow_pickle=False) as content:
            return dict(content)


def _same(one: NDArray[Any], other: NDArray[Any] | None) -> bool:
    return other is not None and (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
