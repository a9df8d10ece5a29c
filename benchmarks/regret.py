"""How good is the recommendation: `python -m benchmarks.regret EVIDENCE.db` (ten minutes; `--studies 20` for a look).

Asks with three rounds, over a grid of budgets, in three kinds of studies (`benchmarks.regret_studies`): measured
subjects judged by other rounds, whole pools judged by all their inputs, and simulation judged by what it drew from.
Prints how often there is an answer, how often it is proven, how often that is wrong, and what following the answers
loses: the regret against the fastest strategy that truly keeps the budgets, plus the cost of a broken budget. Measured
subjects are judged by rounds that err themselves: what even a choice that knows all rounds loses stands beside.

Then asks whether a probability means what it says: of the strategies recommended at 70 %, do 70 % keep their budgets?
Each study has new strategies, and what is judged is the recommended one, which was chosen by its estimate.
Evidence: `runner import catalogs/embedded-evidence.json.gz -d EVIDENCE.db`.
"""

import argparse
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.regret_rules import RULES, Rule, knowing, knowing_truths
from benchmarks.regret_studies import (
    ASKED_ROUNDS,
    GAIN,
    IDENTITY_HIT,
    MAX_DROPS_PP,
    PERCENTILE,
    SPREADS,
    Study,
    harsh_studies,
    measured_studies,
    pool_studies,
    question,
    questions,
    simulated_studies,
)
from benchmarks.whole_pool import whole_pools
from catalog.evidence.database import open_database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.strategy_evidence import StrategyEvidence
from recommender.ranking import Budgets, Status, estimate, recommend
from recommender.ranking.prospects import table_of

REPOSITORY = Path(__file__).parents[1]
FIGURE = REPOSITORY / "docs/calibration.svg"
# A budget of this many times the fastest latency that keeps it leaves room to prove something.
ROOM = 1.25
HARSH_BUDGET_S = 0.99


@dataclass(frozen=True)
class Outcome:
    """One answer, judged.

    Attributes
    ----------
    room : float
        The latency budget over the fastest latency that keeps all budgets; 0 where none does.
    status : Status or None
        Of the recommendation.
    probability : float or None
    holds : bool
        Whether the recommended strategy keeps the budgets.
    regret : float
        Its log latency above that of the best; 0 where it is faster.
    proven, proven_holds : bool
        Whether a strategy is proven, and whether the one to use of those keeps the budgets.
    infeasible : Status or None
    ceiling : bool
        Whether a rule that knows the true variances, and pays nothing for many candidates, answers.
    """

    room: float
    status: Status | None
    probability: float | None
    holds: bool
    regret: float
    proven: bool
    proven_holds: bool
    infeasible: Status | None
    ceiling: bool

    @property
    def feasible(self) -> bool:
        """Whether some strategy keeps the budgets."""
        return self.room > 0

    def loss(self, cost_of_breaking: float) -> float:
        """Return the regret and the cost of a broken budget."""
        return self.regret + (0.0 if self.holds else cost_of_breaking)


def judge(study: Study, budgets: Budgets, ceiling: Rule | None = None) -> Outcome:
    """Ask one question and compare the answer with the truth."""
    answer = recommend(study.candidates, budgets, relax=False)
    truths = dict(zip(study.candidates, study.truths, strict=True))
    fitting = [truth.latency_s for truth in study.truths if truth.holds(budgets)]
    best_s = min(fitting, default=math.inf)
    chosen = answer.recommendation
    certain = chosen if chosen is not None and chosen.status is Status.PROVEN else answer.proven
    regret = math.log(truths[chosen.candidate].latency_s / best_s) if chosen is not None and fitting else 0.0
    return Outcome(
        room=budgets.latency[0].max_s / best_s,
        status=chosen.status if chosen is not None else None,
        probability=chosen.probability if chosen is not None else None,
        holds=chosen is not None and truths[chosen.candidate].holds(budgets),
        regret=max(regret, 0.0),
        proven=certain is not None,
        proven_holds=certain is not None and truths[certain.candidate].holds(budgets),
        infeasible=answer.infeasible,
        ceiling=ceiling is not None and ceiling(study.candidates, budgets).candidate is not None,
    )


def outcomes_of(studies: Sequence[Study], *, with_ceiling: bool = True) -> list[Outcome]:
    """Ask every question of every study."""
    errors = _latency_errors(studies) if with_ceiling else []
    judged = []
    for study in studies:
        ceiling = knowing(errors, _drop_errors_pp(study)) if with_ceiling else None
        judged += [judge(study, budgets, ceiling) for budgets in questions(study)]
    return judged


