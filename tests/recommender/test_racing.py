"""Races over hand-made latencies: who leads, who leaves, whom the next rounds hold."""

from dataclasses import replace

import numpy as np
import pytest

from catalog.statistics.drops import hit_drop
from catalog.statistics.feasibility import error_share
from catalog.statistics.input_draw import SampleDesign
from recommender.ranking import AccuracyMeasurement, Budgets, Candidate, LatencyBudget, Status, recommend
from recommender.ranking.candidates import on_rounds
from recommender.ranking.racing import Contenders, RaceQuestion, RaceState, race_state

# What moves all strategies of a round alike.
DRIFT = (0.0, 0.02, -0.02, 0.01, -0.01, 0.0, 0.015, -0.015)
ITEMS = 2000


def accuracy(lost: int) -> AccuracyMeasurement:
    hits = np.arange(ITEMS) >= lost
    drop = hit_drop(np.ones(ITEMS, dtype=np.bool_), hits)
    return AccuracyMeasurement("top1", 100 * float(hits.mean()), drop.drop_pp, ITEMS, hits=hits, drop=drop)


def contender(
    operator: str,
    placement: str,
    latency_s: float,
    *,
    rounds: int = 3,
    lost: int = 0,
    size_bytes: int = 1000,
    noise: float = 0.004,
) -> Candidate:
    """Return a strategy whose rounds differ by the shared drift and a little of their own."""
    own = np.random.default_rng([len(operator), len(placement)]).normal(0, noise, len(DRIFT))
    values = tuple(np.full(30, latency_s * np.exp(DRIFT[number] + own[number])) for number in range(rounds))
    tiers = tuple(placement.split("-"))
    return Candidate(
        operator,
        placement,
        tiers,
        values,
        30,
        accuracy=accuracy(lost),
        size_bytes=size_bytes,
        sent_bytes=100.0 * len(tiers),
        rounds_declared=3,
        round_numbers=tuple(range(1, rounds + 1)),
        changed=operator != "identity",
        memory_bytes=dict.fromkeys(tiers, 10 * size_bytes),
        model_bytes=dict.fromkeys(tiers, size_bytes),
        looks=1,
        error_share=error_share(1),
    )


def slo(name: str, max_s: float, drop_pp: float | None = 1.0) -> RaceQuestion:
    return RaceQuestion(name, Budgets((LatencyBudget(90, max_s),), max_accuracy_drop_pp=drop_pp))


def names(candidates: tuple[Candidate, ...]) -> set[str]:
    return {f"{candidate.operator}@{candidate.placement}" for candidate in candidates}


def left(state: RaceState) -> set[str]:
    return names(tuple(state.departures))


def one_round() -> list[Candidate]:
    return [
        contender("identity", "mobile", 0.08, rounds=1),
        contender("quantized", "mobile", 0.05, rounds=1, lost=2),
        contender("pruned", "mobile", 0.9, rounds=1, lost=400, size_bytes=500),
        contender("pruned", "edge", 0.8, rounds=1, lost=400, size_bytes=500),
        contender("identity", "edge", 0.5, rounds=1),
        contender("pruned", "mobile-edge", 2.0, rounds=1, lost=400, size_bytes=500),
    ]


def test_what_misses_every_budget_leaves_after_one_round() -> None:
    state = race_state(one_round(), [slo("quick", 0.1)])
    assert left(state) == {"pruned@mobile", "pruned@edge"}
    departure = next(iter(state.departures.values()))
    assert departure.reason == "misses" and departure.slo == "quick" and departure.rounds == 1 and departure.margin > 1
    assert "left after 1 round: beyond every budget, quick by" in departure.words
    assert not left(state) & names(state.next)


def test_identity_and_the_last_of_a_placement_stay() -> None:
    # All are far beyond, and no placement loses its last one.
    state = race_state(one_round(), [slo("quick", 0.001)])
    staying = names(tuple(member for member in one_round())) - left(state)
    assert staying >= {"identity@mobile", "identity@edge", "pruned@mobile-edge"}


