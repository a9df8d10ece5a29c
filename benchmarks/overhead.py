"""Where the time of rounds goes, of two versions beside each other: `python -m benchmarks.overhead OLD NEW`.

OLD and NEW are source trees of this project, such as work trees of two commits; NEW may be `.`. Both measure the same
inputs of the same strategies with Docker, in turns of a few rounds, so that a slow change of the machine meets both.
`--warmup` is how NEW warms up, `--old-warmup` how OLD does. Two tables are printed: seconds per round and the share
of it that measures; and whether the versions measure the same, by the ratio of their medians with its interval and by
the spread between rounds.

The evidence stays in `--into`, so that a run can be continued or printed again (`--turns 0`). A turn takes a minute.
"""

import argparse
import json
import math
import os
import sqlite3
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import scipy.stats
from rich.console import Console
from rich.table import Table

PLACEMENTS = ("mobile", "edge", "mobile-edge", "cloud", "edge-cloud", "mobile-cloud")
CATALOG = """\
version: 1
subjects:
  fashion-resnet: {{model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}}
operators: {{identity: [], partition: [{{partition: {{balance: size}}}}]}}
tiers:
  mobile: {{cpus: 0.5, memory: 512m, provider: cpu}}
  edge: {{cpus: 1, memory: 1g, provider: cpu}}
  cloud: {{cpus: 2, memory: 4g, provider: cpu}}
links: {{mobile-edge: {{bandwidth: 200mbit}}, edge-cloud: {{bandwidth: 10mbit}}}}
strategies:
  - {{operators: [identity], placements: [mobile, edge, cloud]}}
  - {{operators: [partition], placements: [mobile-edge, edge-cloud, mobile-cloud]}}
experiment: {{inputs: 30, select: random, seed: 1, rounds: {rounds}, repetitions: 1, warmup: {warmup}}}
"""


