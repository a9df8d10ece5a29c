"""Is a race as good as a full fill, and for how much less: `python -m benchmarks.race EVIDENCE.db` (minutes).

Replays stored evidence: a round of a race is every third input, by size, of a stored round. The second and the third
part of the stored rounds stand for later rounds, so that rounds beyond those that were measured are other inputs in the
same starts. Compared with the full fill over the grid of `benchmarks.regret`: the choice, the status, samples and time;
and with it what another full fill would say, whose rounds are drawn from the stored ones.

Then fills simulated strategies twice, and races them (`--studies`): how two fills differ by themselves.
Then simulates races and extended plans, whose truth is known (`benchmarks.simulated_races`).
Evidence: `runner import catalogs/embedded-evidence.json.gz -d EVIDENCE.db`.
"""

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.race_run import FIRST_LOOK, RaceRun, run_race
from benchmarks.regret import subjects_of
from benchmarks.regret_studies import (
    LATENCY_FACTORS,
    MAX_DROPS_PP,
    PERCENTILE,
    SPREADS,
    Study,
    question,
    questions,
    simulated_studies,
)
from benchmarks.simulated_races import extended, race_of, simulated
from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.statistics.feasibility import LEAVING_LOOKS, LOOKS, look_of
from recommender.evidence.loading import AccuracyBounds, candidate_of
from recommender.ranking import Budgets, Candidate, LatencyBudget, RankedAnswer, Status, estimate, recommend
from recommender.ranking.candidates import on_rounds
from recommender.ranking.prospects import objective_loss, risk
from recommender.ranking.racing import RaceQuestion, RaceState

REPOSITORY = Path(__file__).parents[1]
FIGURE = REPOSITORY / "docs/race.svg"
PARTS = 3
# Without a race, of every strategy: the declared plan, half of what is stored, and all of it. Even the last one answers
# in another way than the full fill, because its rounds are a third as long: no race can be expected to come closer.
FIXED_ROUNDS = (FIRST_LOOK, 8, 15)
# Further full fills that the full fill is compared with: draws of five rounds differ much from one another.
_FILLS_AGAIN = 12
# The declared targets of catalogs/embedded.yaml.
TARGETS = (
    RaceQuestion("interactive", Budgets((LatencyBudget(90, 0.1),), max_accuracy_drop_pp=1.0)),
    RaceQuestion("batch", Budgets((LatencyBudget(90, 1.0),), max_accuracy_drop_pp=0.5)),
)


# Stored evidence, replayed


