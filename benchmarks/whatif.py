"""Prediction against measurement on other links: `python -m benchmarks.whatif`.

Ten minutes with Docker, `--rounds 1` half of it.

Measures one subject with the link edge-cloud at 1, 2, 5, 10, 50 and 200 Mbit/s, then predicts each rate from one other
rate alone and from all others together. Prints the relative errors of the median latency, how often the interval holds
what was measured, and how often the strategy that the predictions choose is within the margin of the best measured one.
Exit code 1 when a target is missed. `--database` keeps the measurements; what is there already is not measured again.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from catalog.evidence import open_database
from recommender.whatif import LinkedSamples, LinkRate, Prediction, StrategyParts, predict
from recommender.whatif_evidence import strategy_parts

RATES_MBIT = (1, 2, 5, 10, 50, 200)
LINK = "edge-cloud"
PERCENTILE = 50.0
MARGIN = 0.05
TARGETS = {"from the others": 0.05, "from one alone": 0.10}
CHOICE_TARGET = 0.95
CATALOG = """
version: 1
subjects: {{fashion-resnet: {{model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}}}}
operators:
  identity: []
  quantized: [static_ptq]
  partition: [{{partition: {{balance: size}}}}]
  quantized_early_exit_partition: [static_ptq, early_exit, partition]
tiers:
  mobile: {{cpus: 0.5, memory: 512m, provider: cpu}}
  edge: {{cpus: 1, memory: 1g, provider: cpu}}
  cloud: {{cpus: 2, memory: 4g, provider: cpu}}
links:
  mobile-edge: {{bandwidth: 200mbit}}
  edge-cloud: {{bandwidth: {rate}mbit}}
strategies:
  - {{operators: [identity, quantized], placements: [mobile, edge, cloud]}}
  - {{operators: [partition, quantized_early_exit_partition], placements: [edge-cloud, mobile-cloud]}}
