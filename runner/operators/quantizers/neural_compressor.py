"""Quantization through neural-compressor, in a separate process and environment.

Its last release with an ONNX adaptor needs older onnx and numpy than ours, and reports failures only in a log line.

A separate Python environment (`ToolEnvironment`) is made on first use and kept. It appears under its name only when it
is complete and its modules import: it is built beside its place and renamed into it, under a lock that the kernel
releases when its holder dies. The next creation removes what a killed one left behind.
"""

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from runner.errors import OperatorError
from runner.operators.base import PassRefusal, QuantizationSettings
from runner.operators.quantizers.preparation import Feeds

# numpy 1.26.4 has wheels for these and no newer ones.
_PYTHONS = ((3, 11), (3, 12))
_PIP_TAIL_LINES = 8


@dataclass(frozen=True)
class ToolEnvironment:
    """A virtual environment with exactly the pins of a requirements file.

    Parameters
    ----------
    root
        The directory of environments.
    name
        Its name in messages and on disk.
    requirements
        Exact pins of everything, dependencies included.
    modules
        Imported once before the environment counts as made.
    """

    root: Path
    name: str
    requirements: Path
    modules: Sequence[str]

    @property
    def directory(self) -> Path:
        """The environment's directory, which depends on the pins and on the Python version."""
        interpreter, _ = _interpreter()
        identity = f"{interpreter}|{'|'.join(_pins(self.requirements))}"
        return self.root.resolve() / f"{self.name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"

    def python(self) -> Path:
        """Return the environment's interpreter; make the environment first if needed.

        Raises
        ------
        OperatorError
            When it cannot be made, with the end of the installer's output.
        """
        directory = self.directory
        if not directory.is_dir():
            self.root.mkdir(parents=True, exist_ok=True)
            # Another process may make it while this one waits for the lock, so there is a second look.
            with _locked(directory.with_suffix(".lock")):
                if not directory.is_dir():
                    self._make(directory)
        return directory / "bin" / "python"

    def _make(self, directory: Path) -> None:
        for stale in self.root.glob(f"{directory.name}.building-*"):
            shutil.rmtree(stale, ignore_errors=True)
        pins = _pins(self.requirements)
        _say(f"making a separate environment for {self.name}, once: {len(pins)} packages, about a minute")
        staging = Path(tempfile.mkdtemp(dir=self.root.resolve(), prefix=f"{directory.name}.building-"))
        try:
            self._fill(staging, len(pins))
            staging.rename(directory)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        _say(f"{self.name}: ready in {directory}")

    def _fill(self, staging: Path, total: int) -> None:
        _, interpreter = _interpreter()
        python = str(staging / "bin" / "python")
        self._run([interpreter, "-m", "venv", "--without-pip", str(staging)])
        # Our pip works on the new environment from outside, which then needs none and is made faster.
        pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--no-input"]
        # No dependency is resolved and nothing is built: the pins name every package, and sdists could run code.
        install = ["install", "--progress-bar", "off", "--no-deps", "--only-binary", ":all:"]
        # Python compiles what is imported: all the modules of all packages would take many times as long.
        install.append("--no-compile")
        self._run([*pip, *install, "-r", str(self.requirements)], total)
        # Isolated, so that neither PYTHONPATH nor the current folder can lend it a module.
        self._run([python, "-I", "-c", f"import {', '.join(self.modules)}"])

    def _run(self, command: Sequence[str], total: int = 0) -> None:
        """Run one step; every line in which pip starts a package counts as progress."""
        lines: list[str] = []
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            started = 0
            for line in process.stdout or ():
                lines.append(line.rstrip())
                if line.startswith(("Collecting ", "Processing ")):
                    started += 1
                    _say(f"  [{started}/{total}] {Path(line.split()[1]).name}")
                if line.startswith("Installing collected"):
                    _say("  installing")
        if process.returncode != 0:
            tail = "\n".join(line for line in lines[-_PIP_TAIL_LINES:] if line)
            raise OperatorError(
                f"the environment of {self.name} could not be made ({' '.join(command[1:3])} ended with "
                f"{process.returncode}). It needs the package index once; the end of its output:\n{tail}"
            )


def _pins(requirements: Path) -> list[str]:
    return [line.strip() for line in requirements.read_text().splitlines() if "==" in line]


def _interpreter() -> tuple[str, str]:
    """Return version and command of a Python that the pins have wheels for: ours, or the newest on the path."""
    if sys.version_info[:2] in _PYTHONS:
        return f"{sys.version_info[0]}.{sys.version_info[1]}", sys.executable
    for major, minor in reversed(_PYTHONS):
        command = shutil.which(f"python{major}.{minor}")
        if command:
            return f"{major}.{minor}", command
    allowed = " or ".join(f"{major}.{minor}" for major, minor in _PYTHONS)
    raise OperatorError(
        f"neural-compressor runs on Python {allowed}, this is {sys.version_info[0]}.{sys.version_info[1]} and no "
        f"other is on the path; install one of them, or use `tool: onnxruntime`"
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for another process that makes the environment, then keep others out."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


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
    source: Path,
    target: Path,
    feeds: Feeds,
    settings: QuantizationSettings,
    *,
    left: Sequence[str],
    environment: ToolEnvironment,
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