def _latency_errors(studies: Sequence[Study]) -> NDArray[np.float64]:
    """Return the true standard error of each strategy's log percentile, as the studies of its kind show it."""
    errors = [
        [
            math.log(estimate(candidate, PERCENTILE).percentile_s / truth.latency_s)
            for candidate, truth in zip(study.candidates, study.truths, strict=True)
        ]
        for study in studies
    ]
    return np.sqrt(np.mean(np.square(errors), axis=0))


def _drop_errors_pp(study: Study) -> list[float]:
    """Return the true standard errors of the drops: of differences of -1, 0 and 1."""
    errors = []
    for candidate, truth in zip(study.candidates, study.truths, strict=True):
        drop = truth.drop_pp / 100
        items = candidate.accuracy.items if candidate.accuracy is not None else 1
        changed = drop + 2 * GAIN * (1 - IDENTITY_HIT) - drop**2 if candidate.changed else 0.0
        errors.append(100 * math.sqrt(max(changed, 0.0) / items))
    return errors


COLUMNS = (
    "questions", "answered", "proven", "proven, room", "of the ceiling", "first line proven", "wrong proven",
    "likely hold", "open hold", "loss: median", "mean", "regret", "broken", "p95", "wrong infeasible",
)  # fmt: skip


def row(outcomes: Sequence[Outcome]) -> list[float]:
    """Return the shares of one line of the table, in the order of `COLUMNS`; NaN where nothing is counted."""
    feasible = [outcome for outcome in outcomes if outcome.feasible]
    roomy = [outcome for outcome in feasible if outcome.room >= ROOM]
    answered = [outcome for outcome in feasible if outcome.status is not None]
    losses = [outcome.loss(math.log(2)) for outcome in answered]
    ceiling = sum(outcome.ceiling for outcome in outcomes)

    def share(members: Iterable[bool]) -> float:
        counted = list(members)
        return float(np.mean(counted)) if counted else math.nan

    def holding(status: Status) -> float:
        return share(outcome.holds for outcome in outcomes if outcome.status is status)

    said = (Status.PROVEN, Status.LIKELY)
    return [
        len(feasible),
        share(outcome.status is not None for outcome in feasible),
        share(outcome.proven for outcome in feasible),
        share(outcome.proven for outcome in roomy),
        sum(outcome.proven for outcome in outcomes) / ceiling if ceiling else math.nan,
        share(outcome.status is Status.PROVEN for outcome in feasible),
        share(outcome.proven and not outcome.proven_holds for outcome in outcomes),
        holding(Status.LIKELY),
        holding(Status.OPEN),
        *(np.percentile(losses, [50]).tolist() if losses else [math.nan]),
        float(np.mean(losses)) if losses else math.nan,
        float(np.mean([outcome.regret for outcome in answered])) if answered else math.nan,
        share(not outcome.holds for outcome in answered),
        *(np.percentile(losses, [95]).tolist() if losses else [math.nan]),
        share(outcome.infeasible in said for outcome in feasible),
    ]


def print_row(name: str, outcomes: Sequence[Outcome]) -> None:
    """Print one line of the table."""
    count, *shares = row(outcomes)
    cells = ["–" if math.isnan(share) else f"{share:.1%}" for share in shares]
    print(f"| {name} | {count:.0f} | {' | '.join(cells)} |", flush=True)


def _always(rule: Rule, study: Study) -> Rule:
    return rule


def print_rules(name: str, studies: Sequence[Study]) -> None:
    """Print what each rule loses on the questions that some strategy answers."""
    print(f"\n{name}: rules\n\n| rule | answered | hold | loss: median | mean | p95 |\n|---|" + "--:|" * 5)
    rules: dict[str, Callable[[Study], Rule]] = {rule_name: partial(_always, rule) for rule_name, rule in RULES.items()}
    if all(study.everything for study in studies):
        rules["all rounds and items known"] = lambda study: knowing_truths(study.everything)
    for rule_name, rule_of in rules.items():
        losses: list[float] = []
        answered: list[bool] = []
        broken: list[bool] = []
        for study in studies:
            rule = rule_of(study)
            truths = dict(zip(study.candidates, study.truths, strict=True))
            for budgets in questions(study):
                best_s = min((truth.latency_s for truth in study.truths if truth.holds(budgets)), default=math.inf)
                if math.isinf(best_s):
                    continue
                chosen = rule(study.candidates, budgets).candidate
                answered.append(chosen is not None)
                if chosen is not None:
                    broken.append(not truths[chosen].holds(budgets))
                    regret = max(math.log(truths[chosen].latency_s / best_s), 0.0)
                    losses.append(regret + (math.log(2) if broken[-1] else 0.0))
        figures = [np.mean(answered), 1 - np.mean(broken), *np.percentile(losses, [50]), np.mean(losses)]
        cells = [f"{share:.1%}" for share in (*figures, np.percentile(losses, 95))]
        print(f"| {rule_name} | {' | '.join(cells)} |")
    sys.stdout.flush()


