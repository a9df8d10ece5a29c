"""The content-addressed cache of artifacts: what an operator made of a model, with its proof.

`<root>/<artifact key>/manifest.json` seals the files (`runner.workdir`); a directory exists only once it is complete,
because it is built next to its place and renamed into it.

A pipeline that begins with the passes of a cached artifact goes on from its file (`_PassOutput`), so that a model is
quantized once and not for every operator that cuts or shortens it afterwards.

`build_apart` builds in a process of its own, so that a crash of native code ends one build and not the runner: ONNX's
checker, ONNX Runtime and the tools of passes are native code, which a foreign model may crash. The process is forked
from the runner, which takes some hundredths of a second, so that passes and data are there without being sent.
"""

import json
import logging
import math
import os
import pickle
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from catalog.artifact_details import DISTANCE_DETAIL, REFUSED_BY_DETAIL, GraphSize
from catalog.artifact_details import GRAPH_DETAIL as GRAPH
from runner.artifacts.calibration import CalibrationSource
from runner.artifacts.model_runs import (
    PROOF_INPUTS,
    TRIAL_INPUTS,
    ModelInputs,
    NotRunnable,
    Rigour,
    Signature,
    SoundModel,
    Trial,
    check,
    check_chain,
    measure_distance,
    prove_close,
    prove_equal,
    run_chain,
    sound_model,
    try_model,
)
from runner.errors import ModelFileError, OperatorError, SubjectError, describe
from runner.graph.model_file import has_external_data, read_model
from runner.graph.rewriting import whole, with_seeds
from runner.graph.runtime import emptiness
from runner.graph.structure import Randomness, read_structure
from runner.graph.writing import data_file, write_part
from runner.model_process import end_with, ending
from runner.operators.base import Context, Pass, PassRefusal, passes_code
from runner.workdir import SealedContent, file_sha256, remove, scratch, seal, settle, unseal
from tierserver.errors import TierError

logger = logging.getLogger(__name__)

# Raised when files or details mean something else; older artifacts are then built again.
_MANIFEST_VERSION = 3
# The key of the details under which the reason stands why nothing was run.
NOT_VERIFIED = "not_verified"
# The key of a proof under which the nodes stand that draw random numbers.
RANDOM_DETAIL = "random"
# From passes to the key of their artifact for the same model and calibration data.
KeyOfPasses = Callable[[Sequence[Pass]], str]


@dataclass(frozen=True)
class CachedFile:
    """One file of an artifact; the files of models are in the order in which they run."""

    part: str
    file: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class CachedArtifact:
    """A complete artifact on disk, or the reason why there can be none.

    `details` can be written as JSON: `passes`, what each pass reports, `proof`, what was shown of the result, the
    `GraphSize`, and the `OutputDistance` to the model's outputs, absent where the model runs on no input that could be
    generated.
    """

    key: str
    directory: Path
    files: tuple[CachedFile, ...]
    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inapplicable(self) -> bool:
        return self.reason is not None

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def parts(self) -> tuple[CachedFile, ...]:
        """The model files without those of their external data, in the order in which they run."""
        return tuple(file for file in self.files if file.file.endswith(".onnx"))

    def path(self, index: int) -> Path:
        return self.directory / self.files[index].file


@dataclass(frozen=True)
class _PassOutput:
    """The output of the passes: the last files, what each pass reports, and the model before it was cut.

    `references` has, by pass, a file that computes the same in another way and the file to compare with it; `proof`
    what such a comparison gave for passes whose result was cached.
    """

    parts: tuple[Path, ...]
    details: tuple[Mapping[str, Any], ...]
    uncut: Path
    references: Mapping[str, tuple[Path, Path]]
    proof: Mapping[str, Any] = field(default_factory=dict)


