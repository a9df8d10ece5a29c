"""Mutated catalogs and ONNX files through a user's door: `python -m benchmarks.fuzz_inputs`

A catalog goes through `runner validate` in this process. A model goes the way of `model: ./my.onnx`: read without its
weights, checked against its data, loaded and run once in a process of its own; what is accepted then goes through the
operators. The trials' processes are forked here instead of started (the same functions on their other sides), and so is
the process around the operators, so that a crash is counted instead of ending the run.

A crash is: an exception that is not ours, a process of the runner that a signal ends, no answer in time. The
trial's process may end as it likes: it is there for that. Prints counts by kind of outcome; exit code 1 for a crash.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnx
from PIL import Image

from benchmarks.mutations import model_seeds, mutate_catalog, mutate_model
from catalog.declaration import SubjectSpec
from runner.artifacts.store import ArtifactStore
from runner.cli import app, run
from runner.errors import OperatorError, SubjectError
from runner.graph import tensor_trial
from runner.graph.tensor_trial_process import opened, show_stacking, show_types
from runner.model_process import limit_memory
from runner.operators.registry import make_pass
from runner.subjects import model_interface
from runner.subjects.declared import resolve_declared
from runner.subjects.model_interface import read_inputs
from runner.subjects.trial_process import attempt

_PATIENCE_S = 10
_STARTED_EVERY = 500  # so often the trial's process is started as the product does, not forked
_PIPELINES = ((), ("early_exit",), ("partition",))


class Late(BaseException):
    """No answer in time."""


@contextlib.contextmanager
def patience(seconds: int) -> Iterator[None]:
    """Raise `Late` when the block takes longer, in seconds of this process: a busy machine is no fault of the input."""

    def late(number: int, frame: FrameType | None) -> None:
        raise Late

    previous = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


# -- catalogs -------------------------------------------------------------------------------------------------------


def try_catalog(content: bytes, folder: Path) -> str:
    """How `runner validate` takes a file."""
    (folder / "strategies.yaml").write_bytes(content)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), patience(_PATIENCE_S):
        code = run(lambda: app(["validate"]))
    if code == 0:
        return "valid"
    said = err.getvalue()
    if code != 1 or "error: " not in said or "Traceback" in said:
        raise AssertionError(f"exit code {code}: {said}")
    return "refused: " + _kind_of(said.partition("error: ")[2])


_KINDS = (
    "malformed YAML", "tab", "not UTF-8", "not allowed in YAML", "duplicate key", "is not a name", "aliases expand",
    "contains itself", "nested too deeply", "tag", "as a date", "unknown key", "is missing here", "put it in quotes",
    "is not declared", "unknown", "must not be empty", "has no unit", "remove the quotes", "expected", "allowed",
)  # fmt: skip


def _kind_of(message: str) -> str:
    return next((kind for kind in _KINDS if kind in message), "other")


# -- models -----------------------------------------------------------------------------------------------------------


def forked(work: Callable[[], dict[str, Any]], patience_s: int = _PATIENCE_S) -> tuple[dict[str, Any] | None, int]:
    """What the work gives in a process of its own, and that process's status; None where it gave nothing."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        # The default action ends a loop inside the runtime too, which a handler in Python would wait for.
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, patience_s)
        try:
            try:
                outcome = work()
            except BaseException:  # noqa: BLE001 - told to the parent, which judges
                outcome = {"crash": traceback.format_exc()}
            with os.fdopen(write, "w") as stream:
                json.dump(outcome, stream)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    _, status = os.waitpid(pid, 0)
    return (json.loads(text) if text else None), os.waitstatus_to_exitcode(status)


class Trials:
    """The other side of the product's trial run, forked."""

    def __init__(self) -> None:
        self.ended = Counter[str]()
        self._trials = 0
        self._started = model_interface._trial_answer

    def ask(self, model: Path, encoded: bytes, file: Path, output: str | None) -> dict[str, object]:
        """As `model_interface._trial_answer`; a process that gave no answer is one that the model brought down."""
        self._trials += 1
        if self._trials % _STARTED_EVERY == 0:
            self.ended["started as the product does"] += 1
            return self._started(model, encoded, file, output)
        file.write_bytes(encoded)
        outcome, code = forked(lambda: attempt(str(model), str(file), output))
        if outcome is None:
            self.ended["no answer in time" if code == -signal.SIGPROF else f"brought down (exit {code})"] += 1
            raise SubjectError("brings ONNX Runtime down")
        if "crash" in outcome:
            raise AssertionError(outcome["crash"])
        if "error" in outcome:
            raise SubjectError(str(outcome["error"]))
        return outcome


def ask_for_types(what: str, model: Path, inputs: Any) -> dict[str, Any]:
    """As `tensor_trial._ask`; a process that gave no answer shows nothing, as there."""

    def shown() -> dict[str, Any]:
        limit_memory()
        return {"types": show_types, "stacking": show_stacking}[what](opened(model), inputs)

    outcome, _ = forked(shown)
    return {} if outcome is None or "crash" in outcome else outcome


def try_model(content: bytes, folder: Path, spec: SubjectSpec) -> str:
    """How the door of `model: ./my.onnx` takes a file."""
    (folder / "my.onnx").write_bytes(content)
    kept = folder / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    try:
        with patience(4 * _PATIENCE_S):
            subject = resolve_declared("mine", spec, base=folder, built=kept)
            subject.prepare()
    except SubjectError as error:
        return "refused: " + _refusal_of(str(error))
    outcome, code = forked(lambda: operate(folder / "my.onnx", subject, folder / "artifacts"), 3 * _PATIENCE_S)
    if outcome is None:
        raise AssertionError(f"the operators end the runner: exit {code}")
    if "crash" in outcome:
        raise AssertionError(outcome["crash"])
    return f"accepted: {', '.join(outcome['operators'])}"


