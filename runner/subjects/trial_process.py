"""The other side of `trial`: a process that loads one model, runs it on one input, and prints the result.

It imports next to nothing of the runner, to be quick, may use no more memory than the machine has, and ends with the
runner.
"""

import json
import sys
from pathlib import Path

from runner.confinement import end_with, limit_memory
from tierserver.encoding import read_tensors
from tierserver.engine import Session
from tierserver.errors import TierError


def attempt(model: Path, file: Path) -> dict[str, object]:
    """Return name, type and shape of the first output, or the error."""
    limit_memory()
    try:
        session = Session(model, threads=1, providers=("CPUExecutionProvider",))
        names = [model_input.name for model_input in session.inputs]
        outputs = session.run(dict(zip(names, read_tensors(file.read_bytes()), strict=True)))
    except (TierError, ValueError, MemoryError) as error:
        return {"error": str(error) or "not enough memory"}
    name, first = next(iter(outputs.items()))
    return {"name": name, "dtype": str(first.dtype), "shape": list(first.shape)}


if __name__ == "__main__":
    end_with(int(sys.argv[3]))
    print(json.dumps(attempt(Path(sys.argv[1]), Path(sys.argv[2]))))
