"""How the time and the output of `runner operators --json` grow with the number of blocks.

`python -m benchmarks.operators_growth` analyses networks of equal residual blocks, with and without shapes that each
block computes, in this process. CPU time and bytes are compared with those of a third as many blocks: linear growth
gives a ratio of three.
"""

import contextlib
import io
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from runner.cli import app, run

_BLOCKS = (333, 1000, 3000)
_CHANNELS = 8


@dataclass(frozen=True)
class Measured:
    """One run of the command."""

    blocks: int
    cpu_s: float
    output_bytes: int


def write_network(path: Path, blocks: int, *, shapes: bool) -> Path:
    """Write equal residual blocks; with `shapes`, each reshapes to the shape of its input."""
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    current = "x"
    for block in range(blocks):
        for layer in ("a", "b"):
            kernel = random.normal(size=(_CHANNELS, _CHANNELS, 3, 3)).astype(np.float32)
            weights.append(numpy_helper.from_array(kernel, f"{block}.{layer}.weight"))
        inner, result = f"{block}/inner", f"{block}/result"
        nodes += [
            helper.make_node("Conv", [current, f"{block}.a.weight"], [f"{block}/a"], pads=[1] * 4),
            helper.make_node("Conv", [f"{block}/a", f"{block}.b.weight"], [inner], pads=[1] * 4),
        ]
        if shapes:
            nodes.append(helper.make_node("Shape", [current], [f"{block}/shape"]))
            nodes.append(helper.make_node("Reshape", [inner, f"{block}/shape"], [f"{block}/shaped"]))
            inner = f"{block}/shaped"
        nodes.append(helper.make_node("Add", [inner, current], [result]))
        current = result
    size = (1, _CHANNELS, "height", "width")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name in ("x", current))
    graph = helper.make_graph(nodes, "blocks", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def measure(folder: Path, blocks: int, *, shapes: bool) -> Measured:
    """Analyse a network of so many blocks with the command."""
    model = write_network(folder / f"{blocks}.onnx", blocks, shapes=shapes)
    printed = io.StringIO()
    started = time.process_time()
    with contextlib.redirect_stdout(printed):
        code = run(lambda: app(["operators", str(model), "--json"]))
    cpu_s = time.process_time() - started
    if code:
        raise SystemExit(f"runner operators ended with {code}")
    return Measured(blocks, cpu_s, len(printed.getvalue()))


def compared(now: Measured, before: Measured) -> str:
    """Return the ratios of two runs."""
    ratios = (now.cpu_s / before.cpu_s, now.output_bytes / before.output_bytes, now.blocks / before.blocks)
    return "time x {:.2f}, output x {:.2f}, blocks x {:.2f}".format(*ratios)


def main() -> None:
    """Print a line for each number of blocks, with the ratios to the one before."""
    with tempfile.TemporaryDirectory() as folder:
        # Modules are imported by the first run, which counts for nothing.
        measure(Path(folder), 3, shapes=False)
        for shapes in (False, True):
            before: Measured | None = None
            for blocks in _BLOCKS:
                now = measure(Path(folder), blocks, shapes=shapes)
                kind = "blocks with shapes" if shapes else "blocks"
                ratios = f" ({compared(now, before)})" if before else ""
                print(f"{blocks} {kind}: {now.cpu_s:.2f} s, {now.output_bytes / 2**20:.2f} MiB{ratios}", flush=True)
                before = now


if __name__ == "__main__":
    main()