def outside(studies: Sequence[Study], share: float) -> float:
    """Return how often the judging rounds lie outside this share of the posterior, with their own error added.

    Two rounds vary by half of the variance of one, where the three asked ones vary by a third.
    """
    counted = []
    for study in studies:
        columns = table_of(study.candidates).latency(PERCENTILE)
        for own, truth in zip(columns.posterior, study.truths, strict=True):
            assert own is not None
            error = (math.log(truth.latency_s) - own.value) / (own.standard_error * math.sqrt(1 + ASKED_ROUNDS / 2))
            counted.append(abs(2 * stats.t.cdf(error, own.df) - 1) > share)
    return float(np.mean(counted))


def print_errors(by_subject: Mapping[str, Sequence[Study]]) -> None:
    """Print whether the judging rounds differ from the asked ones by as much as the posteriors say."""
    print("\nJudging rounds outside the posterior of the asked ones, the judges' own error added\n")
    print("| subject | outside 50 % | outside 90 % |\n|---|--:|--:|")
    for name, studies in by_subject.items():
        print(f"| {name} | {outside(studies, 0.5):.0%} | {outside(studies, 0.9):.0%} |")


def harsh(studies: int, *, seed: int) -> tuple[int, int]:
    """Count the studies in which anything is said to be proven, where nothing keeps the budget."""
    drawn = list(harsh_studies(studies, seed=seed))
    wrong = 0
    for study in drawn:
        answer = recommend(study.candidates, question(HARSH_BUDGET_S, None), relax=False)
        placed = [*([answer.recommendation] if answer.recommendation else []), *answer.within]
        wrong += any(prospect.status is Status.PROVEN for prospect in placed)
    return wrong, len(drawn)


BINS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class Bin:
    """How many recommendations of a range of probabilities keep their budgets."""

    low: float
    high: float
    mean: float
    holding: int
    studies: int

    @property
    def share(self) -> float:
        """The share that holds."""
        return self.holding / self.studies

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper and Pearson's 95 % interval of the share."""
        interval = stats.binomtest(self.holding, self.studies).proportion_ci()
        return float(interval.low), float(interval.high)


def calibration(studies: Iterable[Study], *, seed: int, budgets_per_study: int = 16) -> list[Bin]:
    """Ask near the fastest latencies; take one recommendation per study and bin.

    Budgets that are far from every latency only bring certainties. One recommendation of each bin per study, because
    the answers of one study share its errors.
    """
    rng = np.random.default_rng(seed)
    kept: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for study in studies:
        seen: set[int] = set()
        for _ in range(budgets_per_study):
            drop_pp = MAX_DROPS_PP[rng.integers(len(MAX_DROPS_PP))]
            # By the truth, which knows nothing of the estimates.
            fastest_s = min(truth.latency_s for truth in study.truths)
            outcome = judge(study, question(fastest_s * float(np.exp(rng.uniform(-0.1, 0.6))), drop_pp))
            if outcome.probability is None or outcome.probability < BINS[0]:
                continue
            place = min(int(np.searchsorted(BINS, outcome.probability, side="right")) - 1, len(BINS) - 2)
            if place not in seen:
                seen.add(place)
                kept[place].append((outcome.probability, outcome.holds))
    return [
        Bin(
            BINS[place],
            BINS[place + 1],
            float(np.mean([chance for chance, _ in members])),
            sum(holds for _, holds in members),
            len(members),
        )
        for place, members in sorted(kept.items())
    ]


_MARKERS = "os^Dv<"
_COLORS = ("#1f5fa8", "#c8641e", "#3a7d44", "#8a4fa3", "#777777", "#b0303c")


