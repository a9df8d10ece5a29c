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
from catalog.evidence.database import open_database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.strategy_evidence import AccuracyEvidence, StrategyEvidence
from catalog.statistics.drops import hit_drop
from recommender.evidence.loading import AccuracyBounds, candidate_of
from recommender.ranking import AccuracyMeasurement, Budgets, Candidate, LatencyBudget, estimate, recommend
from recommender.ranking.feasibility import judge_all

CONFIDENCE = 0.95
LATENCY_FACTORS = (0.8, 0.95, 1.05, 1.2, 1.5, 2.0, 4.0, 10.0)
MAX_DROPS_PP = (None, 0.5, 1.0, 2.0, 5.0, 12.0)
ASKED_ROUNDS = 3
MEAN_REGRET_TARGET = 0.02


@dataclass(frozen=True)
class Truth:
    """The true latency and drop of a strategy."""

    latency_s: float
    drop_pp: float

    def holds(self, budgets: Budgets) -> bool:
        """Return whether it keeps within the budgets."""
        most = budgets.max_accuracy_drop_pp
        return self.latency_s <= budgets.latency[0].max_s and (most is None or self.drop_pp <= most + 1e-9)


@dataclass(frozen=True)
class Outcome:
    """One rule's answer to one question; `regret` is against the best feasible, for a choice that holds.

    `unproven` is true when the rule knew of that best one and could not promise the budgets for it, `all_hold` when
    everything that the rule asserted to be within the budgets is.
    """

    chose: bool
    holds: bool
    all_hold: bool
    feasible: bool
    regret: float | None
    called_infeasible: bool
    unproven: bool = False


def questions(candidates: Sequence[Candidate]) -> Iterator[Budgets]:
    """Yield latency budgets around the fastest strategy, with each budget of accuracy."""
    fastest = min(estimate(candidate, PERCENTILE).percentile_s for candidate in candidates)
    for factor, drop in itertools.product(LATENCY_FACTORS, MAX_DROPS_PP):
        yield Budgets(
            (LatencyBudget(PERCENTILE, fastest * factor),),
            max_accuracy_drop_pp=drop,
            percentile=PERCENTILE,
            confidence=CONFIDENCE,
        )


def judge(rule: Rule, candidates: Sequence[Candidate], truths: Sequence[Truth], budgets: Budgets) -> Outcome:
    """Apply a rule and compare its choice with the truth."""
    truth_by_name = {
        (candidate.operator, candidate.placement): truth for candidate, truth in zip(candidates, truths, strict=True)
    }
    fitting = {name: truth.latency_s for name, truth in truth_by_name.items() if truth.holds(budgets)}
    choice = rule(candidates, budgets)
    right = all(truth_by_name[name].holds(budgets) for name in choice.asserted)
    if choice.candidate is None:
        return Outcome(False, False, right, bool(fitting), None, choice.infeasible)
    name = choice.candidate.operator, choice.candidate.placement
    if name not in fitting:
        return Outcome(True, False, right, bool(fitting), None, False)
    best = min(fitting, key=fitting.__getitem__)
    return Outcome(True, True, right, True, fitting[name] / fitting[best] - 1, False, best in choice.undecided)


# Measured evidence


def _halved(row: StrategyEvidence, rounds: Sequence[int], half: int) -> StrategyEvidence:
    """Keep only these rounds, and every second validation item."""
    mask = np.isin(row.round, rounds)
    return replace(
        row,
        latency_s=row.latency_s[mask],
        round=row.round[mask],
        input_index=row.input_index[mask],
        repetition=row.repetition[mask],
        sent_bytes_by_link={link: sent[mask] for link, sent in row.sent_bytes_by_link.items()},
        rounds=tuple(one_round for one_round in row.rounds if one_round.round in rounds),
        accuracy=_half(row.accuracy, half),
        reference=_half(row.reference, half),
    )


def _half(accuracy: AccuracyEvidence | None, half: int) -> AccuracyEvidence | None:
    if accuracy is None:
        return None
    kept = replace(
        accuracy,
        item_ids=accuracy.item_ids[half::2],
        items=len(accuracy.item_ids[half::2]),
        top1=accuracy.top1[half::2],
        top5=accuracy.top5[half::2],
        intersection_px=accuracy.intersection_px[half::2],
        union_px=accuracy.union_px[half::2],
    )
    if accuracy.metric == "top1":
        percent = 100 * float(kept.top1.mean())
        return replace(kept, accuracy_pct=percent, top1_pct=percent)
    union = kept.union_px.sum(axis=0)
    percent = 100 * float((kept.intersection_px.sum(axis=0)[union > 0] / union[union > 0]).mean())
    return replace(kept, accuracy_pct=percent, miou_pct=percent)


