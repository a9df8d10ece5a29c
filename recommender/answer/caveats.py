"""What a reader must know before acting on an answer."""

from collections import Counter
from collections.abc import Iterator, Mapping

from catalog.statistics import inputs_needed
from recommender.answer.quality import output_warnings
from recommender.answer.wording import duration, join, percentile_name, strategy_name
from recommender.errors import FILL_COMMAND
from recommender.evidence.model import Chosen, Known
from recommender.ranking import Answer, Candidate, Constraints, Estimate


def cautions(
    answer: Answer, chosen: Chosen, constraints: Constraints, known: Mapping[Candidate, Known]
) -> Iterator[str]:
    """Of the answers, of the evidence, of the recommendation, of the environment."""
    yield from output_warnings([estimate.candidate for estimate in answer.considered])
    yield from _remarks(answer)
    yield from _rounds(answer)
    yield from _doubtful([known[each.candidate] for each in answer.considered])
    yield from _thin_ranking(answer)
    if answer.recommendation is not None:
        yield from answer.recommendation.candidate.doubts
        yield from _drift(answer.recommendation, answer.budgets.equivalent_within)
        yield from _relayed(answer.recommendation.candidate, constraints)
        if answer.budgets.objective == "cpu" and answer.recommendation.candidate.client_cpu_s is None:
            yield "the CPU that strategies take was not recorded here, so they are ranked by latency"
    yield from _slow_int8(answer, known)
    yield from _environment(chosen)


def _rounds(answer: Answer) -> Iterator[str]:
    total = len(answer.considered)
    once = [each.candidate for each in answer.considered if each.candidate.rounds == 1]
    if once:
        yield (
            f"{_count(once, total)} measured in one round alone: one round describes and does not "
            "decide; measure at least three (`experiment.rounds`)"
        )
    partial = [
        each.candidate
        for each in answer.considered
        if each.candidate.rounds_declared and each.candidate.rounds < each.candidate.rounds_declared
    ]
    if partial:
        yield f"{_count(partial, total)} measured in fewer rounds than declared; `{FILL_COMMAND}` measures the rest"


def _doubtful(considered: list[Known]) -> Iterator[str]:
    """All doubtful rounds in one line, with the rule that most of them failed."""
    rules = Counter(rule for known in considered for rule in known.doubts)
    if rules:
        rounds = sum(known.candidate.rounds for known in considered if known.candidate is not None)
        rule, most = rules.most_common(1)[0]
        mostly = f"mostly for {rule} ({most})" if len(rules) > 1 else f"for {rule}"
        yield f"{rules.total()} of the {rounds} rounds of the considered strategies are DOUBTFUL, {mostly}"


def _thin_ranking(answer: Answer) -> Iterator[str]:
    """Without a latency budget nothing is promised, but the order may still rest on few inputs."""
    best = answer.recommendation
    if best is None or answer.budgets.latency:
        return
    needed = inputs_needed(best.percentile)
    if best.candidate.inputs < needed:
        yield (
            f"{percentile_name(best.percentile)} rests on {best.candidate.inputs} inputs; "
            f"bounding it takes {needed}, so read it as a description"
        )


def _drift(best: Estimate, margin: float) -> Iterator[str]:
    """Rounds that differ by more than what the caller calls equivalent."""
    low, high = min(best.percentile_s_by_round), max(best.percentile_s_by_round)
    if high > low * (1 + margin):
        yield (
            f"{strategy_name(best.candidate)}: {percentile_name(best.percentile)} drifts between rounds, from "
            f"{duration(low)} to {duration(high)} ({100 * (high / low - 1):.0f} %)"
        )


def _relayed(best: Candidate, constraints: Constraints) -> Iterator[str]:
    """A tier that may not compute may still have to pass bytes on."""
    relays = {*best.memory_bytes, *best.cpu_s} - {*best.tiers, best.client}
    allowed = constraints.allow_tiers
    for tier in sorted(relays):
        if tier in constraints.forbid_tiers or (allowed is not None and tier not in allowed):
            yield f"{strategy_name(best)} is reached through {tier}, which computes nothing but passes its bytes on"


def _slow_int8(answer: Answer, known: Mapping[Candidate, Known]) -> Iterator[str]:
    """Quantized strategies slower than the same on float: beyond the margin, and in every round that both have."""
    estimates = {(each.candidate.operator, each.candidate.placement): each for each in answer.considered}
    slower = []
    for each in answer.considered:
        name = known[each.candidate].float_operator
        other = estimates.get((name, each.candidate.placement)) if name is not None else None
        if other is not None and _slower(each, other, answer.budgets.equivalent_within):
            slower.append((each.percentile_s / other.percentile_s, each, other))
    if slower:
        ratio, each, other = max(slower, key=lambda found: found[0])
        more = f" (and {len(slower) - 1} more)" if len(slower) > 1 else ""
        yield (
            f"int8 is slower than float here: {strategy_name(each.candidate)} takes {ratio:.2f} times the "
            f"{percentile_name(each.percentile)} of {strategy_name(other.candidate)}{more}"
        )


def _slower(each: Estimate, other: Estimate, margin: float) -> bool:
    rounds = zip(each.percentile_s_by_round, other.percentile_s_by_round, strict=False)
    return each.percentile_s > other.percentile_s * (1 + margin) and all(mine > its for mine, its in rounds)


def _remarks(answer: Answer) -> Iterator[str]:
    """Say which accuracies say nothing, all of whom the same is to be said together."""
    operators: dict[str, dict[str, None]] = {}
    for estimate in answer.considered:
        accuracy = estimate.candidate.accuracy
        if accuracy is not None and accuracy.remark is not None:
            operators.setdefault(accuracy.remark, {})[estimate.candidate.operator] = None
    for remark, names in operators.items():
        yield f"{join(list(names))}: {remark}"


def _environment(chosen: Chosen) -> Iterator[str]:
    part = chosen.part
    it = part.environment
    if it.scale != "1":
        yield f"emulated at {it.scale}: budgets are judged on the emulation only"
    if it.launcher == "process":
        yield "measured with the process launcher: no containers, links paced in user space"
    if part.inputs_select == "largest":
        yield "measured on the largest inputs: an upper bound for the latency of the population"
    if it.imported_from is not None:
        files = [imported_file.name for imported_file in it.imported_files] or [it.imported_from]
        yield f"imported from {' and '.join(files)}, not measured here"
    if not part.complete:
        yield f"the evidence of this environment is not complete; `{FILL_COMMAND}` continues it"
    if chosen.others:
        yield (
            f"{chosen.others} other environment(s) hold evidence too and were left out; this one is {chosen.why}; "
            "name another with `environment`, or by `host`, `scale` and `launcher`"
        )


def _count(some: list[Candidate], total: int) -> str:
    if len(some) == total:
        return "every strategy was" if total > 1 else "the strategy was"
    if len(some) == 1:
        return f"{strategy_name(some[0])} was"
    return f"{len(some)} of {total} strategies were"
