"""One trial run of a model in a separate process: its first output, or why the runtime does not run it.

A model may name operators that this runtime lacks, need more memory than there is, or crash the engine; none of
that may end the runner. The answer is kept beside the built models, under a hash of what it depends on.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.confinement import memory_advice
from runner.errors import SubjectError
from runner.graph.model_digest import model_sha256
from runner.graph.runtime import REMEDY
from runner.model_process import NoAnswerInTimeError, call
from runner.sealed import remove, seal, unseal
from runner.workdir import scratch, settle
from tierserver.engine import VERSION

_DEADLINE_S = 300.0
_FUNCTION = "runner.subjects.trial_process:attempt"


@dataclass(frozen=True)
class ModelOutput:
    """The output of a run that is judged: the first one that is no state."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def try_out(model: Path, encoded: bytes, kept: Path, *, output: str | None = None) -> ModelOutput:
    """Run the model on encoded tensors once; raise SubjectError with the runtime's reason.

    Returns
    -------
    ModelOutput
        The first output, or the one that is named.
    """
    determining = [VERSION, model_sha256(model), hashlib.sha256(encoded).hexdigest(), *filter(None, [output])]
    key = hashlib.sha256(" ".join(determining).encode()).hexdigest()
    answer = kept / "tried" / key
    sealed = unseal(answer, key, names=())
    stored = None if sealed is None else _output(sealed.content)
    if stored is not None:
        return stored
    remove(answer)
    # Sealed in a directory of its own and then renamed, so that a killed run leaves no half answer.
    with scratch(kept) as directory:
        answered = _ask(model, encoded, directory / "input", output)
        (directory / key).mkdir()
        seal(directory / key, key, (), answered)
        settle(directory / key, answer)
    tried = _output(answered)
    assert tried is not None
    return tried


def _output(answered: Mapping[str, Any]) -> ModelOutput | None:
    """Return the output that an answer describes; None where a stored one describes none."""
    name, dtype, shape = answered.get("name"), answered.get("dtype"), answered.get("shape")
    sizes = isinstance(shape, list) and all(isinstance(size, int) for size in shape)
    if not (isinstance(name, str) and isinstance(dtype, str) and isinstance(shape, list) and sizes):
        return None
    return ModelOutput(name, dtype, tuple(shape))


def _ask(model: Path, encoded: bytes, file: Path, output: str | None) -> dict[str, object]:
    file.write_bytes(encoded)
    try:
        process = call(_FUNCTION, (str(model.absolute()), str(file.absolute()), output), deadline_s=_DEADLINE_S)
    except NoAnswerInTimeError as error:
        raise SubjectError(
            f"{model.name} gave no answer to one input in {_DEADLINE_S:g} s; allowed: a model that gives one. "
            "Look for a loop without end in it, and export it again"
        ) from error
    answered: dict[str, object] | None = process.answer
    if answered is None:
        if advice := memory_advice(process.stderr):
            raise SubjectError(f"{model.name} could not be run once: {advice}")
        raise SubjectError(
            f"{model.name} crashes ONNX Runtime {VERSION} ({process.ending}); allowed: a model that it runs. "
            "Export it again, or with another opset"
        )
    if "error" in answered:
        if advice := memory_advice(str(answered["error"])):
            raise SubjectError(f"{model.name} could not be run once: {advice}")
        raise SubjectError(f"{answered['error']}; {_advice(str(answered['error']))}")
    return answered


def _advice(error: str) -> str:
    """Return what is allowed and what to do: about the input where the model ran on it, else about the model."""
    # Of an input or output that is a sequence, a map or text, the engine lists what it takes instead.
    if "; served are " in error:
        return f"allowed: models whose inputs and outputs are such tensors. {REMEDY}"
    # A model that needs more memory than there is says so only when it runs.
    if error.startswith("the model cannot run on this input") and "allocate memory" not in error:
        return (
            "allowed: inputs of a size and of values that the model was made for. Give other data, or declare another "
            "size of pictures, such as preprocess: {size: [320, 320]}"
        )
    return (
        f"allowed: operators and an opset that ONNX Runtime {VERSION} runs, in the memory of this machine. Export the "
        "model with another opset, or install a newer onnxruntime"
    )