experiment: {{inputs: {inputs}, select: random, seed: 1, rounds: {rounds}, repetitions: 1, warmup: 1}}
"""


@dataclass(frozen=True)
class Case:
    """One prediction beside what was measured."""

    kind: str
    strategy: str
    from_mbit: str
    to_mbit: float
    measured_s: float
    prediction: Prediction

    @property
    def error(self) -> float:
        """Relative."""
        return self.prediction.estimate_s / self.measured_s - 1

    @property
    def covered(self) -> bool | None:
        """Whether the interval holds what was measured; None without one."""
        low_s, high_s = self.prediction.low_s, self.prediction.high_s
        return None if low_s is None or high_s is None else low_s <= self.measured_s <= high_s


def fill(database: Path, *, launcher: str, inputs: int, rounds: int) -> None:
    """Measure every rate into one database; strategies off the link are measured once.

    Round by round over all rates, because a host that slows down between the first rate and the last would pass for an
    error of the model.
    """
    for number in range(1, rounds + 1):
        for rate in RATES_MBIT:
            catalog = database.with_suffix(f".{rate}mbit.yaml")
            catalog.write_text(CATALOG.format(rate=rate, inputs=inputs, rounds=number))
            command = [sys.executable, "-m", "runner", "fill-catalog", "-c", str(catalog), "-d", str(database)]
            subprocess.run([*command, "--launcher", launcher], check=False)


def measured_s(samples: LinkedSamples) -> float:
    """The percentile within each round, then the geometric mean."""
    rounds = np.unique(samples.round)
    return float(
        np.exp(
            np.mean([np.log(np.percentile(samples.latency_s[samples.round == each], PERCENTILE)) for each in rounds])
        )
    )


def mbit(samples: LinkedSamples) -> float:
    """The declared rate of the link."""
    return samples.declared[LINK].up_bit_per_s / 1e6


def cases_of(parts: StrategyParts) -> list[Case]:
    """Each setting from each other alone, and from all others."""
    name = f"{parts.operator}@{parts.placement}"
    cases = []
    for target in parts.evidence:
        rate = LinkRate(mbit(target) * 1e6, mbit(target) * 1e6)
        others = tuple(each for each in parts.evidence if each is not target)
        sources = [("from one alone", (each,)) for each in others] + [("from the others", others)]
        for kind, evidence in sources:
            found = predict(replace(parts, evidence=evidence), {LINK: rate}, PERCENTILE)
            assert isinstance(found, Prediction)
            origin = f"{mbit(evidence[0]):g}" if len(evidence) == 1 else "others"
            cases.append(Case(kind, name, origin, mbit(target), measured_s(target), found))
    return cases


def choices(unlinked: Sequence[StrategyParts], cases: Sequence[Case]) -> list[float]:
    """For each rate and origin: how much slower the strategy chosen by predictions is than the best measured one."""
    fixed = {f"{each.operator}@{each.placement}": measured_s(each.evidence[0]) for each in unlinked}
    excess = []
    for _, group in itertools.groupby(
        sorted(cases, key=lambda each: (each.to_mbit, each.from_mbit)), key=lambda each: (each.to_mbit, each.from_mbit)
    ):
        rows = list(group)
        known = {**fixed, **{row.strategy: row.measured_s for row in rows}}
        expected = {**fixed, **{row.strategy: row.prediction.estimate_s for row in rows}}
        excess.append(known[min(expected, key=expected.__getitem__)] / min(known.values()) - 1)
    return excess


def report(cases: Sequence[Case], unlinked: Sequence[StrategyParts]) -> bool:
    """Print the figures; true when all targets are met."""
    print("| from | to, Mbit/s | predictions | median error | largest | interval holds |")
    print("|---|--:|--:|--:|--:|--:|")
    met = True
    for kind, target in TARGETS.items():
        of_kind = [each for each in cases if each.kind == kind]
        for rate in (*RATES_MBIT, None):
            rows = [each for each in of_kind if rate in (None, each.to_mbit)]
            if not rows:
                continue
            errors = np.abs([each.error for each in rows])
            held = [each.covered for each in rows if each.covered is not None]
            share = f"{np.mean(held):.0%}" if held else "none"
            to = "all" if rate is None else str(rate)
            print(f"| {kind} | {to} | {len(rows)} | {np.median(errors):.1%} | {errors.max():.1%} | {share} |")
        overall = float(np.median(np.abs([each.error for each in of_kind])))
        print(f"\n{kind}: median error {overall:.1%}, target at most {target:.0%}\n")
        met = met and overall <= target
    everything = choices(unlinked, cases)
    met = met and float(np.mean(np.array(everything) <= MARGIN)) >= CHOICE_TARGET
    print_choices("among all strategies", everything)
    for kind in TARGETS:
        print_choices(
            f"among strategies over the link, {kind}", choices([], [each for each in cases if each.kind == kind])
        )
    return met


def print_choices(what: str, excess: Sequence[float]) -> None:
    """How often the chosen one was as good as the best."""
    near = float(np.mean(np.array(excess) <= MARGIN))
    print(f"choices {what}: {near:.1%} of {len(excess)} within {MARGIN:.0%} of the best; worst {max(excess):+.1%}")


def main() -> int:
    """Measure what is missing, predict, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", type=Path, help="keep the measurements here")
    parser.add_argument("--launcher", default="docker", choices=("docker", "process"))
    parser.add_argument("--inputs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print every case")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        database = (options.database or Path(scratch) / "whatif.db").resolve()
        fill(database, launcher=options.launcher, inputs=options.inputs, rounds=options.rounds)
        with open_database(str(database)) as opened, opened.session() as session:
            strategies = strategy_parts(session, "fashion-resnet", 1)
    linked = [each for each in strategies if LINK in each.links and len(each.evidence) > 1]
    cases = [case for each in linked for case in cases_of(each)]
    if options.json:
        rows = [{"kind": c.kind, "strategy": c.strategy, "from": c.from_mbit, "to": c.to_mbit} for c in cases]
        values = [{"measured_s": c.measured_s, "predicted_s": c.prediction.estimate_s, "error": c.error} for c in cases]
        print(json.dumps([row | value for row, value in zip(rows, values, strict=True)], indent=1))
    unlinked = [each for each in strategies if LINK not in each.links and each.evidence]
    return 0 if report(cases, unlinked) else 1


if __name__ == "__main__":
    sys.exit(main())