def test_a_budget_that_may_be_kept_keeps_a_strategy_in_the_race() -> None:
    assert not left(race_state(one_round(), [slo("quick", 0.1), slo("any", 10.0, None)]))


def test_without_declared_budgets_nobody_misses_them() -> None:
    state = race_state(one_round(), [])
    assert not state.departures and state.contests[0].question.name == "fastest"


def test_the_larger_of_two_that_compute_the_same_is_beaten() -> None:
    small, large = contender("quantized", "mobile", 0.05), contender("quantized", "mobile-edge", 0.09, size_bytes=1200)
    last = contender("pruned", "mobile-edge", 0.05, lost=30)
    state = race_state([contender("identity", "mobile", 0.08), small, large, last], [slo("any", 10.0, None)])
    assert left(state) == {"quantized@mobile-edge"}
    departure = state.departures[large]
    assert departure.by is small and 0.5 < departure.margin < 0.8
    assert "slower than quantized on mobile at least" in departure.words


@pytest.mark.parametrize("change", ["size_bytes", "sent_bytes", "memory_bytes", "model_bytes"])
def test_what_needs_less_of_anything_is_not_beaten(change: str) -> None:
    small, large = contender("quantized", "mobile", 0.05), contender("quantized", "mobile-edge", 0.09)
    last = contender("pruned", "mobile-edge", 0.05, lost=30)
    less = {"mobile": 1, "edge": 1} if change in ("memory_bytes", "model_bytes") else 1
    frugal = replace(large, **{change: less})
    others = [contender("identity", "mobile", 0.08), small, last]
    assert left(race_state([*others, large], [slo("any", 10.0, None)])) == {"quantized@mobile-edge"}
    assert not left(race_state([*others, frugal], [slo("any", 10.0, None)]))


def test_a_more_accurate_one_is_not_beaten_by_a_faster_one() -> None:
    fast, right = contender("quantized", "mobile", 0.05, lost=100), contender("exact", "mobile", 0.2)
    assert not left(race_state([contender("identity", "mobile", 0.3), fast, right], [slo("any", 10.0, None)]))
    alike = contender("exact", "mobile", 0.2, lost=1)
    assert not left(race_state([contender("identity", "mobile", 0.3), fast, alike], [slo("any", 10.0, None)]))


def test_a_race_is_over_when_the_answer_is_proven_and_nobody_may_overtake() -> None:
    members = [contender("identity", "mobile", 0.08), contender("quantized", "mobile", 0.04, lost=1)]
    state = race_state(members, [slo("quick", 0.1)])
    assert all(contest.decided for contest in state.contests) and not state.next
    assert state.contests[0].leader is members[1] and state.contests[0].answer.recommendation is not None
    assert state.contests[0].answer.recommendation.status is Status.PROVEN


def test_the_next_rounds_hold_the_undecided_and_their_leader_alone() -> None:
    close = [contender("quantized", "mobile", 0.04, noise=0.1), contender("pruned", "mobile", 0.041, noise=0.1)]
    far = [contender("identity", "mobile", 0.4), contender("identity", "edge", 0.3)]
    state = race_state([*far, *close], [slo("quick", 0.1)])
    assert names(state.next) == {"quantized@mobile", "pruned@mobile"}
    assert not state.contests[0].decided


def test_a_leader_completes_its_look_while_rivals_drop_out() -> None:
    # The looks are after 3 and 5 rounds.
    for rounds, decided in ((3, True), (4, False), (5, True)):
        leader = contender("quantized", "mobile", 0.04, rounds=rounds, lost=1)
        state = race_state([contender("identity", "mobile", 0.08, rounds=rounds), leader], [slo("quick", 0.1)])
        assert state.contests[0].leader is leader and state.contests[0].decided is decided
        # Identity leads among those that lose no accuracy.
        assert names(state.next) == (set() if decided else {"identity@mobile", "quantized@mobile"})