class ArtifactStore:
    """A cache that builds each artifact once and verifies it before anything may use it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, key: str) -> CachedArtifact | None:
        """Find the artifact with this key; one that was changed counts as absent, is removed and logged.

        A refusal by other code of the passes counts as absent, too: this code may do it.
        """
        directory = self._root / key
        sealed = unseal(directory, key)
        if sealed is None:
            return None
        artifact = (
            None if sealed.content.get("version") != _MANIFEST_VERSION else _sealed_artifact(directory, key, sealed)
        )
        if artifact is not None and artifact.inapplicable and artifact.details.get(REFUSED_BY_DETAIL) != passes_code():
            artifact = None
        if artifact is None:
            remove(directory)
        return artifact

    def discard(self, key: str) -> None:
        """Remove an artifact whose bytes are not what they should be, so that it is built again."""
        remove(self._root / key)

    def build(
        self,
        key: str,
        *,
        model: Path,
        passes: Sequence[Pass],
        calibration: CalibrationSource,
        key_of: KeyOfPasses | None = None,
    ) -> CachedArtifact:
        """Run the passes over the model and verify the result.

        With `key_of`, the passes go on from the cached artifact of the first of them, if there is one; the result is
        the same to the byte.

        Raises
        ------
        OperatorError
            When a pass or a proof fails, for whatever reason; a pass that the model does not allow is no error.
        OSError, SubjectError, TierError
            When files cannot be read or written, or there is no calibration data.
        """
        try:
            return self._build(key, model=model, passes=passes, calibration=calibration, key_of=key_of)
        except (OperatorError, SubjectError, TierError, OSError):
            raise
        except Exception as error:
            logger.debug("an artifact could not be built", exc_info=True)
            raise OperatorError(describe(error)) from error

    def _build(
        self,
        key: str,
        *,
        model: Path,
        passes: Sequence[Pass],
        calibration: CalibrationSource,
        key_of: KeyOfPasses | None,
    ) -> CachedArtifact:
        with scratch(self._root) as directory:
            target = directory / "artifact"
            target.mkdir()
            files: tuple[CachedFile, ...] = ()
            reason: str | None = None
            details: Mapping[str, Any] = {}
            try:
                sound = _sound(model, passes, directory)
                # What the checker does not accept of the original is no fault of the operator.
                signature = check(sound.path, rigour=sound.rigour)
                trial = _try_original(model, calibration)
                begun = self._begin(sound, passes, key_of, directory / "begun.onnx")
                made = _apply(begun, passes, sound.rigour, calibration, directory, self._root.parent / "envs")
                # A copy may be optimised otherwise; what inherits identity's accuracy must equal the user's own file.
                made = replace(made, uncut=model) if made.uncut == sound.path else made
                signatures = _check(signature, made, sound.rigour)
                distance = _run_beside(trial, made)
                proof = {**signatures, **_prove(trial, made, calibration, directory)}
                size = {GRAPH: count_graph(made.parts).as_details()}
                details = _as_stored({"passes": made.details, "proof": proof, **distance, **size})
                files = _collect(made.parts, target)
            except PassRefusal as refusal:
                reason, details = str(refusal), {REFUSED_BY_DETAIL: passes_code()}
            parts = [file.part for file in files]
            content = {"version": _MANIFEST_VERSION, "reason": reason, "parts": parts, "details": details}
            # Sealed before it is moved: a directory under a key's name is always complete.
            seal(target, key, [file.file for file in files], content)
            settle(target, self._root / key)
        # Read back by its key: another process may have put the same artifact there first.
        built = self.find(key)
        if built is None:
            raise OperatorError(f"artifact {key[:12]}… was removed from {self._root} while it was built; try again")
        return built

    def _begin(self, model: SoundModel, passes: Sequence[Pass], key_of: KeyOfPasses | None, copy: Path) -> _PassOutput:
        """Return the output of as many first passes as have an artifact; of none, which is the model, where none has.

        What uses no calibration takes less time than the search; nor does its key say which inputs proved it.
        """
        for count in range(len(passes) - 1, 0, -1):
            first = passes[:count]
            if key_of is None or not any(step.calibration_samples for step in first):
                break
            artifact = self.find(key_of(first))
            output = None if artifact is None else _output_of(artifact, first, copy)
            if output is not None:
                return output
        return _PassOutput((model.path,), (), model.path, {})


def _sealed_artifact(directory: Path, key: str, sealed: SealedContent) -> CachedArtifact | None:
    """Return the artifact that a manifest describes; None, and a warning, where it describes none."""
    content = sealed.content
    parts, reason, details = content.get("parts"), content.get("reason"), content.get("details")
    listed = (
        isinstance(parts, list) and len(parts) == len(sealed.files) and all(isinstance(name, str) for name in parts)
    )
    # Either there are files, or a reason why there are none.
    if (
        not listed
        or not isinstance(details, dict)
        or (not isinstance(reason, str) if not parts else reason is not None)
    ):
        logger.warning(
            "cached files in %s are not used: its manifest describes no artifact; they are made again", directory
        )
        return None
    files = [
        CachedFile(name, file.file, file.sha256, file.size_bytes)
        for name, file in zip(content["parts"], sealed.files, strict=True)
    ]
    return CachedArtifact(key, directory, tuple(files), reason, details)


def _output_of(artifact: CachedArtifact, passes: Sequence[Pass], copy: Path) -> _PassOutput | None:
    """Return what the passes made of the model, as copied from their artifact; None where it does not serve."""
    details, proof = artifact.details.get("passes"), artifact.details.get("proof")
    # Of a cut model the artifact does not have the whole, and with data beside it its bytes are not those of the pass.
    if len(artifact.files) != 1 or not isinstance(details, list) or not isinstance(proof, dict):
        return None
    try:
        shutil.copyfile(artifact.path(0), copy)
    except FileNotFoundError:  # another runner removed it
        return None
    if len(details) != len(passes) or file_sha256(copy) != artifact.files[0].sha256:
        return None
    names = {step.name for step in passes}
    return _PassOutput((copy,), tuple(details), copy, {}, {name: proof[name] for name in proof if name in names})


def _apply(
    begun: _PassOutput,
    passes: Sequence[Pass],
    rigour: Rigour,
    calibration: CalibrationSource,
    directory: Path,
    environments: Path,
) -> _PassOutput:
    """Run the passes that are left one after the other; each reads only what was checked after the one before."""
    parts, uncut = begun.parts, begun.uncut
    details = list(begun.details)
    references: dict[str, tuple[Path, Path]] = {}
    for number, step in list(enumerate(passes))[len(details) :]:
        workdir = directory / f"{number}-{step.name}"
        workdir.mkdir()
        arrays = calibration(step.calibration_samples) if step.calibration_samples else ()
        applied = step.apply(parts, Context(workdir, arrays, environments))
        parts = applied.parts
        if number < len(passes) - 1:
            _check_between(step, parts, rigour)
        details.append({"pass": step.name, **applied.details})
        # The last single file before a cut is what the parts are compared with.
        uncut = parts[0] if len(parts) == 1 else uncut
        if applied.reference is not None:
            references[step.name] = (applied.reference, parts[0])
    return _PassOutput(parts, tuple(details), uncut, references, begun.proof)


def _check_between(step: Pass, parts: Sequence[Path], rigour: Rigour) -> None:
    """Raise Refusal where what a pass made is not valid; the next pass would blame its own reading of it."""
    try:
        for part in parts:
            check(part, rigour=rigour)
    except OperatorError as error:
        raise PassRefusal(
            f"what {step.name} made of the model is not valid: {error}; declare operators without it for this model"
        ) from error


def _sound(model: Path, passes: Sequence[Pass], directory: Path) -> SoundModel:
    """Return what the passes read; without passes the user's own file is measured as it is, if the engine loads it."""
    if not passes:
        return SoundModel(model, Rigour.LOADED)
    copies = directory / "sound"
    copies.mkdir()
    return sound_model(model, copies)


