"""How good is the recommendation: `python -m benchmarks.regret EVIDENCE.db` (a few minutes).

Asks on some rounds and some validation items, judges on the others, over a grid of budgets and every subject of the
database; then the same in simulation, where the truth is known and not measured. Beside the recommender, on the same
grid, the recommender without its parts, a ceiling that knows the variances, and simpler rules. Evidence: `runner import
catalogs/embedded-evidence.json.gz -d EVIDENCE.db`.

Measured evidence judges with noise of its own: two rounds are no truth, so a budget next to a strategy's latency is
missed by chance. Whether the confidence is kept, the simulation says.
"""

import argparse
import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.regret_rules import PERCENTILE, RULES, Rule, knowing
from catalog.evidence import open_database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.strategy_evidence import AccuracyEvidence, StrategyEvidence
from catalog.statistics import hit_drop
from recommender.evidence.loading import AccuracyBounds, candidate_of
from recommender.ranking import Accuracy, Budgets, Candidate, LatencyBudget, estimate, recommend
from recommender.ranking.feasibility import judge_all

CONFIDENCE = 0.95
LATENCY_FACTORS = (0.8, 0.95, 1.05, 1.2, 1.5, 2.0, 4.0, 10.0)
MAX_DROPS_PP = (None, 0.5, 1.0, 2.0, 5.0, 12.0)
ASKED_ROUNDS = 3
MEAN_REGRET_TARGET = 0.02


@dataclass(frozen=True)
class Truth:
    """What a strategy is like where nobody has looked."""

    latency_s: float
    drop_pp: float

    def holds(self, budgets: Budgets) -> bool:
        """Whether it keeps within the budgets."""
        most = budgets.max_accuracy_drop_pp
        return self.latency_s <= budgets.latency[0].max_s and (most is None or self.drop_pp <= most + 1e-9)


@dataclass(frozen=True)
class Outcome:
    """One rule's answer to one question; `regret` is against the best feasible, for a choice that holds.

    `unproven` is true when the rule knew of that best one and could not promise the budgets for it, `all_held` when
    everything that the rule asserted to be within the budgets is.
    """

    chose: bool
    held: bool
    all_held: bool
    feasible: bool
    regret: float | None
    called_infeasible: bool
    unproven: bool = False


def questions(candidates: Sequence[Candidate]) -> Iterator[Budgets]:
    """Latency budgets around the fastest and the identity on mobile, with each budget of accuracy."""
    fastest = min(estimate(candidate, PERCENTILE).percentile_s for candidate in candidates)
    for factor, drop in itertools.product(LATENCY_FACTORS, MAX_DROPS_PP):
        yield Budgets(
            (LatencyBudget(PERCENTILE, fastest * factor),),
            max_accuracy_drop_pp=drop,
            percentile=PERCENTILE,
            confidence=CONFIDENCE,
        )


def judge(rule: Rule, candidates: Sequence[Candidate], truths: Sequence[Truth], budgets: Budgets) -> Outcome:
    """Ask a rule, look up the truth."""
    known = {(each.operator, each.placement): truth for each, truth in zip(candidates, truths, strict=True)}
    fitting = {name: each.latency_s for name, each in known.items() if each.holds(budgets)}
    choice = rule(candidates, budgets)
    right = all(known[name].holds(budgets) for name in choice.asserted)
    if choice.candidate is None:
        return Outcome(False, False, right, bool(fitting), None, choice.infeasible)
    name = choice.candidate.operator, choice.candidate.placement
    if name not in fitting:
        return Outcome(True, False, right, bool(fitting), None, False)
    best = min(fitting, key=fitting.__getitem__)
    return Outcome(True, True, right, True, fitting[name] / fitting[best] - 1, False, best in choice.undecided)


# Measured evidence


def _halved(row: StrategyEvidence, rounds: Sequence[int], half: int) -> StrategyEvidence:
    """Only these rounds, and every second validation item."""
    mask = np.isin(row.round, rounds)
    return replace(
        row,
        latency_s=row.latency_s[mask],
        round=row.round[mask],
        input_index=row.input_index[mask],
        repetition=row.repetition[mask],
        sent_bytes_by_link={link: sent[mask] for link, sent in row.sent_bytes_by_link.items()},
        rounds=tuple(each for each in row.rounds if each.round in rounds),
        accuracy=_half(row.accuracy, half),
        reference=_half(row.reference, half),
    )


def _half(found: AccuracyEvidence | None, half: int) -> AccuracyEvidence | None:
    if found is None:
        return None
    part = replace(
        found,
        item_ids=found.item_ids[half::2],
        items=len(found.item_ids[half::2]),
        top1=found.top1[half::2],
        top5=found.top5[half::2],
        intersection_px=found.intersection_px[half::2],
        union_px=found.union_px[half::2],
    )
    if found.metric == "top1":
        percent = 100 * float(part.top1.mean())
        return replace(part, accuracy_pct=percent, top1_pct=percent)
    union = part.union_px.sum(axis=0)
    percent = 100 * float((part.intersection_px.sum(axis=0)[union > 0] / union[union > 0]).mean())
    return replace(part, accuracy_pct=percent, miou_pct=percent)


