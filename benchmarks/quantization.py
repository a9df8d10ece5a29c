"""Compare the quantizing tools on the embedded subjects: size, accuracy on all validation items, and latency.

    .venv/bin/python benchmarks/quantization.py [--rounds 15] [--markdown]

Latency is one ONNX Runtime session with one thread and no other load of ours; the variants of a subject take turns in
every round, in shuffled order, so that drift of the machine hits all of them alike. The first run with
neural-compressor makes its environment under .tierwise.
"""

import argparse
import itertools
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from runner.artifacts import ArtifactStore
from runner.host import this_host, versions
from runner.operators import make_pass
from runner.operators.quantizers import neural_compressor
from runner.subjects import Subject, resolve_subject
from runner.subjects.registry import BUILTIN, SUBJECTS
from runner.subjects.scoring import score
from runner.subjects.shipping import shipped_items
from tierserver.imaging import preprocess
from tierserver.messages import Preprocess

_TOOLS = ("onnxruntime", "neural-compressor")
_FORMATS = ("qdq", "qoperator")
_RUNS_PER_ROUND = 20
_COLUMNS = ("subject", "tool", "format", "weights", "size", "of float", "metric", "change", "latency", "of float")


@dataclass
class Variant:
    """One artifact of a subject and what was found about it; the first of a subject is the float model."""

    options: Mapping[str, object] | None
    path: Path
    accuracy_pct: float
    latencies_s: list[float] = field(default_factory=list)

    @property
    def latency_s(self) -> float:
        return statistics.median(self.latencies_s)

    def row(self, subject: str, identity: "Variant") -> tuple[str, ...]:
        low, _, high = (1e3 * value for value in statistics.quantiles(self.latencies_s, n=4))
        options = self.options or {}
        size, whole = self.path.stat().st_size, identity.path.stat().st_size
        return (
            subject,
            str(options.get("tool", "(float)")),
            str(options.get("format", "")),
            "float" if self.options is None else "7 bit" if options["reduce_range"] else "8 bit",
            f"{size / 2**20:.3f} MiB",
            f"{size / whole:.3f}",
            f"{self.accuracy_pct:.2f} %",
            f"{self.accuracy_pct - identity.accuracy_pct:+.2f}",
            f"{1e3 * self.latency_s:.2f} ({low:.2f}–{high:.2f}) ms",
            f"{self.latency_s / identity.latency_s:.2f}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help=f"rounds of {_RUNS_PER_ROUND} timed runs per variant")
    parser.add_argument("--workdir", type=Path, default=Path(".tierwise"))
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    arguments = parser.parse_args()
    host, tool = this_host(), neural_compressor.versions()["neural-compressor"]
    print(
        f"{host.cpu_model}, {'with' if host.vnni else 'without'} VNNI, {host.cpu_count} CPUs; "
        f"onnxruntime {versions()['onnxruntime']}, neural-compressor {tool}"
    )
    rows: list[tuple[str, ...]] = []
    for model in SUBJECTS:
        rows += _compare(model, ArtifactStore(arguments.workdir / "artifacts"), arguments.rounds)
    _print(rows, markdown=arguments.markdown)


def _compare(model: str, store: ArtifactStore, rounds: int) -> list[tuple[str, ...]]:
    family = SUBJECTS[model]
    subject = resolve_subject(model.removeprefix("builtin:"), model, family.dataset, family.task, Path())
    variants = [_variant(subject, model, store, None)]
    for tool, format, reduce_range in itertools.product(_TOOLS, _FORMATS, (False, True)):
        print(f"{subject.name}: {tool} {format} reduce_range={reduce_range}", file=sys.stderr)
        options = {"tool": tool, "format": format, "reduce_range": reduce_range}
        variants.append(_variant(subject, model, store, options))
    print(f"{subject.name}: latency", file=sys.stderr)
    _time(variants, _inputs(subject, 8), rounds)
    return [variant.row(subject.name, variants[0]) for variant in variants]


def _variant(subject: Subject, model: str, store: ArtifactStore, options: Mapping[str, object] | None) -> Variant:
    """Build and score one variant."""
    passes = [] if options is None else [make_pass("static_ptq", options)]
    key = "benchmark-quantization-" + "-".join([subject.name, *(str(value) for value in (options or {}).values())])
    path = store.build(key, model=subject.model, passes=passes, calibration=lambda n: _inputs(subject, n)).path(0)
    segmentation = subject.task == "segmentation"
    found = score(path, shipped_items(BUILTIN, segmentation=segmentation), SUBJECTS[model])
    return Variant(options, path, found["miou_pct" if segmentation else "top1_pct"])


def _inputs(subject: Subject, count: int) -> list[NDArray[np.generic]]:
    settings = Preprocess.from_json(subject.preprocess)
    return [preprocess(image, settings) for image in subject.dataset.calibration(count)]


def _time(variants: Sequence[Variant], inputs: Sequence[NDArray[np.generic]], rounds: int) -> None:
    """One median per variant and round."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [
        onnxruntime.InferenceSession(str(variant.path), options, providers=["CPUExecutionProvider"])
        for variant in variants
    ]
    order = list(range(len(variants)))
    for number in range(rounds + 1):
        random.Random(number).shuffle(order)
        for index in order:
            median = statistics.median(_durations(sessions[index], inputs))
            if number > 0:  # the first round warms up
                variants[index].latencies_s.append(median)


def _durations(session: onnxruntime.InferenceSession, inputs: Sequence[NDArray[np.generic]]) -> list[float]:
    name = session.get_inputs()[0].name
    durations = []
    for image in itertools.islice(itertools.cycle(inputs), _RUNS_PER_ROUND):
        started = time.perf_counter()
        session.run(None, {name: image})
        durations.append(time.perf_counter() - started)
    return durations


def _print(rows: Sequence[Sequence[str]], *, markdown: bool) -> None:
    if markdown:
        for line in (_COLUMNS, ["---"] * len(_COLUMNS), *rows):
            print(f"| {' | '.join(line)} |")
        return
    table = Table(*_COLUMNS, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
