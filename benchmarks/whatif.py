"""Prediction against measurement on other links: `python -m benchmarks.whatif`.

Twenty minutes with Docker; `--rounds 1 --fast-rounds 1` takes five.

Measures one subject with the link edge-cloud at 1, 2, 5, 10, 50 and 200 Mbit/s, then predicts each rate from one other
rate alone and from all others together. Prints the relative errors of the median latency, how often the interval holds
what was measured, and how often the strategy that the predictions choose is within the margin of the best measured one:
by the measured medians as they are, and by what they can tell. The median of two or three rounds is not the truth, and
where several strategies are within its noise the best of them is partly luck: on the fast links, where a millisecond
more or less decides, more rounds are measured. Beside that, a choice is counted as refuted only when it is slower than
the margin allows beyond what the rounds differ by among themselves. Exit code 1 when a target is missed: errors, and
the choices among all strategies by the measured medians as they are.
`--database` keeps the measurements; what is there already is not measured again.
"""

import argparse
import itertools
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import special

from catalog.evidence.database import open_database
from catalog.evidence.link_samples import linked_strategies
from recommender.whatif import LinkedSamples, LinkedStrategy, LinkRate, Prediction, predict

RATES_MBIT = (1, 2, 5, 10, 50, 200)
FAST_MBIT = 50
LINK = "edge-cloud"
PERCENTILE = 50.0
MARGIN = 0.05
TARGETS = {"from the others": 0.05, "from one alone": 0.10}
CHOICE_TARGET = 0.95
CONFIDENCE = 0.95
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


def fill(database: Path, *, launcher: str, inputs: int, rounds: int, fast_rounds: int) -> None:
    """Measure every rate into one database; strategies off the link are measured once.

    Round by round over all rates, because a host that slows down between the first rate and the last would pass for an
    error of the model.
    """
    for number in range(1, max(rounds, fast_rounds) + 1):
        for rate in RATES_MBIT:
            if number > (fast_rounds if rate >= FAST_MBIT else rounds):
                continue
            catalog = database.with_suffix(f".{rate}mbit.yaml")
            catalog.write_text(CATALOG.format(rate=rate, inputs=inputs, rounds=number))
            command = [sys.executable, "-m", "runner", "fill-catalog", "-c", str(catalog), "-d", str(database)]
            subprocess.run([*command, "--launcher", launcher], check=False)


def by_round(samples: LinkedSamples) -> list[float]:
    """Return the log of the percentile within each round."""
    latency, number = samples.latency_s, samples.round
    return [math.log(np.percentile(latency[number == one_round], PERCENTILE)) for one_round in np.unique(number)]


def measured_s(samples: LinkedSamples) -> float:
    """Take the percentile within each round, then the geometric mean."""
    return math.exp(float(np.mean(by_round(samples))))


def mbit(samples: LinkedSamples) -> float:
    """Return the declared rate of the link."""
    return samples.declared[LINK].up_bit_per_s / 1e6


def cases_of(parts: LinkedStrategy) -> list[Case]:
    """Predict each setting from each other alone, and from all others."""
    name = f"{parts.operator}@{parts.placement}"
    cases = []
    for target in parts.evidence:
        rate = LinkRate(mbit(target) * 1e6, mbit(target) * 1e6)
        others = tuple(other for other in parts.evidence if other is not target)
        sources = [("from one alone", (other,)) for other in others] + [("from the others", others)]
        for kind, evidence in sources:
            prediction = predict(replace(parts, evidence=evidence), {LINK: rate}, PERCENTILE)
            assert isinstance(prediction, Prediction)
            origin = f"{mbit(evidence[0]):g}" if len(evidence) == 1 else "others"
            cases.append(Case(kind, name, origin, mbit(target), measured_s(target), prediction))
    return cases


@dataclass(frozen=True)
class Choice:
    """A strategy chosen by predictions, against the best measured one.

    `excess` is how much slower it was measured; `noise` by how much the rounds alone may make it seem so.
    """

    to_mbit: float
    from_mbit: str
    excess: float
    noise: float

    @property
    def near(self) -> bool:
        """By the measured medians as they are."""
        return self.excess <= MARGIN

    @property
    def not_refuted(self) -> bool:
        """By what the measurements can tell: not significantly slower than the margin allows."""
        return math.log1p(self.excess) - self.noise <= math.log1p(MARGIN)


def choices(
    unlinked: Sequence[LinkedStrategy], linked: Sequence[LinkedStrategy], cases: Sequence[Case]
) -> list[Choice]:
    """Choose for each rate and origin, among the linked strategies and those that do not use the link."""
    fixed = {f"{parts.operator}@{parts.placement}": parts.evidence[0] for parts in unlinked}
    chosen_by_rate = []

    def setting(case: Case) -> tuple[float, str]:
        return case.to_mbit, case.from_mbit

    for (rate, origin), group in itertools.groupby(sorted(cases, key=setting), key=setting):
        rows = list(group)
        there = {f"{e.operator}@{e.placement}": one for e in linked for one in e.evidence if mbit(one) == rate}
        measured = {**fixed, **there}
        expected = {name: measured_s(samples) for name, samples in fixed.items()}
        expected |= {row.strategy: row.prediction.estimate_s for row in rows}
        medians_s = {name: measured_s(measured[name]) for name in expected}
        chosen = min(expected, key=expected.__getitem__)
        noise = noise_of_a_difference([measured[name] for name in expected])
        chosen_by_rate.append(Choice(rate, origin, medians_s[chosen] / min(medians_s.values()) - 1, noise))
    return chosen_by_rate


