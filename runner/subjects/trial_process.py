"""The other side of `trial`: a process that loads one model, runs it on one input, and prints the result.

It imports nothing of the runner, to be quick, may use no more memory than the machine has, and ends with the runner.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path

from tierserver.encoding import read_tensors
from tierserver.engine import Session
from tierserver.errors import TierError


def attempt(model: Path, file: Path) -> dict[str, object]:
    """Return name, type and shape of the first output, or the error."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # A larger allocation fails with MemoryError; without the limit the kernel might kill any other process.
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        session = Session(model, threads=1, providers=("CPUExecutionProvider",))
        names = [model_input.name for model_input in session.inputs]
        outputs = session.run(dict(zip(names, read_tensors(file.read_bytes()), strict=True)))
    except (TierError, ValueError, MemoryError) as error:
        return {"error": str(error) or "not enough memory"}
    name, first = next(iter(outputs.items()))
    return {"name": name, "dtype": str(first.dtype), "shape": list(first.shape)}


def end_with(parent: int) -> None:
    """Let the kernel (Linux) kill this process when its parent ends; exit at once if the parent has ended already."""
    if sys.platform == "linux":
        # 1 is PR_SET_PDEATHSIG (prctl(2)).
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    # A parent that ended before that call sends no signal any more.
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    end_with(int(sys.argv[3]))
    print(json.dumps(attempt(Path(sys.argv[1]), Path(sys.argv[2]))))
