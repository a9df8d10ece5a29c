"""A build in a process of its own: what it raises, logs and crashes with arrives in the runner."""

import errno
import faulthandler
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runner.artifacts.store import ArtifactStore, CachedArtifact, build_apart
from runner.errors import OperatorError, SubjectError
from runner.operators.base import PassRefusal
from runner.operators.registry import make_pass
from runner.operators.static_ptq import StaticPtq
from tests.runner.artifacts.test_store import small_model
from tierserver.errors import EngineError, TierError


def quantize(folder: Path) -> CachedArtifact:
    rng = np.random.default_rng(1)
    return build_apart(
        ArtifactStore(folder / "store"),
        "key",
        model=small_model(folder / "m.onnx"),
        passes=[make_pass("static_ptq", {"calibration_samples": 4})],
        calibration=lambda count: [rng.normal(size=(1, 1, 12, 12)).astype(np.float32) for _ in range(count)],
    )


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Return a function that lets quantization do something else."""
    return lambda act: monkeypatch.setattr(StaticPtq, "apply", lambda *_: act())


def test_the_artifact_is_there_and_was_built_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = StaticPtq.apply

    def noting(*arguments: object) -> object:
        (tmp_path / "pid").write_text(str(os.getpid()))
        return apply(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(StaticPtq, "apply", noting)
    artifact = quantize(tmp_path)
    assert artifact.reason is None and artifact.path(0).is_file()
    assert int((tmp_path / "pid").read_text()) != os.getpid()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGSEGV, "signal 11, SIGSEGV, in the native code .*allowed: .*another opset"),
        (signal.SIGABRT, "signal 6, SIGABRT, in the native code"),
        (signal.SIGKILL, "signal 9, SIGKILL, probably for lack of memory"),
    ],
)
def test_a_crash_ends_the_build_alone(
    tmp_path: Path, failing: Callable[[Callable[[], object]], None], number: signal.Signals, said: str
) -> None:
    def crash() -> None:
        faulthandler.disable()  # of the tests; it would print the stack
        os.kill(os.getpid(), number)

    failing(crash)
    with pytest.raises(OperatorError, match=f"its build ended with {said}"):
        quantize(tmp_path)
    assert ArtifactStore(tmp_path / "store").find("key") is None


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "model.onnx"),
        SubjectError("there are no inputs"),
        OperatorError("the tool ended"),
        EngineError("the model cannot be loaded"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_build_raises_is_raised(
    tmp_path: Path, failing: Callable[[Callable[[], object]], None], error: Exception
) -> None:
    def fail() -> None:
        raise error

    failing(fail)
    with pytest.raises((OperatorError, OSError, SubjectError, TierError)) as caught:
        quantize(tmp_path)
    assert (type(caught.value), str(caught.value)) == (type(error), str(error))
    assert getattr(caught.value, "errno", None) == getattr(error, "errno", None)


def test_a_refusal_is_the_artifacts_reason(tmp_path: Path, failing: Callable[[Callable[[], object]], None]) -> None:
    def refuse() -> None:
        raise PassRefusal("nothing to quantize")

    failing(refuse)
    assert quantize(tmp_path).reason == "nothing to quantize"


def test_what_is_logged_comes_along_while_another_thread_holds_a_handler(
    tmp_path: Path, failing: Callable[[Callable[[], object]], None], caplog: pytest.LogCaptureFixture
) -> None:
    def warn() -> None:
        logging.getLogger("runner.operators").warning("the scale of %s is %d", "weights", 3)
        raise PassRefusal("no")

    failing(warn)
    is_held, is_done = threading.Event(), threading.Event()

    def hold() -> None:
        with caplog.handler.lock or threading.RLock():
            is_held.set()
            is_done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait(10)
    timer = threading.Timer(0.5, is_done.set)
    timer.start()
    quantize(tmp_path)
    thread.join()
    assert caplog.messages == ["the scale of weights is 3"]
