"""Races and extended plans of simulated strategies, whose truth is known.

How often anything that is said to be proven, at any look, is wrong, and what the answers lose. `python -m
benchmarks.race` prints the tables.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.race_run import FIRST_LOOK, RaceRun, run_race
from benchmarks.regret_studies import MAX_DROPS_PP, SPREADS, Study, harsh_studies, question, simulated_studies
from catalog.statistics.feasibility import error_share, look_of
from recommender.ranking import Budgets, Candidate, RankedAnswer, Status, recommend
from recommender.ranking.candidates import on_rounds
from recommender.ranking.racing import RaceQuestion

# How many rounds a plan has that was extended once, twice and three times.
EXTENSIONS = (FIRST_LOOK, 6, 9, 12)


@dataclass(frozen=True)
class SimulatedRace:
    """What a simulated race came to; `regret` is against the fastest that truly keeps the budgets, by its log."""

    wrong: bool
    wrong_infeasible: bool
    status: Status | None
    infeasible: Status | None
    broken: bool
    regret: float
    rounds: int
    longest: int


def race_of(study: Study, questions: Sequence[RaceQuestion], *, most: int) -> RaceRun:
    """Race the strategies of a study, which has at least `most` rounds of each."""
    made: dict[tuple[int, int], Candidate] = {}

    def measured(place: int, count: int) -> Candidate:
        if (place, count) not in made:
            look = look_of(count, FIRST_LOOK)
            part = on_rounds(study.candidates[place], range(1, count + 1))
            made[place, count] = replace(
                part, rounds_declared=FIRST_LOOK, looks=look.number, error_share=look.error_share
            )
        return made[place, count]

    return run_race(measured, len(study.candidates), questions, most=most)


def simulated_race(study: Study, budgets: Budgets, *, most: int) -> SimulatedRace:
    """Race a study whose truth is known; what is said at any look counts as said."""
    run = race_of(study, [RaceQuestion("asked", budgets)], most=most)
    keeping = [truth.latency_s for truth in study.truths if truth.holds(budgets)]
    answers = [state.contests[0].answer for state in run.states]
    holds = {(part.operator, part.placement): truth for part, truth in zip(run.candidates, study.truths, strict=True)}
    proven = [prospect for answer in answers for prospect in _proven(answer)]
    last = answers[-1].recommendation
    truth = holds[last.candidate.operator, last.candidate.placement] if last is not None else None
    return SimulatedRace(
        wrong=any(not holds[prospect.operator, prospect.placement].holds(budgets) for prospect in proven),
        wrong_infeasible=bool(keeping) and any(answer.infeasible is Status.PROVEN for answer in answers),
        status=last.status if last is not None else None,
        infeasible=answers[-1].infeasible,
        broken=truth is not None and not truth.holds(budgets),
        regret=max(math.log(truth.latency_s / min(keeping)), 0.0) if truth is not None and keeping else 0.0,
        rounds=sum(run.rounds),
        longest=max(run.rounds),
    )


def _proven(answer: RankedAnswer) -> Iterator[Candidate]:
    placed = (*([answer.recommendation] if answer.recommendation else []), *answer.within)
    return (prospect.candidate for prospect in placed if prospect.status is Status.PROVEN)


def simulated(races: int, *, most: int) -> None:
    """Print how races of simulated strategies end, their budgets near the fastest; the last row has none that holds."""
    columns = (
        "proven and wrong",
        "infeasible and wrong",
        "proven",
        "broken",
        "regret: mean",
        "p95",
        "rounds",
        "longest",
    )
    print(f"\n| {races} races each | {' | '.join(columns)} |\n|---|" + "--:|" * len(columns))
    for seed, (name, spread) in enumerate(SPREADS.items(), start=101):
        rng = np.random.default_rng(seed)
        drawn = simulated_studies(spread, races, seed=seed, rounds=most)
        _print_simulated(name, [simulated_race(study, _near(study, rng), most=most) for study in drawn])
    harsh = harsh_studies(races, seed=109, rounds=most)
    _print_simulated("harsh", [simulated_race(study, question(0.99, None), most=most) for study in harsh])


def _near(study: Study, rng: np.random.Generator) -> Budgets:
    drop_pp = MAX_DROPS_PP[rng.integers(len(MAX_DROPS_PP))]
    fastest_s = min(truth.latency_s for truth in study.truths)
    return question(fastest_s * float(np.exp(rng.uniform(-0.1, 0.6))), drop_pp)


def _print_simulated(name: str, races: Sequence[SimulatedRace]) -> None:
    answered = [race for race in races if race.status is not None]
    regrets = [race.regret for race in answered] or [0.0]
    cells = [
        f"{statistics.mean(race.wrong for race in races):.1%}",
        f"{statistics.mean(race.wrong_infeasible for race in races):.1%}",
        f"{statistics.mean(Status.PROVEN in (race.status, race.infeasible) for race in races):.0%}",
        f"{statistics.mean(race.broken for race in races):.1%}",
        f"{statistics.mean(regrets):.1%}",
        f"{float(np.percentile(regrets, 95)):.1%}",
        f"{statistics.mean(race.rounds for race in races):.0f}",
        f"{statistics.mean(race.longest for race in races):.1f}",
    ]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


# Extended plans


@dataclass(frozen=True)
class ExtendedPlan:
    """What an extended plan came to: whether anything proven was wrong by each of its looks, and how many it took."""

    wrong_by_look: tuple[bool, ...]
    decided_by_look: tuple[bool, ...]


def extended_plan(study: Study, budgets: Budgets) -> ExtendedPlan:
    """Extend a fixed plan as long as its answer is undecided; each extension is one more look (`--rounds`)."""
    wrong, decided = [False], [False]
    for look, rounds in enumerate(EXTENSIONS, start=1):
        if decided[-1]:
            wrong.append(wrong[-1])
            decided.append(True)
            continue
        # The declared plan is one look with the whole error.
        share = 1.0 if look == 1 else error_share(look)
        answer = recommend([_extended_to(candidate, rounds, look, share) for candidate in study.candidates], budgets)
        wrong.append(wrong[-1] or _is_wrong(answer, study, budgets))
        best = answer.recommendation
        decided.append(answer.infeasible is Status.PROVEN or (best is not None and best.status is Status.PROVEN))
    return ExtendedPlan(tuple(wrong[1:]), tuple(decided[1:]))


def _extended_to(candidate: Candidate, rounds: int, look: int, share: float) -> Candidate:
    part = on_rounds(candidate, range(1, rounds + 1))
    return replace(part, rounds_declared=FIRST_LOOK, looks=look, error_share=share)


def _is_wrong(answer: RankedAnswer, study: Study, budgets: Budgets) -> bool:
    """Return whether anything that an answer says to be proven is not true."""
    truths = {(own.operator, own.placement): truth for own, truth in zip(study.candidates, study.truths, strict=True)}
    proven = (truths[candidate.operator, candidate.placement] for candidate in _proven(answer))
    infeasible = answer.infeasible is Status.PROVEN and any(truth.holds(budgets) for truth in study.truths)
    return infeasible or any(not truth.holds(budgets) for truth in proven)


def extended(plans: int) -> None:
    """Print how often fixed plans that are extended while undecided say something wrong, by their last look."""
    names = [f"{rounds} rounds" for rounds in EXTENSIONS]
    columns = [f"{word} by {name}" for word in ("wrong", "decided") for name in names]
    print(f"\n| {plans} extended plans each | {' | '.join(columns)} |\n|---|" + "--:|" * len(columns))
    for seed, (name, spread) in enumerate(SPREADS.items(), start=101):
        rng = np.random.default_rng(seed)
        drawn = simulated_studies(spread, plans, seed=seed, rounds=EXTENSIONS[-1])
        _print_extended(name, [extended_plan(study, _near(study, rng)) for study in drawn])
    harsh = harsh_studies(plans, seed=109, rounds=EXTENSIONS[-1])
    _print_extended("harsh", [extended_plan(study, question(0.99, None)) for study in harsh])


def _print_extended(name: str, plans: Sequence[ExtendedPlan]) -> None:
    looks = range(len(EXTENSIONS))
    cells = [f"{statistics.mean(plan.wrong_by_look[look] for plan in plans):.1%}" for look in looks]
    cells += [f"{statistics.mean(plan.decided_by_look[look] for plan in plans):.0%}" for look in looks]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)