def test_without_a_budget_half_of_the_accuracy_is_no_rival() -> None:
    leader = contender("identity", "mobile", 0.041, noise=0.1)
    for lost, is_rival in ((20, True), (1000, False)):
        rival = contender("pruned", "mobile", 0.0425, noise=0.1, lost=lost)
        state = race_state([leader, rival], [])
        assert (rival in state.next) is is_rival
        # A declared latency alone asks for the fastest.
        declared = race_state([leader, rival], [slo("any", 0.06, None)])
        assert rival in declared.contests[0].undecided


def test_what_no_declared_question_is_about_has_fewer_rounds() -> None:
    for rounds, is_worth_more in ((3, True), (5, False)):
        exact = contender("identity", "edge", 0.08, rounds=rounds)
        # Beyond the declared drop; which of them is the faster one may be asked later.
        leader = contender("quantized", "mobile", 0.0425, rounds=rounds, noise=0.25, lost=200)
        rival = contender("pruned", "mobile", 0.0425, rounds=rounds, noise=0.25, lost=200)
        state = race_state([exact, leader, rival], [slo("exact", 0.1)])
        assert state.contests[0].decided and (rival in state.next) is is_worth_more
        # Without declared questions that is what the race is about.
        assert rival in race_state([exact, leader, rival], []).next


def test_identity_alone_has_two_rounds_whatever_the_questions() -> None:
    state = race_state(one_round(), [slo("never", 0.001)])
    # Far beyond every other, and the only one of its placement.
    assert {"identity@mobile", "identity@edge"} <= names(state.next) and "pruned@mobile-edge" not in names(state.next)


def test_cheap_rounds_come_first() -> None:
    close = [contender("quantized", "mobile", 0.04, noise=0.1), contender("pruned", "mobile", 0.041, noise=0.1)]
    members = [contender("identity", "mobile", 0.4), *close]
    for quick, slow in (close, reversed(close)):
        # So close to the budget that both are worth rounds.
        state = race_state(members, [slo("quick", 0.05)], seconds_per_round={quick: 0.1, slow: 100.0})
        assert {quick, slow} <= {*state.next} and state.next[0] is quick


def test_where_nothing_may_keep_the_budget_the_race_is_over() -> None:
    state = race_state([contender("identity", "mobile", 0.08), contender("quantized", "edge", 0.05)], [slo("no", 0.01)])
    contest = state.contests[0]
    assert contest.leader is None and contest.answer.infeasible is Status.PROVEN and contest.decided


def test_a_strategy_of_one_slow_round_is_compared_on_that_round() -> None:
    # Both take the same; the first round was half as slow again for everybody, and one strategy has no other.
    values = tuple(np.full(30, 0.1 * factor) for factor in (1.5, 1.0, 1.0, 1.0, 1.0))
    leader = Candidate("identity", "mobile", ("mobile",), values, 30)
    loser = replace(on_rounds(leader, [0]), operator="quantized")
    contenders = Contenders([leader, loser], 90)
    assert contenders.value(loser) - contenders.value(leader) > 0.3
    assert contenders.log_ratio(loser, leader).value == pytest.approx(0.0)


def test_the_usual_variance_comes_from_all_that_were_measured() -> None:
    noisy = [contender(name, "mobile", 0.1, noise=0.3) for name in ("a", "bb", "ccc", "dddd")]
    calm = [contender(name, "edge", 0.1, noise=0.003) for name in ("a", "bb", "ccc", "dddd")]
    one = contender("one", "cloud", 0.1, rounds=1)
    assert Contenders([one, *noisy, *calm], 90).margin(one) > 1.5 * Contenders([one, *calm], 90).margin(one)


def test_a_later_look_promises_less() -> None:
    members = [contender("identity", "mobile", 0.08, noise=0.03), contender("quantized", "mobile", 0.05, noise=0.03)]
    budgets = Budgets((LatencyBudget(90, 0.0585),))
    for share, status in ((1.0, Status.PROVEN), (0.05, Status.LIKELY)):
        shared = [replace(member, error_share=share) for member in members]
        answer = recommend(shared, budgets)
        assert answer.recommendation is not None and answer.recommendation.status is status


