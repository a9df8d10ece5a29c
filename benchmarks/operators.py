"""How fast partition and early exit are, file to files, beside ONNX's own tools and beside a plain copy.

    python -m benchmarks.operators [MODEL.onnx]

Without a model it builds one with the layers of `wide_resnet101_2` (484 MiB, random weights). Each job runs in a
process of its own: the times are those of the job without the imports (on a busy machine the CPU time is the fairer of
the two), the memory is the process's peak. ONNX's tools are given the tensor names that our analysis found, which the
study typed in by hand.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from runner.graph.analysis import analyse
from runner.graph.model_file import read_model
from runner.operators.base import Context
from runner.operators.early_exit import choose_exit
from runner.operators.partition import choose_cut
from runner.operators.registry import make_pass

_QUICK_REPEATS = 3
_NODES = 5_000


@dataclass(frozen=True)
class Cost:
    """What a job took."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def copy(model: Path, target: Path) -> None:
    shutil.copyfile(model, target / "copy.onnx")


def nothing(model: Path, target: Path) -> None:
    """The imports alone, for the memory they take."""


def partition(model: Path, target: Path) -> None:
    make_pass("partition", {}).apply([model], Context(target))


def early_exit(model: Path, target: Path) -> None:
    make_pass("early_exit", {}).apply([model], Context(target))


def analysis(model: Path, target: Path) -> None:
    analyse(model)


def onnx_partition(model: Path, target: Path) -> None:
    """The study's way: `extract_model` for each half."""
    graph = read_model(model).graph
    cut = [tensor.name for tensor in choose_cut(analyse(model)).tensors]
    started, ended = [value.name for value in graph.input], [value.name for value in graph.output]
    onnx.utils.extract_model(model, target / "head.onnx", started, cut)
    onnx.utils.extract_model(model, target / "tail.onnx", cut, ended)


def onnx_early_exit(model: Path, target: Path) -> None:
    """The study's way: `extract_model` before and after the skipped blocks, then `merge_models`."""
    graph = read_model(model).graph
    chosen = choose_exit(analyse(model), 2)
    started, ended = [value.name for value in graph.input], [value.name for value in graph.output]
    onnx.utils.extract_model(model, target / "before.onnx", started, [chosen.entry.name])
    onnx.utils.extract_model(model, target / "after.onnx", [chosen.result.name], ended)
    before, after = onnx.load(target / "before.onnx"), onnx.load(target / "after.onnx")
    merged = onnx.compose.merge_models(before, after, io_map=[(chosen.entry.name, chosen.result.name)])
    onnx.save(merged, target / "model.onnx")


JOBS: dict[str, Callable[[Path, Path], None]] = {
    job.__name__: job for job in (nothing, copy, partition, early_exit, onnx_partition, onnx_early_exit, analysis)
}


def measure(job: str, model: Path, *, repeats: int = 1) -> Cost:
    """Median time and largest peak of a job, each time in a fresh process."""
    costs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=model.parent) as target:
            command = [sys.executable, "-m", "benchmarks.operators", "--job", job, "--target", target, str(model)]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
        costs.append(Cost(**json.loads(result.stdout)))
    return Cost(
        median(cost.seconds for cost in costs),
        median(cost.cpu_seconds for cost in costs),
        max(cost.peak_mib for cost in costs),
    )


def run_job(job: str, model: Path, target: Path) -> Cost:
    started, busy = time.perf_counter(), time.process_time()
    JOBS[job](model, target)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - busy
    return Cost(seconds, cpu_seconds, _peak_mib())