def _measured_truth(row: StrategyEvidence) -> Truth:
    rounds = [row.latency_s[row.round == one_round.round] for one_round in row.rounds]
    latency = float(np.exp(np.mean([np.log(np.percentile(latency_s, PERCENTILE)) for latency_s in rounds])))
    return Truth(latency, row.drop_pp if row.drop_pp is not None else 0.0)


def measured(rows: Sequence[StrategyEvidence]) -> dict[str, list[Outcome]]:
    """Judge every split of one subject's rounds, every question, every rule."""
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    numbers = sorted({one_round.round for row in rows for one_round in row.rounds})
    for split, rounds in enumerate(itertools.combinations(numbers, ASKED_ROUNDS)):
        others = [number for number in numbers if number not in rounds]
        half = split % 2
        bounds = AccuracyBounds()
        candidates = [candidate_of(_halved(row, rounds, half), bounds) for row in rows]
        truths = [_measured_truth(_halved(row, others, 1 - half)) for row in rows]
        _ask_all(candidates, truths, outcomes, RULES)
    return outcomes


def _ask_all(
    candidates: Sequence[Candidate], truths: Sequence[Truth], outcomes: dict[str, list[Outcome]], rules: dict[str, Rule]
) -> None:
    for budgets in questions(candidates):
        for name, rule in rules.items():
            outcomes[name].append(judge(rule, candidates, truths, budgets))


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
    """Judge strategies drawn and measured at random by what they were drawn from."""
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    ceiling = knowing(_error_of_latency(rounds, inputs), [_error_of_drop_pp(name, items) for name, _ in STRATEGIES])
    rules = {**RULES, "ceiling: knows the true variances": ceiling}
    for rng in np.random.default_rng(seed).spawn(datasets):
        candidates, truths = _drawn(rng, rounds, inputs, items)
        _ask_all(candidates, truths, outcomes, rules)
    return outcomes


def _error_of_latency(rounds: int, inputs: int, *, draws: int = 4000) -> float:
    """Estimate the true standard error of the log p90 by simulation."""
    rng = np.random.default_rng(7)
    estimates = [np.percentile(_log_latency(rng, rounds, inputs), PERCENTILE, axis=1).mean() for _ in range(draws)]
    return float(np.std(estimates))


def _error_of_drop_pp(operator: str, items: int) -> float:
    """Return the true standard error of a drop: of differences of -1, 0 and 1."""
    drop = OPERATORS[operator] / 100
    if not drop:
        return 0.0
    return 100 * float(np.sqrt((drop + 2 * GAIN * (1 - IDENTITY_HIT) - drop**2) / items))


