"""What a reader must know before acting on an answer."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from weakref import ref

from catalog.statistics.intervals import inputs_needed
from catalog.units import counted, duration
from recommender.answer.wording import join, output_warnings, percentile_name, strategy_name
from recommender.errors import FILL_COMMAND
from recommender.evidence.model import DeclaredStrategy, EnvironmentChoice, SubjectEvidence
from recommender.ranking import Candidate, Constraints, Estimate, Objective, RankedAnswer
from recommender.ranking.candidates import CandidateCache


def cautions(
    answer: RankedAnswer,
    chosen: EnvironmentChoice,
    constraints: Constraints,
    strategies: Mapping[Candidate, DeclaredStrategy],
) -> Iterator[str]:
    """Yield what to know of the answers, the evidence, the recommendation and the environment."""
    yield from _of_evidence(answer, chosen.subject_evidence, strategies)
    yield from _thin_ranking(answer)
    if answer.recommendation is not None:
        yield from _doubts(answer.recommendation.candidate)
        yield from _drift(answer.recommendation.estimate, answer.budgets.equivalent_within)
        yield from _replicas(answer.recommendation.candidate)
        yield from _relayed(answer.recommendation.candidate, constraints)
        yield from _unknown_objective(answer.recommendation.candidate, answer.budgets.objective)
    yield from _of_latencies(answer, chosen.subject_evidence, strategies)
    yield from _environment(chosen)


# By the evidence of the subject, and as many as tables of candidates (`recommender.ranking.table`): one for each choice
# of constraints.
_evidence_cautions: CandidateCache[tuple[str, ...]] = CandidateCache(most=16)
_latency_cautions: CandidateCache[tuple[str, ...]] = CandidateCache(most=64)


def _of_evidence(
    answer: RankedAnswer, subject_evidence: SubjectEvidence, strategies: Mapping[Candidate, DeclaredStrategy]
) -> Sequence[str]:
    """Return what to know of the evidence of the considered strategies, which no budget changes."""
    candidates = [estimate.candidate for estimate in answer.considered]

    def made() -> tuple[str, ...]:
        doubtful = _doubtful(
            [strategies[candidate] for candidate in candidates],
            here=subject_evidence.environment.imported_from is None,
        )
        return (*output_warnings(candidates), *_remarks(candidates), *_rounds(candidates), *doubtful)

    # Weak references, so that the key does not keep candidates of an older snapshot alive.
    return _evidence_cautions.get(subject_evidence, tuple(map(ref, candidates)), made) if candidates else ()


def _of_latencies(
    answer: RankedAnswer, subject_evidence: SubjectEvidence, strategies: Mapping[Candidate, DeclaredStrategy]
) -> Sequence[str]:
    """Return what to know of the latencies of the considered strategies at the percentile, which no limit changes."""
    budgets = answer.budgets
    candidates = tuple([ref(estimate.candidate) for estimate in answer.considered])
    key = candidates, budgets.percentile, budgets.equivalent_within
    return _latency_cautions.get(subject_evidence, key, lambda: tuple(_slow_int8(answer, strategies)))


def _unknown_objective(best: Candidate, objective: Objective) -> Iterator[str]:
    """Say that nothing could be ranked by what was asked for; what is not known of one loses against any figure."""
    if objective == "cpu" and best.client_cpu_s is None:
        yield "the CPU that strategies take was not recorded here, so they are ranked by latency"
    if objective == "size" and best.size_bytes is None:
        yield "no artifact's size is known here (rows may bring `size_bytes`), so strategies are ranked by latency"
    if objective == "sent" and best.sent_bytes is None:
        yield "what strategies send was not recorded here (rows may bring `sent_bytes`), so they are ranked by latency"


# More doubtful rounds of one strategy would bury the other notes.
_DOUBTS = 3
# Fewer rounds in common describe two strategies and do not tell which one is faster.
_DECIDING_ROUNDS = 3


def _doubts(best: Candidate) -> Iterator[str]:
    """Name the doubtful rounds of the recommended strategy, or how many there are."""
    if len(best.doubts) <= _DOUBTS:
        yield from best.doubts
    else:
        yield f"{strategy_name(best)}: {len(best.doubts)} of its {best.rounds} rounds are marked doubtful"


def _rounds(considered: Sequence[Candidate]) -> Iterator[str]:
    total = len(considered)
    # A race stops measuring a strategy once it cannot change an answer.
    candidates = [candidate for candidate in considered if candidate.error_share == 1]
    once = [candidate for candidate in candidates if candidate.rounds == 1]
    if once:
        yield (
            f"{_count(once, total)} measured in one round alone: one round describes and does not "
            "decide; measure at least three (`experiment.rounds`)"
        )
    partial = [
        candidate
        for candidate in candidates
        if candidate.rounds_declared and candidate.rounds < candidate.rounds_declared
    ]
    if partial:
        yield f"{_count(partial, total)} measured in fewer rounds than declared; `{FILL_COMMAND}` measures the rest"


def _doubtful(considered: list[DeclaredStrategy], *, here: bool) -> Iterator[str]:
    """Yield one line about all doubtful rounds, with the rule that most of them failed."""
    rules = Counter(rule for strategy in considered for rule in strategy.doubts)
    if rules:
        rounds = sum(strategy.candidate.rounds for strategy in considered if strategy.candidate is not None)
        rule, most = rules.most_common(1)[0]
        # One in four is not most of them.
        mostly = f"mostly for {rule} ({most})" if 2 * most > rules.total() else f"for {', '.join(sorted(rules))}"
        mostly = f"for {rule}" if len(rules) == 1 else mostly
        # What was measured elsewhere cannot be measured again from here.
        again = f"; `{FILL_COMMAND} --redo doubtful` measures them again" if here else ""
        verb = "is" if rules.total() == 1 else "are"
        yield f"{rules.total()} of the {rounds} rounds of the considered strategies {verb} DOUBTFUL, {mostly}{again}"


def _thin_ranking(answer: RankedAnswer) -> Iterator[str]:
    """Warn where an order without a latency budget rests on few inputs."""
    best = answer.recommendation.estimate if answer.recommendation else None
    # With a budget of latency, too few inputs leave a candidate undecided and are reported there.
    if best is None or answer.budgets.latency:
        return
    needed = inputs_needed(best.percentile)
    # What rounds drew from a pool may be bounded by fewer inputs.
    if best.interval.low_s is None and best.candidate.inputs < needed:
        yield (
            f"{percentile_name(best.percentile)} rests on {counted(best.candidate.inputs, 'input')}; "
            f"bounding it takes {needed}, so read it as a description"
        )


def _drift(best: Estimate, margin: float) -> Iterator[str]:
    """Warn of rounds that differ by more than what the caller calls equivalent."""
    low, high = min(best.percentile_s_by_round), max(best.percentile_s_by_round)
    if high > low * (1 + margin):
        yield (
            f"{strategy_name(best.candidate)}: {percentile_name(best.percentile)} drifts between rounds, from "
            f"{duration(low)} to {duration(high)} ({100 * (high / low - 1):.0f} %)"
        )


def _replicas(best: Candidate) -> Iterator[str]:
    """Say of how many machines of one class the figures are, and for which they hold."""
    if testbeds := sorted(set(best.hosts.values())):
        few = "; two say little about a third, so measure on more of them" if len(testbeds) == 2 else ""
        yield (
            f"rounds ran on {len(testbeds)} testbeds of one class ({', '.join(testbeds)}), and intervals hold for "
            f"machines of that class{few}"
        )


def _relayed(best: Candidate, constraints: Constraints) -> Iterator[str]:
    """Name the tiers that may not compute but still pass bytes on."""
    # Resources are recorded on every tier of the route; what neither computes nor starts the request is a relay.
    relays = {*best.memory_bytes, *best.cpu_s} - {*best.tiers, best.client}
    allowed = constraints.allow_tiers
    for tier in sorted(relays):
        if tier in constraints.forbid_tiers or (allowed is not None and tier not in allowed):
            yield f"{strategy_name(best)} is reached through {tier}, which computes nothing but passes its bytes on"


def _slow_int8(answer: RankedAnswer, strategies: Mapping[Candidate, DeclaredStrategy]) -> Iterator[str]:
    """Warn of quantized strategies that are slower than float: beyond the margin, in each of three common rounds."""
    estimates = {
        (estimate.candidate.operator, estimate.candidate.placement): estimate for estimate in answer.considered
    }
    slower = []
    for estimate in answer.considered:
        name = strategies[estimate.candidate].float_operator
        other = estimates.get((name, estimate.candidate.placement)) if name is not None else None
        if other is not None and _slower(estimate, other, answer.budgets.equivalent_within):
            slower.append((estimate.percentile_s / other.percentile_s, estimate, other))
    if slower:
        # One warning for all, with the worst as the example.
        ratio, estimate, other = max(slower, key=lambda pair: pair[0])
        more = f" (and {len(slower) - 1} more)" if len(slower) > 1 else ""
        yield (
            f"int8 is slower than float here: {strategy_name(estimate.candidate)} takes {ratio:.2f} times the "
            f"{percentile_name(estimate.percentile)} of {strategy_name(other.candidate)}{more}"
        )


def _slower(estimate: Estimate, other: Estimate, margin: float) -> bool:
    if not estimate.percentile_s > other.percentile_s * (1 + margin):
        return False
    # By number, because either side may lack a round; what they have in common was measured under the same conditions.
    mine, its = _by_round(estimate), _by_round(other)
    common = mine.keys() & its.keys()
    # Two equally fast strategies keep one order over two rounds every second time.
    return len(common) >= _DECIDING_ROUNDS and all(mine[number] > its[number] for number in common)


def _by_round(estimate: Estimate) -> Mapping[int, float]:
    numbers = estimate.candidate.round_numbers or range(len(estimate.percentile_s_by_round))
    return dict(zip(numbers, estimate.percentile_s_by_round, strict=False))


def _remarks(candidates: Sequence[Candidate]) -> Iterator[str]:
    """Yield the remarks on accuracies that say nothing, with all operators that share one together."""
    # Dictionaries serve as ordered sets: operators come in the order of the answer.
    operators: dict[str, dict[str, None]] = {}
    for candidate in candidates:
        accuracy = candidate.accuracy
        if accuracy is not None and accuracy.remark is not None:
            operators.setdefault(accuracy.remark, {})[candidate.operator] = None
    for remark, names in operators.items():
        yield f"{join(list(names))}: {remark}"


def _environment(chosen: EnvironmentChoice) -> Iterator[str]:
    subject_evidence = chosen.subject_evidence
    environment = subject_evidence.environment
    if environment.scale != "1":
        yield f"emulated at {environment.scale}: budgets are judged on the emulation only"
    if environment.setting is not None:
        yield f"at {environment.setting}; `runner leaderboard` has all settings, `--environment` chooses another"
    if environment.launcher == "process":
        yield "measured with the process launcher: no containers, links paced in user space"
    if subject_evidence.inputs_select == "largest":
        yield "measured on the largest inputs: an upper bound for the latency of the population"
    if environment.imported_from is not None:
        files = [origin.name for origin in subject_evidence.files] or [environment.imported_from]
        yield f"imported from {' and '.join(files)}, not measured here"
    if not subject_evidence.complete:
        yield f"the evidence of this environment is not complete; `{FILL_COMMAND}` continues it"
    if chosen.others:
        yield (
            f"{counted(chosen.others, 'other environment')} with evidence {'was' if chosen.others == 1 else 'were'} "
            f"left out; this one is {chosen.why}; "
            "name another with `environment`, or by `host`, `scale` and `launcher`"
        )


def _count(some: list[Candidate], total: int) -> str:
    if len(some) == total:
        return "every strategy was" if total > 1 else "the strategy was"
    if len(some) == 1:
        return f"{strategy_name(some[0])} was"
    return f"{len(some)} of {total} strategies were"
