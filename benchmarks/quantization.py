"""Compare the quantizing tools on the embedded subjects: size, accuracy on all validation items, and latency.

    .venv/bin/python -m benchmarks.quantization [--rounds 15] [--no-accuracy] [--markdown]

Latency is one ONNX Runtime session with one thread; the variants of a subject take turns in every round, in shuffled
order, so that drift of the machine hits all of them alike. CPU time is that of the calling thread, which computes:
where it is well below the latency, the machine was busy with something else, and CPU time is the one to compare.
Artifacts are kept under .tierwise; the first run with neural-compressor makes its environment there.
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

from catalog.keys import artifact_key
from runner.artifacts.calibration import subject_calibration
from runner.artifacts.store import ArtifactStore
from runner.graph.model_digest import model_sha256
from runner.host import this_host, versions
from runner.operators.quantizers import neural_compressor
from runner.operators.registry import make_pass
from runner.subjects.dataset import Subject
from runner.subjects.embedded.datasets import BUILTIN, SUBJECTS, resolve_subject
from runner.subjects.training.ship import score, shipped_items

_TOOLS = ("onnxruntime", "neural-compressor")
_FORMATS = ("qdq", "qoperator")
_RUNS_PER_ROUND = 20
_COLUMNS = (
    "subject", "tool", "format", "weights", "size", "of float", "metric", "change", "latency", "CPU time", "of float"
)  # fmt: skip


@dataclass
class Variant:
    """One artifact of a subject and what was found about it; the first of a subject is the float model."""

    options: Mapping[str, object] | None
    path: Path
    accuracy_pct: float | None
    latencies_s: list[float] = field(default_factory=list)
    cpu_times_s: list[float] = field(default_factory=list)

    def row(self, subject: str, identity: "Variant") -> tuple[str, ...]:
        options = self.options or {}
        size, whole = self.path.stat().st_size, identity.path.stat().st_size
        judged = self.accuracy_pct is not None and identity.accuracy_pct is not None
        ratio = statistics.median(self.cpu_times_s) / statistics.median(identity.cpu_times_s)
        return (
            subject,
            str(options.get("tool", "(float)")),
            str(options.get("format", "")),
            "float" if self.options is None else "7 bit" if options["reduce_range"] else "8 bit",
            f"{size / 2**20:.3f} MiB",
            f"{size / whole:.3f}",
            f"{self.accuracy_pct:.2f} %" if judged else "",
            f"{self.accuracy_pct - identity.accuracy_pct:+.2f}" if judged else "",
            _quartiles(self.latencies_s),
            _quartiles(self.cpu_times_s),
            f"{ratio:.2f}",
        )


def _quartiles(seconds: Sequence[float]) -> str:
    low, middle, high = (1e3 * value for value in statistics.quantiles(seconds, n=4))
    return f"{middle:.2f} ({low:.2f}–{high:.2f}) ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help=f"rounds of {_RUNS_PER_ROUND} timed runs per variant")
    parser.add_argument("--workdir", type=Path, default=Path(".tierwise"))
    parser.add_argument("--no-accuracy", action="store_true", help="sizes and latencies only")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    arguments = parser.parse_args()
    host, tool = this_host(), neural_compressor.versions()["neural-compressor"]
    print(
        f"{host.cpu_model}, {'with' if host.vnni else 'without'} VNNI, {host.cpu_count} CPUs; "
        f"onnxruntime {versions()['onnxruntime']}, neural-compressor {tool}"
    )
    rows: list[tuple[str, ...]] = []
    for model in SUBJECTS:
        store = ArtifactStore(arguments.workdir / "artifacts")
        rows += _compare(model, store, rounds=arguments.rounds, accuracy=not arguments.no_accuracy)
    _print(rows, markdown=arguments.markdown)


def _compare(model: str, store: ArtifactStore, *, rounds: int, accuracy: bool) -> list[tuple[str, ...]]:
    family = SUBJECTS[model]
    subject = resolve_subject(model.removeprefix("builtin:"), model, family.dataset, family.task)
    variants = [Variant(None, subject.model, None)]
    for tool, format, reduce_range in itertools.product(_TOOLS, _FORMATS, (False, True)):
        print(f"{subject.name}: {tool} {format} reduce_range={reduce_range}", file=sys.stderr)
        options = {"tool": tool, "format": format, "reduce_range": reduce_range}
        variants.append(Variant(options, _built(subject, store, options), None))
    if accuracy:
        print(f"{subject.name}: accuracy", file=sys.stderr)
        metric = "miou_pct" if subject.task == "segmentation" else "top1_pct"
        items = shipped_items(BUILTIN, segmentation=subject.task == "segmentation")
        for variant in variants:
            variant.accuracy_pct = score(variant.path, items, family)[metric]
    print(f"{subject.name}: latency", file=sys.stderr)
    # The embedded models have one input, which is an array.
    inputs = [sample for sample in subject_calibration(subject)(8) if not isinstance(sample, tuple)]
    _time(variants, inputs, rounds)
    return [variant.row(subject.name, variants[0]) for variant in variants]


def _built(subject: Subject, store: ArtifactStore, options: Mapping[str, object]) -> Path:
    """The artifact, from the cache if it is there."""
    step = make_pass("static_ptq", options)
    key = artifact_key(
        model_sha256=model_sha256(subject.model),
        passes=[{"name": step.name, "options": dict(step.options())}],
        pass_versions={step.name: step.version},
        calibration_fingerprint=subject.dataset.fingerprint(),
        tools={name: versions()[name] for name in ("onnx", "onnxruntime")},
    )
    artifact = store.find(key) or store.build(
        key, model=subject.model, passes=[step], calibration=subject_calibration(subject)
    )
    return artifact.path(0)


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
            _time_once(sessions[index], variants[index], inputs)
    for variant in variants:  # the first round warmed up
        del variant.latencies_s[0], variant.cpu_times_s[0]


def _time_once(session: onnxruntime.InferenceSession, variant: Variant, inputs: Sequence[NDArray[np.generic]]) -> None:
    name = session.get_inputs()[0].name
    latencies, cpu_times = [], []
    for image in itertools.islice(itertools.cycle(inputs), _RUNS_PER_ROUND):
        started, cpu_started = time.perf_counter(), time.thread_time()
        session.run(None, {name: image})
        cpu_times.append(time.thread_time() - cpu_started)
        latencies.append(time.perf_counter() - started)
    variant.latencies_s.append(statistics.median(latencies))
    variant.cpu_times_s.append(statistics.median(cpu_times))


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