def _try_original(model: Path, calibration: CalibrationSource) -> Trial:
    """Run the model itself before the passes."""
    _refuse_empty(model)
    try:
        return try_model(model, _up_to(TRIAL_INPUTS, calibration))
    except NotRunnable as error:
        raise PassRefusal(f"the model does not run on the inputs it is to be measured with: {error}") from error


def _refuse_empty(model: Path) -> None:
    """Raise PassRefusal for a model of which no input holds a number."""
    try:
        reason = emptiness(read_model(model).graph)
    except ModelFileError:  # only the engine can read it
        return
    if reason is not None:
        raise PassRefusal(reason)


def _up_to(count: int, calibration: CalibrationSource) -> Sequence[ModelInputs]:
    """Return up to `count` inputs: a dataset refuses to give more than it has."""
    while count:
        try:
            return calibration(count)
        except (SubjectError, TierError):
            count //= 2
    return ()


def _check(model: Signature, made: _PassOutput, rigour: Rigour) -> Mapping[str, Any]:
    """Check every part with its inputs and outputs; raise Refusal where one is not valid."""
    try:
        check_chain(model, [check(part, rigour=rigour) for part in made.parts])
    except OperatorError as error:
        raise PassRefusal(f"what was made of the model is not valid: {error}") from error
    return {"checker": onnx.__version__, "onnxruntime": onnxruntime.__version__, "signature": "kept"}


def _prove(trial: Trial, made: _PassOutput, calibration: CalibrationSource, directory: Path) -> Mapping[str, Any]:
    """Compare results with their references, and parts with the model they were cut from.

    Where the model draws random numbers, copies are compared in which it draws the same ones at each run.
    """
    random = _random_nodes(made)
    proof: dict[str, Any] = {**made.proof, **({RANDOM_DETAIL: list(random)} if random else {})}

    def comparable(path: Path) -> Path:
        return _seeded(path, directory) if random else path

    for name, (reference, result) in made.references.items() if trial.feeds else ():
        try:
            proof[name] = prove_close(comparable(reference), comparable(result), trial.feeds[:PROOF_INPUTS])
        except OperatorError as error:
            raise PassRefusal(f"{name}: {error}") from error
    if len(made.parts) > 1:
        parts, inputs = [comparable(part) for part in made.parts], _up_to(PROOF_INPUTS, calibration)
        # Each run draws other numbers than the one before it, so that all models must make the same runs.
        proof["composition"] = prove_equal(comparable(made.uncut), parts, inputs, extremes=not random)
    return proof