def noise_of_a_difference(cells: Sequence[LinkedSamples]) -> float:
    """Return half the width of a log ratio's interval, one-sided, simultaneous over comparisons with the best.

    The spread between rounds is pooled over the strategies at this rate: two or three rounds of one alone say next to
    nothing about it. Bonferroni over all comparisons with the best, which was seen first.
    """
    rounds = [np.array(by_round(cell)) for cell in cells]
    freedom = sum(logs.size - 1 for logs in rounds)
    if freedom == 0:
        return math.inf
    variance = sum(float(logs.var(ddof=1)) * (logs.size - 1) for logs in rounds if logs.size > 1) / freedom
    tail = (1 - CONFIDENCE) / max(len(cells) - 1, 1)
    return float(special.stdtrit(freedom, 1 - tail)) * math.sqrt(2 * variance / min(logs.size for logs in rounds))


def report(cases: Sequence[Case], unlinked: Sequence[LinkedStrategy], linked: Sequence[LinkedStrategy]) -> bool:
    """Print the figures; true when all targets are met."""
    print("| from | to, Mbit/s | predictions | median error | largest | interval holds |")
    print("|---|--:|--:|--:|--:|--:|")
    met = True
    for kind, target in TARGETS.items():
        of_kind = [case for case in cases if case.kind == kind]
        for rate in (*RATES_MBIT, None):
            rows = [case for case in of_kind if rate in (None, case.to_mbit)]
            if not rows:
                continue
            errors = np.abs([row.error for row in rows])
            covered = [row.covered for row in rows if row.covered is not None]
            share = f"{np.mean(covered):.0%}" if covered else "none"
            to = "all" if rate is None else str(rate)
            print(f"| {kind} | {to} | {len(rows)} | {np.median(errors):.1%} | {errors.max():.1%} | {share} |")
        overall = float(np.median(np.abs([case.error for case in of_kind])))
        print(f"\n{kind}: median error {overall:.1%}, target at most {target:.0%}\n")
        met = met and overall <= target
    print("| choices among | from | to, Mbit/s | choices | within 5 % as measured | not refuted | noise | worst |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for kind in TARGETS:
        of_kind = [case for case in cases if case.kind == kind]
        met = print_choices("all", kind, choices(unlinked, linked, of_kind)) and met
        print_choices("over the link", kind, choices([], linked, of_kind), by_rate=True)
    return met


def print_choices(among: str, kind: str, choices_made: Sequence[Choice], *, by_rate: bool = False) -> bool:
    """Print how often the chosen one was as good as the best; return whether that was often enough."""
    for rate in (*(RATES_MBIT if by_rate else ()), None):
        rows = [choice for choice in choices_made if rate in (None, choice.to_mbit)]
        near, not_refuted = (
            float(np.mean(flags)) for flags in zip(*((r.near, r.not_refuted) for r in rows), strict=True)
        )
        noise = math.expm1(float(np.median([row.noise for row in rows])))
        to, worst = "all" if rate is None else str(rate), max(row.excess for row in rows)
        shares = f"{near:.1%} | {not_refuted:.1%}"
        print(f"| {among} | {kind} | {to} | {len(rows)} | {shares} | ±{noise:.1%} | {worst:+.1%} |")
    return near >= CHOICE_TARGET


def main() -> int:
    """Measure what is missing, predict, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", type=Path, help="keep the measurements here")
    parser.add_argument("--launcher", default="docker", choices=("docker", "process"))
    parser.add_argument("--inputs", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fast-rounds", type=int, default=12, help=f"from {FAST_MBIT} Mbit/s on")
    parser.add_argument("--judge-only", action="store_true", help="measure nothing: judge what the database has")
    parser.add_argument("--json", action="store_true", help="print every case")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        database = (options.database or Path(scratch) / "whatif.db").resolve()
        if not options.judge_only:
            fill(
                database,
                launcher=options.launcher,
                inputs=options.inputs,
                rounds=options.rounds,
                fast_rounds=options.fast_rounds,
            )
        with open_database(str(database)) as opened, opened.session() as session:
            strategies = linked_strategies(session, "fashion-resnet", 1)
    linked = [strategy for strategy in strategies if LINK in strategy.links and len(strategy.evidence) > 1]
    cases = [case for parts in linked for case in cases_of(parts)]
    if options.json:
        rows = [{"kind": c.kind, "strategy": c.strategy, "from": c.from_mbit, "to": c.to_mbit} for c in cases]
        values = [{"measured_s": c.measured_s, "predicted_s": c.prediction.estimate_s, "error": c.error} for c in cases]
        print(json.dumps([row | value for row, value in zip(rows, values, strict=True)], indent=1))
    unlinked = [strategy for strategy in strategies if LINK not in strategy.links and strategy.evidence]
    return 0 if report(cases, unlinked, linked) else 1


if __name__ == "__main__":
    sys.exit(main())
