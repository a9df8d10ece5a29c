"""Quantization through neural-compressor, in a separate process and environment.

Its last release with an ONNX adaptor needs older onnx and numpy than ours, and reports failures only in a log line.
"""

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from runner.errors import OperatorError
from runner.operators.base import PassRefusal
from runner.operators.quantizers.environment import ToolEnvironment
from runner.operators.quantizers.preparation import Feeds
from runner.operators.quantizers.settings import Settings

_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "neural_compressor.requirements.txt"
_WORKER = _HERE / "neural_compressor_worker.py"
_TAIL_LINES = 3


def own_environment(root: Path) -> ToolEnvironment:
    """Return the environment that the tool runs in; `root` is the directory of environments."""
    return ToolEnvironment(root, name="neural-compressor", requirements=_REQUIREMENTS, modules=("neural_compressor",))


def versions() -> Mapping[str, str]:
    """Return what enters the artifact's key: the release, and the SHA-256 of all pins."""
    pins = dict(line.split("==") for line in _REQUIREMENTS.read_text().splitlines() if "==" in line)
    digest = hashlib.sha256(json.dumps(pins, sort_keys=True).encode()).hexdigest()
    return {"neural-compressor": pins["neural-compressor"], "pins_sha256": digest}


def quantize(
    source: Path, target: Path, feeds: Feeds, settings: Settings, *, left: Sequence[str], environment: ToolEnvironment
) -> None:
    """Write the quantized model; the directory of `source` takes the calibration inputs and the tool's own files.

    `left` are the names of the nodes that stay in floats.
    """
    python, workdir = environment.python(), source.parent
    names = _write_calibration(feeds, workdir / "calibration")
    job = {
        **asdict(settings),
        "source": str(source.resolve()),
        "target": str(target.resolve()),
        "calibration": str((workdir / "calibration").resolve()),
        "inputs": names,
        "left": list(left),
    }
    (workdir / "job.json").write_text(json.dumps(job))
    # Isolated, so that no PYTHONPATH lends it our newer numpy and onnx.
    command = [str(python), "-I", str(_WORKER), "job.json"]
    done = subprocess.run(
        command, cwd=workdir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    # It reports failures in its log alone, so the file is what counts.
    if done.returncode != 0 or not target.is_file():
        log = done.stdout.decode(errors="replace")
        error, reason = _reason(log, done.returncode)
        raise error(f"neural-compressor made no model: {reason}")


def _write_calibration(feeds: Feeds, directory: Path) -> list[str]:
    """Write one file per sample, with arrays in the order of the returned input names."""
    directory.mkdir()
    names: list[str] = []
    for index, feed in enumerate(feeds):
        names = list(feed)
        # By position: a tensor's name may hold characters that a file name in the archive cannot.
        np.savez(directory / f"{index:05d}.npz", *feed.values())
    return names


def _reason(log: str, code: int) -> tuple[type[OperatorError], str]:
    """Return the first logged error, which is the cause; later ones only say that there is no result.

    An error that the tool reports itself is a refusal of the model; a process that ends in another way failed.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line.partition("[ERROR]")[2].strip() for line in lines if "[ERROR]" in line]
    if errors and code == 1:
        return PassRefusal, errors[0]
    if errors:
        return OperatorError, errors[0]
    return OperatorError, f"exit code {code}; the end of its log: {' | '.join(lines[-_TAIL_LINES:]) or 'none'}"
