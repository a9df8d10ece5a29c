"""What an import takes, beside its limits: `python -m benchmarks.imports`.

The committed evidence within 4 s of CPU, 36 000 rows within 3 s, a million rows within 10 s and 500 MB; each in a
process of its own, as `runner import` runs it. Prints the CPU seconds, the peak of memory and their ratios to the
limits. On a busy machine a CPU second does less: the last column divides by how much longer a fixed loop takes here
than on the machine that the limits were set on.
"""

import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
EVIDENCE = REPOSITORY / "catalogs" / "embedded-evidence.json.gz"
WHOLE, PARTED = (
    ("identity", "quantized", "early_exit", "quantized_early_exit"),
    ("partition", "quantized_early_exit_partition"),
)
SINGLE, ACROSS = ("mobile", "edge", "cloud"), ("mobile-edge", "edge-cloud", "mobile-cloud")
ROUNDS, INPUTS = 5, 100
# Ten million turns of a loop, in seconds, on the machine of the limits when nothing else runs.
LOOP_S = 0.55


@dataclass(frozen=True)
class Limit:
    """What an import may take."""

    cpu_s: float
    memory_bytes: float = 500e6


def study_rows(count: int, *, seed: int = 1) -> Iterator[str]:
    """Yield about as many CSV rows of the study's form: 72 strategies, 5 rounds, 100 inputs, the rest repetitions."""
    rng = random.Random(seed)
    pairs = [
        (name, place) for names, places in ((WHOLE, SINGLE), (PARTED, ACROSS)) for name in names for place in places
    ]
    repetitions = max(1, round(count / (4 * len(pairs) * ROUNDS * INPUTS)))
    yield "subject,operator,placement,input_id,repetition,latency_s,round\n"
    for subject in ("resnet", "resnext", "fcn", "duc"):
        for operator, placement in pairs:
            center = rng.uniform(0.005, 0.05)
            for number in range(1, ROUNDS + 1):
                for repetition in range(repetitions):
                    for item in range(INPUTS):
                        latency_s = center * rng.lognormvariate(0, 0.2)
                        yield f"{subject},{operator},{placement},{item:04d}.jpg,{repetition},{latency_s!r},{number}\n"


def import_of(file: Path, directory: Path) -> tuple[float, float]:
    """Import a file with the command; return the CPU seconds and the peak of memory of its process."""
    command = [sys.executable, "-m", "runner", "import", str(file), "-d", str(directory / f"{file.name}.db")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # The peak is of the largest child so far, so that files come in the order of their size.
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_maxrss * 1024.0


def slowness() -> float:
    """Return how much longer a fixed loop takes than on the machine of the limits."""
    started = time.process_time()
    sum(number * number for number in range(10**7))
    return (time.process_time() - started) / LOOP_S


def main() -> None:
    """Import each file and print the table."""
    table = Table("file", "CPU", "limit", "ratio", "corrected", "memory", "ratio")
    table.columns[0].no_wrap = True
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        files = {EVIDENCE: Limit(4.0)}
        for count, limit in ((36_000, Limit(3.0)), (1_000_000, Limit(10.0))):
            file = directory / f"{count}-rows.csv"
            with file.open("w", encoding="utf-8") as writing:
                writing.writelines(study_rows(count))
            files[file] = limit
        for file, limit in files.items():
            slower = slowness()
            cpu_s, memory_bytes = import_of(file, directory)
            table.add_row(
                file.name,
                f"{cpu_s:.1f} s",
                f"{limit.cpu_s:.0f} s",
                f"{cpu_s / limit.cpu_s:.2f}",
                f"{cpu_s / limit.cpu_s / slower:.2f}",
                f"{memory_bytes / 1e6:.0f} MB",
                f"{memory_bytes / limit.memory_bytes:.2f}",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