def _measured_truth(row: StrategyEvidence) -> Truth:
    rounds = [row.latency_s[row.round == each.round] for each in row.rounds]
    latency = float(np.exp(np.mean([np.log(np.percentile(each, PERCENTILE)) for each in rounds])))
    return Truth(latency, row.drop_pp if row.drop_pp is not None else 0.0)


def measured(rows: Sequence[StrategyEvidence]) -> dict[str, list[Outcome]]:
    """Every split of one subject's rounds, every question, every rule."""
    found: dict[str, list[Outcome]] = defaultdict(list)
    numbers = sorted({each.round for row in rows for each in row.rounds})
    for split, asked in enumerate(itertools.combinations(numbers, ASKED_ROUNDS)):
        others = [number for number in numbers if number not in asked]
        half = split % 2
        bounds = AccuracyBounds()
        candidates = [candidate_of(_halved(row, asked, half), bounds) for row in rows]
        truths = [_measured_truth(_halved(row, others, 1 - half)) for row in rows]
        _ask_all(candidates, truths, found, RULES)
    return found


def _ask_all(
    candidates: Sequence[Candidate], truths: Sequence[Truth], found: dict[str, list[Outcome]], rules: dict[str, Rule]
) -> None:
    for budgets in questions(candidates):
        for name, rule in rules.items():
            found[name].append(judge(rule, candidates, truths, budgets))


# Simulation

OPERATORS = {"identity": 0.0, "quantized": 0.3, "early_exit": 4.0, "quantized_early_exit": 4.5}
PLACEMENTS = ("mobile", "edge", "cloud")
STRATEGIES = tuple(itertools.product(OPERATORS, PLACEMENTS))
FEW_ITEMS, MANY_ITEMS = 2000, 10_000
IDENTITY_HIT = 0.88
# The share of identity's misses that another operator gets right.
GAIN = 0.05
# Of the log latency.
SD = {"round": 0.05, "input": 0.2, "rest": 0.08}


def simulated(datasets: int, *, rounds: int, inputs: int, items: int, seed: int) -> dict[str, list[Outcome]]:
    """Strategies drawn at random, measured at random, asked, and judged by what they were drawn from."""
    found: dict[str, list[Outcome]] = defaultdict(list)
    known = knowing(_error_of_latency(rounds, inputs), [_error_of_drop_pp(name, items) for name, _ in STRATEGIES])
    rules = {**RULES, "ceiling: knows the true variances": known}
    for rng in np.random.default_rng(seed).spawn(datasets):
        candidates, truths = _drawn(rng, rounds, inputs, items)
        _ask_all(candidates, truths, found, rules)
    return found


def _error_of_latency(rounds: int, inputs: int, *, draws: int = 4000) -> float:
    """The true standard error of the log p90, by drawing it."""
    rng = np.random.default_rng(7)
    estimates = [np.percentile(_log_latency(rng, rounds, inputs), PERCENTILE, axis=1).mean() for _ in range(draws)]
    return float(np.std(estimates))


def _error_of_drop_pp(operator: str, items: int) -> float:
    """The true standard error of a drop: of differences of -1, 0 and 1."""
    drop = OPERATORS[operator] / 100
    if not drop:
        return 0.0
    return 100 * float(np.sqrt((drop + 2 * GAIN * (1 - IDENTITY_HIT) - drop**2) / items))