class Replay:
    """The stored rounds of one subject, cut into rounds of a third of their inputs."""

    def __init__(self, rows: Sequence[StrategyEvidence], seed: int) -> None:
        self.rows = rows
        self._bounds, self._made = AccuracyBounds(), {}
        self.full = [candidate_of(row, self._bounds) for row in rows]
        stored = sorted({one_round.round for row in rows for one_round in row.rounds})
        rng = np.random.default_rng(seed)
        # All strategies share the order of rounds and the parts, as they share a draw.
        order = [int(number) for number in rng.permutation(stored)]
        offsets = {number: int(rng.integers(PARTS)) for number in order}
        self.sources = [(number, (offsets[number] + part) % PARTS) for part in range(PARTS) for number in order]
        self._made: dict[tuple[int, int], Candidate] = {}

    def measured(self, place: int, count: int) -> Candidate:
        """Return a strategy with its first rounds."""
        if (place, count) not in self._made:
            self._made[place, count] = candidate_of(self._part(self.rows[place], count), self._bounds)
        return self._made[place, count]

    def _part(self, row: StrategyEvidence, count: int) -> StrategyEvidence:
        kept = [self._samples(row, number) for number in range(count)]
        chosen = np.concatenate(kept)
        assert row.design is not None
        weight = np.concatenate([self._weight(row, own) for own in kept])
        stored = {one_round.round: one_round for one_round in row.rounds}
        own_looks = [look_of(number + 1, FIRST_LOOK) for number in range(count)]
        return replace(
            row,
            latency_s=row.latency_s[chosen],
            round=np.repeat(np.arange(1, count + 1), [own.size for own in kept]),
            input_index=row.input_index[chosen],
            repetition=row.repetition[chosen],
            design=replace(row.design.of(chosen), weight=weight),
            sent_bytes_by_link={link: sent[chosen] for link, sent in row.sent_bytes_by_link.items()},
            rounds_declared=FIRST_LOOK,
            rounds=tuple(
                replace(stored[self.sources[at][0]], round=at + 1, look=look.number, error_share=look.error_share)
                for at, look in enumerate(own_looks)
            ),
        )

    def _samples(self, row: StrategyEvidence, number: int) -> NDArray[np.int64]:
        """Return the samples of a round: every third by size, and in the first part those measured for certain."""
        stored, part = self.sources[number]
        assert row.design is not None and row.design.size is not None
        members = np.flatnonzero(row.round == stored)
        certain = row.design.certain[members]
        body = members[~certain]
        body = body[np.argsort(row.design.size[body], kind="stable")]
        # What is measured for certain is measured once.
        first = number < len(self.sources) // PARTS
        return np.sort(np.concatenate([members[certain] if first else members[:0], body[part::PARTS]]))

    def _weight(self, row: StrategyEvidence, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        assert row.design is not None
        stands, certain = row.design.weight[chosen], row.design.certain[chosen]
        whole = (row.round == row.round[chosen[0]]) & ~row.design.certain
        return np.where(certain, stands, stands * whole.sum() / max((~certain).sum(), 1))

    def seconds(self, place: int, count: int) -> float:
        """Return what the first rounds of a strategy took: as stored, less the samples that were not taken."""
        row = self.rows[place]
        spans = {one_round.round: _span_s(one_round.started_at, one_round.finished_at) for one_round in row.rounds}
        spent = 0.0
        for number in range(count):
            stored, _ = self.sources[number]
            left_out = row.latency_s[row.round == stored].sum() - row.latency_s[self._samples(row, number)].sum()
            spent += spans[stored] - float(left_out)
        return spent

    def full_seconds(self, place: int) -> float:
        """Return what all stored rounds of a strategy took."""
        return sum(_span_s(one_round.started_at, one_round.finished_at) for one_round in self.rows[place].rounds)

    def filled_again(self, seed: int) -> list[Candidate]:
        """Return the strategies as another full fill may know them: its rounds are drawn from those that are stored."""
        stored = sorted({one_round.round for row in self.rows for one_round in row.rounds})
        # All strategies share the rounds, as they share what moves these.
        drawn = np.random.default_rng(seed).choice(stored, len(stored)).tolist()
        return [candidate_of(_with_rounds(row, drawn), self._bounds) for row in self.rows]

    def race(self) -> RaceRun:
        """Race the strategies."""
        usual = [self.seconds(place, 1) for place in range(len(self.rows))]
        return run_race(
            self.measured, len(self.rows), TARGETS, most=len(self.sources), seconds=lambda place: usual[place]
        )


def _with_rounds(row: StrategyEvidence, numbers: Sequence[int]) -> StrategyEvidence:
    """Return a strategy with these of its rounds, some of them several times, under new numbers."""
    chosen = [np.flatnonzero(row.round == number) for number in numbers]
    places = np.concatenate(chosen)
    stored = {one_round.round: one_round for one_round in row.rounds}
    return replace(
        row,
        latency_s=row.latency_s[places],
        round=np.repeat(np.arange(1, len(numbers) + 1), [own.size for own in chosen]),
        input_index=row.input_index[places],
        repetition=row.repetition[places],
        design=None if row.design is None else row.design.of(places),
        sent_bytes_by_link={link: sent[places] for link, sent in row.sent_bytes_by_link.items()},
        rounds=tuple(replace(stored[number], round=at) for at, number in enumerate(numbers, 1)),
    )


def _span_s(started: str, finished: str) -> float:
    return (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds()


# How sure an answer is, from "this one" to "none".
_WORDS = ("proven", "likely", "open", "infeasible open", "infeasible likely", "infeasible proven")


def word(answer: RankedAnswer) -> str:
    """Return what an answer says, with how sure it is."""
    if answer.recommendation is not None:
        return answer.recommendation.status.value
    return f"infeasible {(answer.infeasible or Status.ESTIMATED).value}"


def words_apart(one: RankedAnswer, other: RankedAnswer) -> int:
    """Return by how many words two answers differ; what is estimated only is as unsure as what is open, and not it."""
    places = [_WORDS.index(word(answer).replace("estimated", "open")) for answer in (one, other)]
    return max(abs(places[0] - places[1]), int(word(one) != word(other)))


def chosen_place(answer: RankedAnswer, candidates: Sequence[Candidate]) -> int:
    """Return which strategy an answer names: the recommended one, or the nearest miss."""
    best = answer.recommendation.candidate if answer.recommendation else answer.near_misses[0].estimate.candidate
    return list(candidates).index(best)


def loss_of(answer: RankedAnswer, candidate: Candidate) -> float:
    """Return the loss of choosing a strategy, by the evidence of an answer."""
    placed = (*([answer.recommendation] if answer.recommendation else []), *answer.within)
    for prospect in placed:
        if prospect.candidate is candidate:
            return prospect.loss
    miss = next(near_miss for near_miss in answer.near_misses if near_miss.estimate.candidate is candidate)
    return objective_loss(miss.estimate, answer.budgets.objective) + risk(miss.probability, answer.budgets)


def compared(whole: Sequence[Candidate], candidates: Sequence[Candidate]) -> Counter[str]:
    """Ask the grid of questions of a full fill and of a race, and count in how many they differ."""
    fastest_s = min(estimate(candidate, PERCENTILE).percentile_s for candidate in whole)
    counts: Counter[str] = Counter()
    for factor in LATENCY_FACTORS:
        for drop_pp in MAX_DROPS_PP:
            budgets = question(fastest_s * factor, drop_pp)
            full, raced = (recommend(members, budgets, relax=False) for members in (whole, candidates))
            mine, theirs = chosen_place(raced, candidates), chosen_place(full, whole)
            excess = loss_of(full, whole[mine]) - loss_of(full, whole[theirs])
            apart = words_apart(full, raced)
            counts["questions"] += 1
            counts["same choice"] += mine == theirs
            counts["same choice or within 5 %"] += excess <= math.log(1.05)
            counts["another word"] += apart > 0
            counts["more than a word apart"] += apart > 1
            counts["proven contradicted"] += _contradicted(raced, full, whole[mine])
            counts[f"words: {word(full)} -> {word(raced)}"] += 1
    return counts


# As many rounds of ten as give the samples of a full fill, five rounds of thirty.
_WHOLE_ROUNDS = 15


def simulated_fills(studies: int) -> None:
    """Print how two full fills of the same strategies, and a race, differ from each other and from the truth.

    Both fills draw rounds of their own and are as long. The race uses rounds of the first one.
    """
    columns = ("same choice", "… or within 5 %", "another word", "far", "contradicted", "within 5 % of the best")
    print(f"\n| {studies} studies of each kind | {' | '.join(columns)} |\n|---|" + "--:|" * len(columns))
    pairs = {"another full fill": Counter[str](), "a race": Counter[str]()}
    for seed, spread in enumerate(SPREADS.values(), start=201):
        for study in simulated_studies(spread, studies, seed=seed, rounds=2 * _WHOLE_ROUNDS):
            numbers = range(1, _WHOLE_ROUNDS + 1), range(_WHOLE_ROUNDS + 1, 2 * _WHOLE_ROUNDS + 1)
            one, other = ([on_rounds(member, own) for member in study.candidates] for own in numbers)
            raced = race_of(study, _targets_near(one), most=_WHOLE_ROUNDS).candidates
            for counts, members in zip(pairs.values(), (other, raced), strict=True):
                counts += compared(one, members)
                counts += judged(study, members)
    for name, counts in pairs.items():
        print_counts(name, counts, last=counts["good"] / counts["feasible"])


def _targets_near(candidates: Sequence[Candidate]) -> list[RaceQuestion]:
    """Return two targets as far from the fastest as those that are declared of the stored evidence."""
    fastest_s = min(estimate(candidate, PERCENTILE).percentile_s for candidate in candidates)
    limits = (("interactive", 1.5, 1.0), ("batch", 10.0, 0.5))
    return [RaceQuestion(name, question(fastest_s * factor, drop_pp)) for name, factor, drop_pp in limits]


def judged(study: Study, candidates: Sequence[Candidate]) -> Counter[str]:
    """Count in how many questions of the grid the choice keeps the budgets and is as fast as the best, within 5 %."""
    counts: Counter[str] = Counter()
    for budgets in questions(study):
        keeping = [truth.latency_s for truth in study.truths if truth.holds(budgets)]
        if keeping:
            answer = recommend(candidates, budgets, relax=False)
            truth = study.truths[chosen_place(answer, candidates)]
            counts["feasible"] += 1
            counts["good"] += truth.holds(budgets) and truth.latency_s <= 1.05 * min(keeping)
    return counts


def _contradicted(raced: RankedAnswer, full: RankedAnswer, chosen: Candidate) -> bool:
    """Return whether a race proved what the estimates of the full fill deny."""
    if raced.recommendation is not None and raced.recommendation.status is Status.PROVEN:
        return any(near_miss.estimate.candidate is chosen for near_miss in full.near_misses)
    return raced.infeasible is Status.PROVEN and full.recommendation is not None


def replayed(database: str, races: int, *, verbose: bool) -> None:
    """Replay races of every subject and print what they cost and how they answer."""
    columns = ("rounds", "samples", "time", "same choice", "… or within 5 %", "another word", "far", "contradicted")
    print(f"| subject | {' | '.join(columns)} |\n|---|" + "--:|" * len(columns))
    total: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    again: Counter[str] = Counter()
    fixed_counts = {rounds: Counter[str]() for rounds in FIXED_ROUNDS}
    fixed_costs = {rounds: Counter[str]() for rounds in FIXED_ROUNDS}
    for subject, rows in subjects_of(database).items():
        counts: Counter[str] = Counter()
        costs: Counter[str] = Counter()
        for seed in range(races):
            replay = Replay(rows, seed)
            run = replay.race()
            counts += compared(replay.full, run.candidates)
            costs += cost(replay, run)
            # The draws are the same whatever the race's rounds are.
            for draw in range(_FILLS_AGAIN if seed == 0 else 0):
                again += compared(replay.full, replay.filled_again(draw))
            for rounds in FIXED_ROUNDS:
                fill = fixed(replay, rounds)
                fixed_counts[rounds] += compared(replay.full, fill.candidates)
                fixed_costs[rounds] += cost(replay, fill)
            if verbose:
                print_run(run)
        _print_replays(subject, counts, costs)
        total, spent = total + counts, spent + costs
    _print_replays("all", total, spent)
    print_counts("all, another full fill of the stored rounds", again, 1.0, 1.0, 1.0)
    for rounds in FIXED_ROUNDS:
        _print_replays(f"all, without a race: {rounds} rounds of each", fixed_counts[rounds], fixed_costs[rounds])
    for name, count in sorted(total.items()):
        if name.startswith("words: "):
            print(f"    {name.removeprefix('words: ')}: {count / total['questions']:.1%}")
    sys.stdout.flush()


def cost(replay: Replay, run: RaceRun) -> Counter[str]:
    """Return rounds, samples and milliseconds of a race and of the full fill."""
    places = range(len(run.rounds))
    return Counter(
        {
            "rounds": sum(run.rounds),
            "full rounds": sum(candidate.rounds for candidate in replay.full),
            "samples": sum(candidate.samples for candidate in run.candidates),
            "full samples": sum(candidate.samples for candidate in replay.full),
            "ms": round(1000 * sum(replay.seconds(place, run.rounds[place]) for place in places)),
            "full ms": round(1000 * sum(replay.full_seconds(place) for place in places)),
        }
    )


def _print_replays(subject: str, counts: Mapping[str, int], costs: Mapping[str, int]) -> None:
    shares = [costs[name] / costs[f"full {name}"] for name in ("rounds", "samples", "ms")]
    print_counts(subject, counts, *shares)


def print_counts(name: str, counts: Mapping[str, int], *shares: float, last: float | None = None) -> None:
    """Print one line: some shares, in how many of the questions two answers agree, and a last share."""
    differing = ("same choice", "same choice or within 5 %", "another word", "more than a word apart")
    cells = [f"{share:.1%}" for share in (*shares, *(counts[kind] / counts["questions"] for kind in differing))]
    cells += [str(counts["proven contradicted"]), *([] if last is None else [f"{last:.1%}"])]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def fixed(replay: Replay, rounds: int) -> RaceRun:
    """Return a fill of so many rounds of every strategy, a third of the stored inputs each."""
    places = range(len(replay.rows))
    candidates = [replace(replay.measured(place, rounds), looks=1, error_share=1.0) for place in places]
    return RaceRun(candidates, [rounds] * len(replay.rows), ())


def print_run(run: RaceRun) -> None:
    """Print a race, look by look."""
    for state in run.states:
        open_contests = [f"{contest.question.name} ({len(contest.undecided)})" for contest in state.contests]
        print(f"    next {len(state.next)}, left {len(state.departures)}: {', '.join(open_contests)}")
    for candidate in sorted(run.candidates, key=lambda member: -member.rounds):
        departure = run.states[-1].departures.get(candidate)
        latency_ms = 1e3 * estimate(candidate, PERCENTILE).percentile_s
        name = f"{candidate.operator} on {candidate.placement}"
        print(
            f"      {name:48}{candidate.rounds:3} rounds {latency_ms:7.1f} ms  {departure.reason if departure else ''}"
        )


def figure(replay: Replay, run: RaceRun, path: Path) -> None:
    """Draw the rounds of every strategy, with what became of it."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "tierwise", "font.size": 8})
    order = sorted(run.candidates, key=lambda member: (member.rounds, -estimate(member, PERCENTILE).percentile_s))
    drawn, panel = plt.subplots(figsize=(9, 4.6))
    for number in [*LEAVING_LOOKS, *LOOKS]:
        panel.axvline(number, color="#ddd", linewidth=0.8, zorder=0)
    for row, candidate in enumerate(order):
        fate = _fate(run.states[-1], candidate)
        panel.barh(row, candidate.rounds, color=fate.color, height=0.7)
        latency_ms = 1e3 * estimate(candidate, PERCENTILE).percentile_s
        panel.text(candidate.rounds + 0.15, row, f"{latency_ms:.0f} ms   {fate.words}", va="center")
    panel.set_yticks(range(len(order)), [f"{member.operator} on {member.placement}" for member in order])
    panel.set(
        xlabel="rounds; strategies leave after any of them, questions are decided after 3, 5, 8 and 12",
        xlim=(0, max(run.rounds) + 9),
        ylim=(-0.6, len(order) - 0.4),
    )
    panel.set_xticks([*LEAVING_LOOKS, *LOOKS])
    panel.spines[["top", "right"]].set_visible(False)
    share = sum(replay.seconds(place, count) for place, count in enumerate(run.rounds)) / sum(
        replay.full_seconds(place) for place in range(len(run.rounds))
    )
    panel.set_title(
        f"{replay.rows[0].subject}: {sum(run.rounds)} rounds in {share:.0%} of the time of the full fill", loc="left"
    )
    drawn.tight_layout()
    drawn.savefig(path, metadata={"Date": None})
    plt.close(drawn)


@dataclass(frozen=True)
class Fate:
    """What became of a strategy, and its colour."""

    words: str
    color: str


def _fate(state: RaceState, candidate: Candidate) -> Fate:
    departure = state.departures.get(candidate)
    led = [contest.question.name for contest in state.contests if contest.leader is candidate]
    if led:
        more = f" and {len(led) - 2} more" if len(led) > 2 else ""
        return Fate(f"answers: {', '.join(led[:2])}{more}", "#3a7d44")
    if departure is not None and departure.by is not None:
        return Fate(f"left: beaten by {departure.by.operator} on {departure.by.placement}", "#c8641e")
    if departure is not None:
        return Fate(f"left: misses {departure.slo}, the nearest target, by {departure.margin:.0%}", "#c8641e")
    if candidate.rounds > LEAVING_LOOKS[-1]:
        return Fate("was a rival", "#1f5fa8")
    return Fate("slower than others as accurate: out of every question so far", "#9aa5b1")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", help="with evidence whose rounds drew their inputs")
    parser.add_argument("--replays", type=int, default=5, help="of each subject")
    parser.add_argument("--races", type=int, default=200, help="simulated ones, of each kind")
    parser.add_argument("--studies", type=int, default=20, help="simulated ones that are filled twice, of each kind")
    parser.add_argument("--most", type=int, default=12, help="rounds of a strategy in simulation")
    parser.add_argument("--verbose", action="store_true", help="print every replayed race, look by look")
    parser.add_argument(
        "--figure", metavar="SUBJECT", help=f"draw {FIGURE.relative_to(REPOSITORY)} of one replayed race"
    )
    options = parser.parse_args()
    if options.figure:
        drawn = Replay(subjects_of(options.database)[options.figure], seed=0)
        figure(drawn, drawn.race(), FIGURE)
    started = time.process_time()
    if options.replays:
        replayed(options.database, options.replays, verbose=options.verbose)
    if options.studies:
        simulated_fills(options.studies)
    if options.races:
        simulated(options.races, most=options.most)
        extended(options.races)
    print(f"\n{time.process_time() - started:.0f} s of CPU")


if __name__ == "__main__":
    main()