def _random_nodes(made: _PassOutput) -> tuple[str, ...]:
    """Return the nodes that draw random numbers in what passes made."""
    models = [read_model(path).model for path in (made.parts if made.details else ())]
    return tuple(name for model in models for name in Randomness(model).named(model.graph.node))


def _seeded(path: Path, directory: Path) -> Path:
    """Write a copy of a model whose random nodes draw the same numbers at each run."""
    copy = Path(tempfile.mkdtemp(dir=directory)) / path.name
    write_part(with_seeds(read_structure(read_model(path))), copy)
    return copy


def _run_beside(trial: Trial, made: _PassOutput) -> Mapping[str, Any]:
    """Run the result on the model's inputs and return the distance of its outputs; raise Refusal where it fails."""
    if not trial.feeds:
        return {NOT_VERIFIED: f"the model runs on no input that could be made up ({trial.obstacle})"}
    try:
        outputs = run_chain(made.parts, trial.feeds) if made.details else trial.outputs
    except NotRunnable as error:
        raise PassRefusal(f"what was made of the model fails where the model runs: {error}") from error
    return {DISTANCE_DETAIL: measure_distance(trial, outputs).as_details()}


def _collect(parts: Sequence[Path], target: Path) -> tuple[CachedFile, ...]:
    """Copy the parts into the artifact's directory; their external data follows after the last part."""
    names = {1: ["model"], 2: ["head", "tail"]}.get(len(parts)) or [f"part{index}" for index in range(len(parts))]
    files, data = [], []
    for name, part in zip(names, parts, strict=True):
        destination = target / f"{name}.onnx"
        if has_external_data(part):
            # Written again, because a model names its data file, and that name changes with the model's.
            write_part(whole(read_structure(read_model(part))), destination)
            if data_file(destination).exists():  # small tensors moved into the model
                data.append(_file(f"{name} data", data_file(destination)))
        else:
            shutil.copyfile(part, destination)
        # Data files come last, so that the index of a file is the index of its part.
        files.append(_file(name, destination))
    return (*files, *data)


def _as_stored(details: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the details as a reader of the manifest gets them, with lists for tuples."""
    stored: Mapping[str, Any] = json.loads(json.dumps(details))
    return stored


def _file(part: str, path: Path) -> CachedFile:
    return CachedFile(part, path.name, file_sha256(path), path.stat().st_size)


def count_graph(parts: Iterable[Path]) -> GraphSize:
    """Count the parameters and nodes of an artifact's model files together.

    Examples
    --------
    >>> from runner.subjects.embedded.datasets import BUILTIN
    >>> count_graph([BUILTIN / "fashion-resnet.onnx"]).nodes
    105
    """
    try:
        graphs = [read_model(part).graph for part in parts]
    except ModelFileError:
        # The engine may run what cannot be read here; that is no reason to refuse it.
        return GraphSize()
    return GraphSize(
        parameters=sum(_parameters(graph) for graph in graphs), nodes=sum(len(graph.node) for graph in graphs)
    )


def _parameters(graph: onnx.GraphProto) -> int:
    sparse = (tensor.dims for tensor in graph.sparse_initializer)
    return sum(map(_elements, (*(tensor.dims for tensor in graph.initializer), *sparse, *_constants(graph))))


def _constants(graph: onnx.GraphProto) -> Iterable[Sequence[int]]:
    """Yield the shapes of Constant nodes that hold a matrix or more: some exporters write weights so."""
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if len(attribute.t.dims) > 1:
                yield attribute.t.dims


def _elements(dims: Sequence[int]) -> int:
    # A scalar has no dimensions and one element.
    return math.prod(dims)


_KILLED = "probably for lack of memory; free some, or give the machine more"
_CRASHED = (
    "in the native code of ONNX, of ONNX Runtime or of a pass's tool; allowed: models and passes that these take. "
    "Export the model with another opset, or declare operators without this pass"
)


def build_apart(
    store: ArtifactStore,
    key: str,
    *,
    model: Path,
    passes: Sequence[Pass],
    calibration: CalibrationSource,
    key_of: KeyOfPasses | None = None,
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
        return store.build(key, model=model, passes=passes, calibration=calibration, key_of=key_of)

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