def _peak_mib() -> float:
    """Of this program; what `getrusage` tells includes the parent's, which may have built the model."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def residual_network(stages: list[tuple[int, int, int]], *, side: int) -> onnx.ModelProto:
    """Bottleneck blocks (`count`, `width`, `channels` per stage), random weights, a ResNet's stem and head."""
    random = np.random.default_rng(0)
    nodes, weights = [], []

    def conv(source: str, name: str, shape: tuple[int, ...], stride: int = 1) -> str:
        weights.append(numpy_helper.from_array(random.standard_normal(shape, np.float32) * 0.01, f"{name}.weight"))
        weights.append(numpy_helper.from_array(np.zeros(shape[0], np.float32), f"{name}.bias"))
        padding = [shape[2] // 2] * 4
        nodes.append(
            helper.make_node(
                "Conv",
                [source, f"{name}.weight", f"{name}.bias"],
                [name],
                name=f"/{name}/Conv",
                kernel_shape=list(shape[2:]),
                pads=padding,
                strides=[stride, stride],
            )
        )
        return name

    def relu(source: str) -> str:
        nodes.append(helper.make_node("Relu", [source], [f"{source}.relu"], name=f"/{source}/Relu"))
        return f"{source}.relu"

    current, channels = relu(conv("input", "stem", (64, 3, 7, 7), 2)), 64
    for stage, (count, width, wide) in enumerate(stages):
        for block in range(count):
            name, stride = f"layer{stage}.{block}", 2 if block == 0 and stage else 1
            inner = relu(conv(current, f"{name}/conv1", (width, channels, 1, 1)))
            inner = relu(conv(inner, f"{name}/conv2", (width, width, 3, 3), stride))
            inner = conv(inner, f"{name}/conv3", (wide, width, 1, 1))
            around = conv(current, f"{name}/shortcut", (wide, channels, 1, 1), stride) if block == 0 else current
            nodes.append(helper.make_node("Add", [inner, around], [f"{name}/add"], name=f"/{name}/Add"))
            current, channels = relu(f"{name}/add"), wide
    nodes.append(helper.make_node("GlobalAveragePool", [current], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    weights.append(numpy_helper.from_array(random.standard_normal((1000, channels), np.float32), "fc.weight"))
    nodes.append(helper.make_node("Gemm", ["flat", "fc.weight"], ["output"], transB=1))
    graph = helper.make_graph(
        nodes, "residual",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1000])],
        weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def report(model: Path, scratch: Path) -> Iterator[str]:
    size = model.stat().st_size / (1 << 20)
    measure("copy", model)  # fills the page cache
    base, plain = measure("nothing", model), measure("copy", model, repeats=_QUICK_REPEATS)
    yield f"{model.name}: {size:.1f} MiB; a process with the imports alone peaks at {base.peak_mib:.0f} MiB"
    yield f"{'':22}{'time':>9}{'CPU time':>10}{'peak memory':>14}"
    yield _row("plain copy", plain)
    for name in ("partition", "early_exit"):
        ours, theirs = measure(name, model, repeats=_QUICK_REPEATS), measure(f"onnx_{name}", model)
        yield _row(name, ours)
        yield _row(f"{name}, onnx tools", theirs)
        faster, leaner = theirs.seconds / ours.seconds, theirs.cpu_seconds / ours.cpu_seconds
        yield (
            f"{'':22}{faster:.1f} × as fast ({leaner:.1f} × by CPU time), 1/{theirs.peak_mib / ours.peak_mib:.1f} of "
            f"the memory, {ours.seconds / plain.seconds:.2f} × the time of a plain copy"
        )
    many = scratch / "many.onnx"
    onnx.save(residual_network([(_NODES // 7, 8, 16)], side=16), many)
    analysis = analyse(many)
    quick = measure("analysis", many, repeats=_QUICK_REPEATS)
    yield _row(f"analysis, {analysis.node_count} nodes", quick)


def _row(name: str, cost: Cost) -> str:
    return f"{name:22}{cost.seconds:8.2f}s{cost.cpu_seconds:9.2f}s{cost.peak_mib:10.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(vars(run_job(arguments.job, arguments.model, arguments.target))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model or Path(scratch) / "wide_resnet101_2.onnx"
        if arguments.model is None:
            stages = [(3, 128, 256), (4, 256, 512), (23, 512, 1024), (3, 1024, 2048)]
            onnx.save(residual_network(stages, side=224), model)
        for line in report(model, Path(scratch)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