def _log_latency(
    rng: np.random.Generator, rounds: int, inputs: int, shared: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Draw log latencies around the strategy's mean, shape (rounds, inputs)."""
    shared = rng.normal(size=inputs) if shared is None else shared
    own = rng.normal(0, SD["round"], (rounds, 1)) + rng.normal(0, SD["rest"], (rounds, inputs))
    return SD["input"] * shared + own


def _drawn(rng: np.random.Generator, rounds: int, inputs: int, items: int) -> tuple[list[Candidate], list[Truth]]:
    """Draw log latency = strategy + round + input (shared by all strategies, in part) + rest; hits paired by item."""
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


def _accuracy(reference: NDArray[np.bool_], hits: NDArray[np.bool_]) -> AccuracyMeasurement:
    drop = hit_drop(reference, hits, bit_identical=hits is reference)
    return AccuracyMeasurement("top1", 100 * float(hits.mean()), drop.drop_pp, hits.size, hits=hits, drop=drop)


def _hits(rng: np.random.Generator, reference: NDArray[np.bool_], drop_pp: float) -> NDArray[np.bool_]:
    """Lose some of the reference's hits and gain some of its misses, so that the expected drop is `drop_pp`."""
    if not drop_pp:
        return reference
    lose = (drop_pp / 100 + GAIN * (1 - IDENTITY_HIT)) / IDENTITY_HIT
    flips = rng.random(reference.size)
    return np.where(reference, flips >= lose, flips < GAIN)


def report(title: str, outcomes: dict[str, list[Outcome]]) -> None:
    """Print one table."""
    count = len(next(iter(outcomes.values())))
    print(f"\n### {title}: {count} questions\n")
    columns = ("answers", "budgets hold", "all asserted hold", "regret: median", "mean", "p95", "best not provable",
               "mean of the others", "wrong “infeasible”", "feasible, no answer")  # fmt: skip
    print("| rule | " + " | ".join(columns) + " |")
    print("|---|" + "--:|" * len(columns))
    for name, rows in outcomes.items():
        chose = [row for row in rows if row.chose]
        regrets = np.array([row.regret for row in chose if row.regret is not None])
        feasible = [row for row in rows if row.feasible]
        wrong = float(np.mean([row.called_infeasible for row in feasible])) if feasible else 0.0
        silent = float(np.mean([not row.chose for row in feasible])) if feasible else 0.0
        holding = float(np.mean([row.holds for row in chose])) if chose else float("nan")
        shown = (np.median(regrets), regrets.mean(), np.percentile(regrets, 95)) if regrets.size else (np.nan,) * 3
        kept = [row for row in chose if row.regret is not None]
        unproven = float(np.mean([row.unproven for row in kept])) if kept else float("nan")
        provable = [row.regret for row in kept if not row.unproven and row.regret is not None]
        others = float(np.mean(provable)) if provable else float("nan")
        right = float(np.mean([row.all_hold for row in rows]))
        numbers = " | ".join(
            "–" if np.isnan(share) else f"{share:.1%}"
            for share in (holding, right, *shown, unproven, others, wrong, silent)
        )
        print(f"| {name} | {len(chose)} | {numbers} |", flush=True)


def milliseconds_per_question(rows: Sequence[StrategyEvidence], *, count: int = 300) -> float:
    """Time new questions about candidates whose intervals are already computed."""
    bounds = AccuracyBounds()
    candidates = [candidate_of(row, bounds) for row in rows]
    fastest = min(estimate(candidate, PERCENTILE).percentile_s for candidate in candidates)
    ladder = [
        Budgets((LatencyBudget(PERCENTILE, fastest * factor),), max_accuracy_drop_pp=5.0, percentile=PERCENTILE)
        for factor in np.geomspace(1.5, 12, count)
    ]
    recommend(candidates, ladder[0])
    started = time.process_time()
    for budgets in ladder:
        judge_all([estimate(candidate, PERCENTILE) for candidate in candidates], budgets)
    return 1000 * (time.process_time() - started) / count


def met(outcomes: dict[str, list[Outcome]]) -> bool:
    """Return whether the recommender keeps its promises."""
    chose = [outcome for outcome in outcomes["recommender"] if outcome.chose]
    regrets = [outcome.regret for outcome in chose if outcome.regret is not None]
    kept = np.mean([outcome.holds for outcome in chose]) >= CONFIDENCE
    return bool(kept and np.median(regrets) == 0 and np.mean(regrets) <= MEAN_REGRET_TARGET)


def main() -> int:
    """Judge measured evidence, then simulated evidence."""
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
        for name, rule_outcomes in outcomes.items():
            together[name] += rule_outcomes
    report("all subjects, measured", together)
    sizes = ((5, 100, MANY_ITEMS), (5, 100, FEW_ITEMS), (3, 30, FEW_ITEMS))
    said = [f"measured {met(together)}"]
    for seed, (rounds, inputs, items) in enumerate(sizes, start=1):
        outcomes = simulated(options.datasets, rounds=rounds, inputs=inputs, items=items, seed=seed)
        title = f"{rounds} rounds of {inputs} inputs, {items} validation items"
        report(f"simulation, {title}", outcomes)
        said.append(f"{title}: {met(outcomes)}")
    largest = max(subjects.values(), key=len)
    print(f"\n{milliseconds_per_question(largest):.2f} ms of CPU to judge {len(largest)} candidates of a new question")
    print("targets met: " + "; ".join(said))
    return 0 if all(verdict.endswith("True") for verdict in said) else 1


if __name__ == "__main__":
    sys.exit(main())