def test_a_later_look_proves_less_infeasible() -> None:
    members = [contender("identity", "mobile", 0.08, noise=0.03)]
    for share, status in ((1.0, Status.PROVEN), (0.02, Status.LIKELY)):
        answer = recommend([replace(member, error_share=share) for member in members], slo("", 0.066).budgets)
        assert answer.infeasible is status


def drawn(operator: str, rounds: list[list[float]]) -> Candidate:
    """Return a strategy whose rounds sent inputs of their own, the same ones as all others."""
    indices = tuple(np.arange(len(values)) + 100 * number for number, values in enumerate(rounds))
    sizes = np.concatenate([np.linspace(1e3, 1e4, len(values)) for values in rounds])
    design = SampleDesign(np.full(sizes.size, 10.0), np.zeros(sizes.size, dtype=np.bool_), sizes, np.sort(sizes))
    return Candidate(
        operator,
        operator,
        (operator,),
        tuple(np.array(values) for values in rounds),
        10,
        rounds_declared=3,
        input_index=indices,
        round_numbers=tuple(range(1, len(rounds) + 1)),
        design=design,
        changed=operator != "identity",
    )


def test_two_slow_inputs_of_a_single_round_end_no_strategy() -> None:
    # Typically twice as fast, but for two requests that were held up.
    held_up = drawn("quantized", [[0.05] * 8 + [0.2, 0.35]])
    steady = drawn("identity", [[0.1] * 10])
    contenders = Contenders([held_up, steady], 90)
    assert contenders.value(held_up) > contenders.value(steady) + 0.5
    assert contenders.log_ratio(held_up, steady).value == pytest.approx(np.log(0.5))
    assert held_up in race_state([held_up, steady], []).contests[0].undecided


def test_a_round_is_at_least_as_uncertain_as_its_inputs_scatter() -> None:
    calm, jittery = [0.1 + 0.0001 * place for place in range(10)], [0.05, 0.2] * 5
    others = [drawn(name, [calm] * 3) for name in ("a", "b", "c", "d")]
    one, other = drawn("calm", [calm]), drawn("jittery", [jittery])
    contenders = Contenders([*others, one, other], 90)
    assert contenders.margin(other) > 2 * contenders.margin(one)


def test_one_round_far_beyond_a_budget_says_that_nothing_keeps_it() -> None:
    several = [contender(name, "mobile", 0.1) for name in ("identity", "quantized", "pruned")]
    far, near = contender("exact", "mobile", 0.3, rounds=1), contender("exact", "mobile", 0.0505, rounds=1)
    budgets = slo("", 0.05, None).budgets
    assert recommend([*several, far], budgets).infeasible is Status.PROVEN
    assert recommend([*several, near], budgets).infeasible is Status.OPEN
    # Where no other shows how rounds differ, nothing is said.
    assert recommend([on_rounds(member, [1]) for member in (*several, far)], budgets).infeasible is Status.ESTIMATED


def test_one_round_within_a_budget_remains_an_estimate() -> None:
    several = [contender(name, "mobile", 0.1) for name in ("identity", "quantized", "pruned")]
    answer = recommend([*several, contender("exact", "mobile", 0.01, rounds=1)], slo("", 0.05, None).budgets)
    assert answer.recommendation is not None and answer.recommendation.status is Status.ESTIMATED


def test_an_inaccurate_rival_is_worth_no_round() -> None:
    # Half of the questions about its accuracy are lost, whatever its latency.
    leader, rival = contender("identity", "mobile", 0.1), contender("pruned", "mobile", 0.099, lost=20)
    rival = replace(rival, rounds_declared=1)
    state = race_state([leader, rival], [slo("quick", 0.5, 1.0)])
    assert state.contests[0].leader is leader and rival not in state.contests[0].undecided