def _log_latency(
    rng: np.random.Generator, rounds: int, inputs: int, shared: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Around the strategy's mean, shape (rounds, inputs)."""
    shared = rng.normal(size=inputs) if shared is None else shared
    own = rng.normal(0, SD["round"], (rounds, 1)) + rng.normal(0, SD["rest"], (rounds, inputs))
    return SD["input"] * shared + own


def _drawn(rng: np.random.Generator, rounds: int, inputs: int, items: int) -> tuple[list[Candidate], list[Truth]]:
    """Log latency = strategy + round + input (shared by all strategies, in part) + rest; hits paired by item."""
    reference = rng.random(items) < IDENTITY_HIT
    shared = rng.normal(size=inputs)
    accuracies = {name: _accuracy(reference, _hits(rng, reference, drop)) for name, drop in OPERATORS.items()}
    spread = float(np.hypot(SD["input"], SD["rest"]))
    candidates, truths = [], []
    for operator, placement in STRATEGIES:
        mean = rng.normal(-4.0, 0.4)
        latency = tuple(np.exp(mean + _log_latency(rng, rounds, inputs, shared)))
        candidates.append(Candidate(operator, placement, (placement,), latency, inputs, accuracy=accuracies[operator]))
        truths.append(Truth(float(np.exp(mean + 1.2815515655446004 * spread)), OPERATORS[operator]))
    return candidates, truths


def _accuracy(reference: NDArray[np.bool_], hits: NDArray[np.bool_]) -> Accuracy:
    drop = hit_drop(reference, hits, bit_identical=hits is reference)
    return Accuracy("top1", 100 * float(hits.mean()), drop.drop_pp, hits.size, hits=hits, drop=drop)


def _hits(rng: np.random.Generator, reference: NDArray[np.bool_], drop_pp: float) -> NDArray[np.bool_]:
    """Loses some of the reference's hits and gains some of its misses, so that the expected drop is `drop_pp`."""
    if not drop_pp:
        return reference
    lose = (drop_pp / 100 + GAIN * (1 - IDENTITY_HIT)) / IDENTITY_HIT
    flips = rng.random(reference.size)
    return np.where(reference, flips >= lose, flips < GAIN)


def report(title: str, outcomes: dict[str, list[Outcome]]) -> None:
    """One table."""
    count = len(next(iter(outcomes.values())))
    print(f"\n### {title}: {count} questions\n")
    columns = ("answers", "budgets hold", "all asserted hold", "regret: median", "mean", "p95", "best not provable",
               "mean of the others", "wrong “infeasible”", "feasible, no answer")  # fmt: skip
    print("| rule | " + " | ".join(columns) + " |")
    print("|---|" + "--:|" * len(columns))
    for name, rows in outcomes.items():
        chose = [row for row in rows if row.chose]
        regrets = np.array([each.regret for each in chose if each.regret is not None])
        feasible = [row for row in rows if row.feasible]
        wrong = float(np.mean([each.called_infeasible for each in feasible])) if feasible else 0.0
        silent = float(np.mean([not each.chose for each in feasible])) if feasible else 0.0
        held = float(np.mean([each.held for each in chose])) if chose else float("nan")
        shown = (np.median(regrets), regrets.mean(), np.percentile(regrets, 95)) if regrets.size else (np.nan,) * 3
        kept = [each for each in chose if each.regret is not None]
        unproven = float(np.mean([each.unproven for each in kept])) if kept else float("nan")
        provable = [each.regret for each in kept if not each.unproven and each.regret is not None]
        others = float(np.mean(provable)) if provable else float("nan")
        right = float(np.mean([row.all_held for row in rows]))
        numbers = " | ".join(
            "–" if np.isnan(each) else f"{each:.1%}" for each in (held, right, *shown, unproven, others, wrong, silent)
        )
        print(f"| {name} | {len(chose)} | {numbers} |", flush=True)


def milliseconds_per_question(rows: Sequence[StrategyEvidence], *, asked: int = 300) -> float:
    """Of questions that nobody has asked before, about candidates that somebody has asked about."""
    bounds = AccuracyBounds()
    candidates = [candidate_of(row, bounds) for row in rows]
    fastest = min(estimate(candidate, PERCENTILE).percentile_s for candidate in candidates)
    ladder = [
        Budgets((LatencyBudget(PERCENTILE, fastest * factor),), max_accuracy_drop_pp=5.0, percentile=PERCENTILE)
        for factor in np.geomspace(1.5, 12, asked)
    ]
    recommend(candidates, ladder[0])
    started = time.process_time()
    for budgets in ladder:
        judge_all([estimate(candidate, PERCENTILE) for candidate in candidates], budgets)
    return 1000 * (time.process_time() - started) / asked


def met(outcomes: dict[str, list[Outcome]]) -> bool:
    """Whether the recommender keeps its promises."""
    chose = [each for each in outcomes["recommender"] if each.chose]
    regrets = [each.regret for each in chose if each.regret is not None]
    kept = np.mean([each.held for each in chose]) >= CONFIDENCE
    return bool(kept and np.median(regrets) == 0 and np.mean(regrets) <= MEAN_REGRET_TARGET)


def main() -> int:
    """Measured, then simulated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", help="with evidence of at least four rounds")
    parser.add_argument("--datasets", type=int, default=60, help="simulated subjects")
    options = parser.parse_args()
    subjects: dict[str, list[StrategyEvidence]] = defaultdict(list)
    with open_database(options.database) as opened, opened.session() as session:
        for row in strategy_evidence(session):
            if row.measured:
                subjects[row.subject].append(row)
    together: dict[str, list[Outcome]] = defaultdict(list)
    for subject, rows in subjects.items():
        outcomes = measured(rows)
        report(f"{subject}, measured", outcomes)
        for name, found in outcomes.items():
            together[name] += found
    report("all subjects, measured", together)
    sizes = ((5, 100, MANY_ITEMS), (5, 100, FEW_ITEMS), (3, 30, FEW_ITEMS))
    said = [f"measured {met(together)}"]
    for seed, (rounds, inputs, items) in enumerate(sizes, start=1):
        known = simulated(options.datasets, rounds=rounds, inputs=inputs, items=items, seed=seed)
        title = f"{rounds} rounds of {inputs} inputs, {items} validation items"
        report(f"simulation, {title}", known)
        said.append(f"{title}: {met(known)}")
    largest = max(subjects.values(), key=len)
    print(f"\n{milliseconds_per_question(largest):.2f} ms of CPU to judge {len(largest)} candidates of a new question")
    print("targets met: " + "; ".join(said))
    return 0 if all(each.endswith("True") for each in said) else 1


if __name__ == "__main__":
    sys.exit(main())