@dataclass(frozen=True)
class Version:
    """A source tree, how it warms up, and the directory of its evidence."""

    name: str
    tree: Path
    warmup: str
    directory: Path

    @property
    def database(self) -> Path:
        return self.directory / "tierwise.db"

    def measure(self, rounds: int) -> None:
        """Fill up to so many rounds; other exit codes than 0 are of rounds that were not valid, and are counted."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "strategies.yaml").write_text(CATALOG.format(rounds=rounds, warmup=self.warmup))
        command = [sys.executable, "-m", "runner", "fill-catalog", "--launcher", "docker"]
        environment = {**os.environ, "PYTHONPATH": str(self.tree.resolve())}
        subprocess.run(command, cwd=self.directory, env=environment, check=False, stderr=subprocess.DEVNULL)


@dataclass(frozen=True)
class MeasuredRound:
    """One strategy in one round: seconds of its parts, and the median of its samples."""

    placement: str
    whole_s: float
    samples_s: float
    warmup_s: float
    probing_s: float
    median_s: float

    @property
    def rest_s(self) -> float:
        return self.whole_s - self.samples_s - self.warmup_s - self.probing_s


def main() -> int:
    """Measure in turns, then print both tables."""
    parser = argparse.ArgumentParser(description="Where the time of rounds goes, of two versions.")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--turns", type=int, default=5, help="further turns of each version; 0 prints only")
    parser.add_argument("--rounds", type=int, default=2, help="of a turn: what a fill does once falls upon them")
    parser.add_argument("--warmup", default="steady", help="of the new version: steady, or passes over all inputs")
    parser.add_argument("--old-warmup", default="1", help="of the old version; default: one pass over all inputs")
    parser.add_argument("--into", type=Path, default=Path(".tierwise/overhead"))
    options = parser.parse_args()
    for tree in (options.old, options.new):
        # Python would fall back on the installed package, and compare that with itself.
        if not (tree / "runner/__init__.py").is_file():
            parser.error(f"{tree} is no source tree of this project; make one with: git worktree add PATH COMMIT")
    versions = [
        Version("old", options.old, options.old_warmup, options.into / "old"),
        Version("new", options.new, options.warmup, options.into / "new"),
    ]
    done = min(_rounds_done(version) for version in versions)
    for turn in range(options.turns):
        last_round = done + (turn + 1) * options.rounds
        # The order changes from turn to turn, so that neither always follows the other.
        for version in reversed(versions) if last_round // options.rounds % 2 else versions:
            version.measure(last_round)
    rounds = {version.name: read_rounds(version.database) for version in versions}
    console = Console()
    console.print(overhead_table(rounds))
    console.print(agreement_table(rounds))
    return 0


def _rounds_done(version: Version) -> int:
    if not version.database.exists():
        return 0
    with closing(sqlite3.connect(version.database)) as database:
        return int(database.execute("SELECT COALESCE(MAX(round), 0) FROM measurement").fetchone()[0])


def read_rounds(path: Path) -> list[MeasuredRound]:
    """Return all complete measurements, the INVALID ones too: they took their time as well."""
    query = "SELECT id, placement, started_at, finished_at, window_s, warmup_latency_s, probing_s FROM measurement"
    with closing(sqlite3.connect(path)) as database:
        latencies: dict[int, list[float]] = defaultdict(list)
        for number, latency_s in database.execute("SELECT measurement_id, latency_s FROM sample"):
            latencies[number].append(latency_s)
        rows = database.execute(f"{query} WHERE status = 'complete' ORDER BY id").fetchall()
    return [
        MeasuredRound(
            placement=placement,
            whole_s=(datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds(),
            samples_s=window_s,
            warmup_s=sum(json.loads(warmup)),
            probing_s=probing_s,
            median_s=statistics.median(latencies[number]),
        )
        for number, placement, started, finished, window_s, warmup, probing_s in rows
    ]


def overhead_table(rounds: dict[str, list[MeasuredRound]]) -> Table:
    """Return the mean seconds per round of each placement, old → new."""
    table = Table(title="seconds per round, old → new", title_justify="left")
    for heading in ("placement", "rounds", "whole", "samples", "warm-up", "probing", "start, stop, the rest", "share"):
        table.add_column(heading, justify="left" if heading == "placement" else "right")
    for placement in (*PLACEMENTS, "all"):
        chosen = [_of(rounds[name], placement) for name in ("old", "new")]
        parts = ("whole_s", "samples_s", "warmup_s", "probing_s", "rest_s")
        cells = [" → ".join(f"{_mean(members, part):.2f}" for members in chosen) for part in parts]
        shares = [_mean(members, "samples_s") / _mean(members, "whole_s") for members in chosen]
        counts = " → ".join(str(len(members)) for members in chosen)
        table.add_row(placement, counts, *cells, " → ".join(f"{share:.0%}" for share in shares))
    return table


def agreement_table(rounds: dict[str, list[MeasuredRound]]) -> Table:
    """Return whether both versions measure the same: medians, their ratio, and how far rounds lie apart."""
    table = Table(title="the same latencies? medians of 30 inputs over rounds", title_justify="left")
    for heading in ("placement", "old", "new", "new / old (95 %)", "between rounds, old", "new", "p (variances)"):
        table.add_column(heading, justify="left" if heading == "placement" else "right")
    for placement in PLACEMENTS:
        if min(len(_of(members, placement)) for members in rounds.values()) < 2:  # no spread to show
            continue
        old, new = ([math.log(member.median_s) for member in _of(rounds[name], placement)] for name in ("old", "new"))
        interval = scipy.stats.ttest_ind(new, old, equal_var=False).confidence_interval(0.95)
        ratio = math.exp(statistics.mean(new) - statistics.mean(old))
        bounds = f"{math.exp(interval.low):.3f}–{math.exp(interval.high):.3f}"
        table.add_row(
            placement,
            *(f"{1000 * math.exp(statistics.mean(values)):.2f} ms" for values in (old, new)),
            f"{ratio:.3f} ({bounds})",
            *(f"{100 * statistics.stdev(values):.1f} %" for values in (old, new)),
            # Brown and Forsythe: deviations from the median, so that one odd round does not decide.
            f"{scipy.stats.levene(old, new, center='median').pvalue:.2f}",
        )
    return table


def _of(rounds: Sequence[MeasuredRound], placement: str) -> list[MeasuredRound]:
    return [member for member in rounds if placement in ("all", member.placement)]


def _mean(rounds: Sequence[MeasuredRound], part: str) -> float:
    return statistics.mean(getattr(member, part) for member in rounds)


if __name__ == "__main__":
    sys.exit(main())