def operate(model: Path, subject: Any, root: Path) -> dict[str, Any]:
    """What comes of a model that was accepted, operator by operator."""
    shutil.rmtree(root, ignore_errors=True)
    outcomes = []
    for names in _PIPELINES:
        passes = tuple(make_pass(name, {}) for name in names)
        store = ArtifactStore(root)

        def inputs(count: int) -> list[Any]:
            return [np.zeros([size or 1 for size in taken.shape], taken.dtype) for taken in read_inputs(model)[:1]]

        try:
            built = store.build("-".join(names) or "identity", model=model, passes=passes, calibration=inputs)
            outcomes.append("inapplicable" if built.inapplicable else "built")
        except OperatorError:
            outcomes.append("refused")
    return {"operators": outcomes}


_REFUSALS = (
    "is not a readable ONNX model", "is not a model this runtime", "cannot run on this input", "brings ONNX Runtime",
    "allowed for images", "allowed: 1 channel", "height and width are free", "has no inputs",
    "no declared tensor shape", "unknown type", "there is no array", "has the shape", "the model takes",
    "allowed for classification", "pixels; allowed", "memory",
)  # fmt: skip


def _refusal_of(message: str) -> str:
    return next((kind for kind in _REFUSALS if kind in message), f"other: {message[:100]}")


# -- the run ----------------------------------------------------------------------------------------------------------


def project(folder: Path, seed: onnx.ModelProto) -> SubjectSpec:
    """A folder with data that fit a seed: pictures where it takes one, tensors otherwise."""
    folder.mkdir()
    onnx.save(seed, folder / "my.onnx")
    tensors = read_inputs(folder / "my.onnx")
    if len(tensors) == 1 and len(tensors[0].shape) == 4 and tensors[0].shape[1] == 3:
        (folder / "images").mkdir()
        for index in range(2):
            Image.new("RGB", (8, 8), (index, 2, 3)).save(folder / f"images/{index}.png")
        return SubjectSpec.model_validate({"model": "./my.onnx", "task": "any", "dataset": {"images": "images"}})
    arrays = {tensor.name: np.ones([4, *(size or 1 for size in tensor.shape)], tensor.dtype) for tensor in tensors}
    for tensor in tensors:
        if tensor.shape and tensor.shape[0] in (None, 1):
            arrays[tensor.name] = arrays[tensor.name][:, 0]
    np.savez(folder / "data.npz", **arrays)
    return SubjectSpec.model_validate({"model": "./my.onnx", "task": "any", "dataset": {"tensors": "data.npz"}})


def fuzz_catalogs(count: int, first: int, crashes: list[str]) -> Counter[str]:
    """Counts by kind of outcome."""
    seeds = [Path(name).read_bytes() for name in ("strategies.yaml", "catalogs/paper.yaml", "catalogs/embedded.yaml")]
    counts, before = Counter[str](), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for index in range(first, first + count):
            content = mutate_catalog(seeds, random.Random(index))
            try:
                counts[try_catalog(content, Path(folder))] += 1
            except (Exception, Late):  # noqa: BLE001 - what is looked for
                counts["CRASH"] += 1
                crashes.append(f"catalog {index}: {traceback.format_exc(limit=-4)}")
        os.chdir(before)
    return counts


def fuzz_models(count: int, first: int, crashes: list[str], keep: Path | None) -> tuple[Counter[str], Trials]:
    """Counts by kind of outcome, and how the trial's processes ended."""
    trials, counts = Trials(), Counter[str]()
    model_interface._trial_answer = trials.ask
    tensor_trial._ask = ask_for_types
    with tempfile.TemporaryDirectory() as folder:
        seeds = model_seeds()
        projects = [(Path(folder) / str(index), seed) for index, seed in enumerate(seeds)]
        specs = [project(target, seed) for target, seed in projects]
        for index in range(first, first + count):
            source = random.Random(index)
            chosen = source.randrange(len(seeds))
            content = mutate_model(seeds[chosen], seeds[source.randrange(len(seeds))], source)
            try:
                counts[try_model(content, projects[chosen][0], specs[chosen])] += 1
            except (Exception, Late):  # noqa: BLE001 - what is looked for
                counts["CRASH"] += 1
                crashes.append(f"model {index}: {traceback.format_exc(limit=-4)}")
                if keep is not None:
                    (keep / f"{index}.onnx").write_bytes(content)
    return counts, trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogs", type=int, default=10_000)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--keep", type=Path, help="a folder for the models that crash something")
    options = parser.parse_args()
    warnings.simplefilter("error")
    crashes: list[str] = []
    started = time.monotonic()
    catalogs = fuzz_catalogs(options.catalogs, options.first, crashes)
    models, trials = fuzz_models(options.models, options.first, crashes, options.keep)
    print(
        json.dumps(
            {
                "catalogs": dict(catalogs.most_common()),
                "models": dict(models.most_common()),
                "trials": dict(trials.ended.most_common()),
                "crashes": len(crashes),
                "took_s": round(time.monotonic() - started),
            },
            indent=2,
        )
    )
    for crash in crashes[:50]:
        print(crash, file=sys.stderr)
    sys.exit(1 if crashes else 0)


if __name__ == "__main__":
    main()
