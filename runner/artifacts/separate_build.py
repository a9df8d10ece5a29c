"""Builds of artifacts in a process of their own: a crash of native code ends one build and not the runner.

ONNX's checker, ONNX Runtime and the tools of passes are native code, which a foreign model may crash. The process is
forked from the runner, which takes some hundredths of a second, so that passes and data are there without being sent.
"""

import logging
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from runner.artifacts.calibration import CalibrationSource
from runner.artifacts.store import ArtifactStore, CachedArtifact
from runner.confinement import end_with
from runner.errors import OperatorError, describe
from runner.model_process import ending
from runner.operators.base import Pass

logger = logging.getLogger(__name__)

_KILLED = "probably for lack of memory; free some, or give the machine more"
_CRASHED = (
    "in the native code of ONNX, of ONNX Runtime or of a pass's tool; allowed: models and passes that these take. "
    "Export the model with another opset, or declare operators without this pass"
)


def build_apart(
    store: ArtifactStore, key: str, *, model: Path, passes: Sequence[Pass], calibration: CalibrationSource
) -> CachedArtifact:
    """Build an artifact as `ArtifactStore.build` does, in a process of its own where that can be forked.

    Raises
    ------
    OperatorError
        When a pass or a proof fails, or crashes.
    OSError, SubjectError, TierError
        When files cannot be read or written, or there is no calibration data.
    """

    def build() -> CachedArtifact:
        return store.build(key, model=model, passes=passes, calibration=calibration)

    # Elsewhere, system libraries may not go on in a forked process.
    if sys.platform != "linux":
        return build()
    _run_forked(build)
    built = store.find(key)
    if built is None:
        raise OperatorError(f"artifact {key[:12]}… was removed while it was built; try again")
    return built


def _run_forked(build: Callable[[], object]) -> None:
    """Run a function in a forked process; raise what it raised there, or that it crashed."""
    reading, writing = os.pipe()
    parent = os.getpid()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with warnings.catch_warnings():
        # The other threads of the runner read from tiers or wait; what they may hold, a build does not use.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(build, parent, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as stream:
            content = stream.read()
        _, status = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    _log_and_raise(content, os.waitstatus_to_exitcode(status))


def _answer(build: Callable[[], object], parent: int, writing: int) -> None:
    """Build in the forked process, send what was logged and raised, and end."""
    code = 1
    try:
        end_with(parent)
        # Ctrl-C reaches this process, too; the runner says when a build ends.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        notes = _Notes()
        logging.getLogger().handlers[:] = [notes]
        raised: Exception | None = None
        try:
            build()
        except Exception as error:  # noqa: BLE001 - raised again in the runner
            raised = _portable(error)
        with os.fdopen(writing, "wb") as stream:
            stream.write(pickle.dumps((notes.taken, raised)))
        code = 0
    except BaseException:  # noqa: BLE001 - whatever ends a forked process, it must not go on as the runner
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _log_and_raise(content: bytes, exit_code: int) -> None:
    if exit_code or not content:
        why = _KILLED if exit_code == -signal.SIGKILL else _CRASHED
        raise OperatorError(f"its build ended with {ending(exit_code)}, {why}")
    taken, raised = pickle.loads(content)
    for name, level, message in taken:
        logging.getLogger(name).log(level, "%s", message)
    if raised is not None:
        raise raised


class _Notes(logging.Handler):
    """What a forked process logs, for the runner to log: its handlers may be in use by another thread."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.taken.append((record.name, record.levelno, record.getMessage()))


def _portable(error: Exception) -> Exception:
    """Return the error, or one of the same message where it does not arrive as it is."""
    try:
        arrived = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - an error of any kind may be made in any way
        arrived = None
    return error if str(arrived) == str(error) else OperatorError(describe(error))