def figure(cells: Mapping[str, Sequence[Bin]], path: Path) -> None:
    """Draw the share that holds over the stated probability, for each kind of study."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "tierwise", "font.size": 9})
    drawn, panel = plt.subplots(figsize=(5.4, 4.2))
    panel.fill_between([50, 100], [45, 95], [55, 105], color="#e8eef6", label="within 5 points")
    panel.plot([50, 100], [50, 100], color="#888", linewidth=0.8)
    for (name, bins), marker, color in zip(cells.items(), _MARKERS, _COLORS, strict=True):
        shares = np.array([100 * member.share for member in bins])
        ends = 100 * np.array([member.interval for member in bins]).T
        panel.errorbar(
            [100 * member.mean for member in bins],
            shares,
            yerr=np.abs(ends - shares),
            fmt=marker,
            color=color,
            markersize=4,
            elinewidth=0.8,
            label=name,
        )
    panel.set(
        xlabel="stated probability that all budgets hold (%)",
        ylabel="recommended strategies that keep them (%)",
        xlim=(49, 101),
        ylim=(34, 101),
    )
    panel.legend(frameon=False, loc="lower right")
    drawn.tight_layout()
    drawn.savefig(path, metadata={"Date": None})
    plt.close(drawn)


def print_bins(name: str, bins: Sequence[Bin]) -> None:
    """Print the calibration of one kind of study."""
    print(f"\n{name}: probability of the recommended strategy, and the share that keeps its budgets\n")
    print("| stated | studies | mean stated | hold |\n|---|--:|--:|--:|")
    for member in bins:
        print(f"| {member.low:.0%}–{member.high:.0%} | {member.studies} | {member.mean:.1%} | {member.share:.1%} |")
    sys.stdout.flush()


def milliseconds_per_question(study: Study, *, count: int = 200) -> tuple[float, float]:
    """Time new questions about candidates whose intervals are already computed: decided, and with relaxations."""
    ladder = [question(study.fastest_s * float(factor), 5.0) for factor in np.geomspace(0.9, 6, count)]
    recommend(study.candidates, ladder[0])
    spent = []
    for relax in (False, True):
        started = time.process_time()
        for budgets in ladder:
            recommend(study.candidates, budgets, relax=relax)
        spent.append(1000 * (time.process_time() - started) / count)
    return spent[0], spent[1]


def subjects_of(database: str) -> Mapping[str, Sequence[StrategyEvidence]]:
    """Read the measured strategies of each subject."""
    subjects: dict[str, list[StrategyEvidence]] = defaultdict(list)
    with open_database(database) as opened, opened.session() as session:
        for evidence in strategy_evidence(session):
            if evidence.measured:
                subjects[evidence.subject].append(evidence)
    return subjects


def main() -> None:
    """Print the table, then the calibration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", help="with evidence of at least four rounds")
    parser.add_argument("--studies", type=int, default=200, help="of each kind")
    parser.add_argument("--calibration", type=int, default=0, help="studies for the calibration, of each kind")
    parser.add_argument("--figure", action="store_true", help=f"draw {FIGURE.relative_to(REPOSITORY)}")
    options = parser.parse_args()
    pools = list(whole_pools())
    print("| studies | " + " | ".join(COLUMNS) + " |\n|---|" + "--:|" * len(COLUMNS))
    by_subject = {name: list(measured_studies(rows)) for name, rows in subjects_of(options.database).items()}
    studies = [study for own in by_subject.values() for study in own]
    print_row("measured", outcomes_of(studies, with_ceiling=False))
    for name, own in by_subject.items():
        print_row(f"measured: {name}", outcomes_of(own, with_ceiling=False))
    if options.studies:
        print_row("whole pools", outcomes_of(list(pool_studies(pools, options.studies, seed=1))))
        for seed, (name, spread) in enumerate(SPREADS.items(), start=2):
            print_row(f"simulated: {name}", outcomes_of(list(simulated_studies(spread, options.studies, seed=seed))))
        print_errors(by_subject)
        print_rules("measured", studies)
        print_rules("whole pools", list(pool_studies(pools, options.studies, seed=1)))
        wrong, count = harsh(4 * options.studies, seed=9)
        print(f"\nharsh case, 18 strategies 1 % beyond the budget: something proven in {wrong} of {count} studies")
        print(
            "{:.2f} ms of CPU for a new question about 18 strategies, {:.2f} ms with relaxations".format(
                *milliseconds_per_question(studies[0])
            )
        )
    if options.calibration:
        cells = {"whole pools": calibration(pool_studies(pools, options.calibration, seed=11), seed=1)}
        for seed, (name, spread) in enumerate(SPREADS.items(), start=2):
            drawn = simulated_studies(spread, options.calibration, seed=10 + seed)
            cells[f"simulated: {name}"] = calibration(drawn, seed=seed)
        for name, bins in cells.items():
            print_bins(name, bins)
        if options.figure:
            figure(cells, FIGURE)


if __name__ == "__main__":
    main()
