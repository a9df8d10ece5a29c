"""What the process of `trial` does: load one model and run it on one input, in no more memory than the machine has.

It imports next to nothing of the runner, to be quick.
"""

from pathlib import Path

from runner.model_process import limit_memory
from tierserver.encoding import read_tensors
from tierserver.engine import Session
from tierserver.errors import TierError


def attempt(model: str, file: str, output: str | None) -> dict[str, object]:
    """Return name, type and shape of the first output or of the named one, or the error."""
    limit_memory()
    try:
        session = Session(Path(model), threads=1, providers=("CPUExecutionProvider",))
        names = [model_input.name for model_input in session.inputs]
        outputs = session.run(dict(zip(names, read_tensors(Path(file).read_bytes()), strict=True)))
    except (TierError, ValueError, MemoryError) as error:
        return {"error": str(error) or "not enough memory"}
    name = output or next(iter(outputs))
    return {"name": name, "dtype": str(outputs[name].dtype), "shape": list(outputs[name].shape)}
