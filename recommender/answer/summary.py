"""An answer in sentences: what to use, how sure that is, why, and what would make it sure; and what to know of it."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from weakref import ref

from catalog.evidence.strategy_evidence import EnvironmentEvidence
from catalog.statistics.intervals import inputs_needed
from catalog.units import counted, duration, size
from recommender.answer.question_command import fill_command
from recommender.answer.to_do import ToDo
from recommender.answer.wording import (
    chance,
    doubt,
    how_sure,
    in_points,
    join,
    lacks,
    output_warnings,
    passed_over,
    percentile_name,
    prediction_note,
    quality_note,
    relaxation_words,
    strategy_name,
    undecided_reason,
)
from recommender.errors import FILL_COMMAND
from recommender.evidence.model import DeclaredStrategy, EnvironmentChoice, SubjectEvidence
from recommender.ranking import Candidate, Constraints, Estimate, NearMiss, Objective, Prospect, RankedAnswer, Status
from recommender.ranking.candidates import CandidateCache
from recommender.ranking.model import WITHOUT_ESTIMATE
from recommender.schemas.base import CONDITIONS


def summary(
    answer: RankedAnswer, to_do: ToDo | None, *, reason: str | None = None, unpredicted: Sequence[DeclaredStrategy] = ()
) -> str:
    """Summarise any answer for a reader who acts on it.

    `reason` is what `why` says, where that is known already; `unpredicted` are measured strategies without a prediction
    on the requested links.
    """
    best = answer.recommendation
    if unpredicted and not answer.considered and not answer.excluded:
        first = unpredicted[0]
        return (
            f"Of {counted(len(unpredicted), 'measured strategy')} none has a prediction on these links: "
            f"{first.operator} on {first.placement} has {first.reason}."
        )
    if best is None:
        rest = _left_open(answer, unpredicted, "keeps them")
        return " ".join(filter(None, (f"{nothing(answer)}.", rest, _way_out(answer, to_do))))
    sentences = [f"{head(answer, best)}.", _capital(reason or why(answer))]
    sentences += filter(None, [_left_open(answer, unpredicted, "is better")])
    if to_do is not None:
        sentences.append(f"{to_do.words}.")
    if answer.proven is not None:
        estimate = answer.proven.estimate
        latency = f"{percentile_name(estimate.percentile)} {duration(estimate.percentile_s)}"
        sentences.append(f"Proven already is {strategy_name(answer.proven.candidate)} ({latency}).")
    candidate, note = best.candidate, quality_note(answer)
    quality = "" if note is None else f"; {note}"
    sentences.append(
        f"This rests on {counted(candidate.rounds, 'round')} of {counted(candidate.inputs, 'input')} each, "
        f"{CONDITIONS}{_promise(answer, best)}{quality}."
    )
    return " ".join(sentences)


def head(answer: RankedAnswer, best: Prospect) -> str:
    """Say what to use and how sure that is, in a clause that a manager reads."""
    name = strategy_name(best.candidate)
    if not answer.budgets.any_set:
        return f"Use {name}"
    if best.status is Status.PROVEN:
        return f"Use {name}: it is proven to keep every budget"
    if best.probability is None:
        return f"By its estimates {name}; how sure that is cannot be said, {_reason(best)}"
    word = "Probably" if best.status is Status.LIKELY else "Perhaps"
    return f"{word} {name}: {chance(best.probability)}"


def _left_open(answer: RankedAnswer, unpredicted: Sequence[DeclaredStrategy], what: str) -> str | None:
    """Say that what has no prediction might be the best, or the only one to keep the budgets."""
    if not unpredicted:
        return None
    total = len(answer.considered) + len(answer.excluded) + len(unpredicted)
    verb = "has" if len(unpredicted) == 1 else "have"
    return (
        f"Whether another one {what} is open: {len(unpredicted)} of {total} measured strategies {verb} no prediction "
        "on these links."
    )


def nothing(answer: RankedAnswer) -> str:
    """Say what became of the candidates when none of them is recommended."""
    if not answer.considered:
        if answer.excluded:
            return f"All of the {len(answer.excluded)} measured strategies are excluded by a constraint"
        return "Nothing has been measured for this subject in this environment yet"
    if answer.within:
        first = answer.within[0]
        sure = "" if first.probability is None else f" ({chance(first.probability)})"
        reason = "" if first.gap is None else f": {undecided_reason(first.gap)}"
        name = f"{strategy_name(first.candidate)}{sure}"
        return f"No strategy is proven to keep every budget; the best candidate is {name}{reason}"
    return f"{_infeasible(answer)}; {_nearest(answer)}"


def _infeasible(answer: RankedAnswer) -> str:
    probability, count = answer.infeasible_probability, len(answer.considered)
    none = (
        "the only considered strategy does not keep"
        if count == 1
        else f"none of the {count} considered strategies keeps"
    )
    if answer.infeasible is Status.PROVEN:
        return f"Proven: {none} every budget"
    if answer.infeasible is Status.LIKELY and probability is not None:
        return f"Probably {none} every budget: {chance(probability)}"
    sure = "how sure that is cannot be said" if probability is None else f"that is open, {chance(probability)}"
    return f"By the estimates {none} every budget; {sure}"


def _nearest(answer: RankedAnswer) -> str:
    nearest = answer.near_misses[0]
    return f"the nearest, {strategy_name(nearest.estimate.candidate)}, {join(list(lacks(nearest)))}"


def _way_out(answer: RankedAnswer, to_do: ToDo | None) -> str:
    ways = []
    if answer.relaxations:
        ways.append(f"The cheapest single change: {relaxation_words(answer.relaxations[0])}.")
    elif answer.excluded or answer.near_misses:
        ways.append("No single change of one budget or constraint makes a strategy proven.")
    if to_do is not None:
        ways.append(f"{to_do.words}.")
    elif not answer.considered and not answer.excluded:
        ways.append(f"Run `{FILL_COMMAND}`, then ask again.")
    return " ".join(ways)


def _reason(best: Prospect) -> str:
    return "nothing says how far the estimates may be off" if best.gap is None else undecided_reason(best.gap)


def _promise(answer: RankedAnswer, best: Prospect) -> str:
    if not answer.budgets.any_set:
        return "; no budget was asked, so nothing is promised"
    if best.status is not Status.PROVEN:
        return ""
    level = best.joint_confidence
    # Four decimals would round it to 1.0000, a certainty that no sample gives.
    confidence = "above 0.9999" if level > 0.9999 else f"{level:.4f}"
    return f"; all budgets hold with joint confidence {confidence}, over {counted(len(answer.considered), 'candidate')}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


_MOST = {
    "latency": "fastest",
    "accuracy": "most accurate",
    "size": "smallest",
    "sent": "least data sent",
    "cpu": "least CPU where the raw input arises",
}
_BETTER = {
    "latency": "faster",
    "accuracy": "more accurate",
    "size": "smaller",
    "sent": "sending less",
    "cpu": "taking less CPU",
}


# What an objective makes small, or large; evidence from elsewhere may lack it.
_MEASURED = {
    "latency": "the latency",
    "accuracy": "the accuracy",
    "size": "the size of the artifact",
    "sent": "how much is sent",
    "cpu": "the CPU time",
}


def why(answer: RankedAnswer) -> str:
    """Say in numbers why the recommendation was chosen over the next best."""
    best = answer.recommendation
    if best is None:
        raise ValueError("an answer without a recommendation has nothing to explain")
    note = prediction_note(best.candidate)
    quicker = passed_over(answer)
    # A faster strategy that was passed over needs more of an explanation than the next best.
    if quicker is not None:
        return f"{_instead_of(best, quicker)}{note}."
    following = next((prospect for prospect in answer.within if not _unknown(prospect)), None)
    objective = answer.budgets.objective
    # What is better and less sure is no "next best": `not_chosen` says why it was not chosen.
    if following is None or (_value(following, objective) < _value(best, objective) and following.loss >= best.loss):
        return f"{_claim(answer, best)}{note}."
    return f"{_claim(answer, best)}; {_against(best, following)}{note}."


def not_chosen(answer: RankedAnswer) -> Iterator[str]:
    """Say why not a better strategy by the objective, and why not the best proven one."""
    best = answer.recommendation
    if best is None:
        return
    objective = answer.budgets.objective
    better = [prospect for prospect in answer.within if _value(prospect, objective) < _value(best, objective)]
    # Less loss, and not chosen: a tie, or answers that nothing vouches for. `why` has said so.
    dearer = [prospect for prospect in better if _unknown(prospect) or prospect.loss >= best.loss]
    if dearer:
        first = min(dearer, key=lambda prospect: _value(prospect, objective))
        name = f"{strategy_name(first.candidate)} is {_BETTER[objective]} ({_amount(first, objective)})"
        yield f"{name}, but {_risk(first)}"
    if answer.proven is not None:
        yield f"{strategy_name(answer.proven.candidate)} is proven, {_price(best, answer.proven, objective)}"


def _risk(prospect: Prospect) -> str:
    if _unknown(prospect):
        return "its accuracy is not known"
    if prospect.probability is None:
        return "nothing says how sure it is that it keeps the budgets"
    sure = how_sure(prospect.status, prospect.probability)
    return f"whether it keeps the budgets is less sure ({sure}), which is not worth the gain"


def _price(best: Prospect, proven: Prospect, objective: Objective) -> str:
    """Say what the proven strategy costs against the recommended one."""
    if objective != "latency":
        return f"with {_amount(proven, objective)} against {_amount(best, objective)}"
    ratio = proven.estimate.percentile_s / best.estimate.percentile_s
    if ratio < 1:
        return f"with {_amount(proven, objective)}"
    return f"and takes {ratio:.2f} times as long ({_amount(proven, objective)})"


def _unknown(prospect: Prospect) -> bool:
    return prospect.gap is not None and prospect.gap.gap in WITHOUT_ESTIMATE


def _value(prospect: Prospect, objective: Objective) -> float:
    """Return what the objective makes as small as possible; infinite where it was not measured."""
    if objective == "latency":
        return prospect.estimate.percentile_s
    candidate = prospect.candidate
    if objective == "accuracy":
        return -candidate.accuracy.accuracy_pct if candidate.accuracy else math.inf
    amount = {"size": candidate.size_bytes, "sent": candidate.sent_bytes, "cpu": candidate.client_cpu_s}[objective]
    return math.inf if amount is None else float(amount)


def _amount(prospect: Prospect, objective: Objective) -> str:
    value = _value(prospect, objective)
    accuracy = prospect.candidate.accuracy
    if objective == "latency" or math.isinf(value):
        return _latency(prospect.estimate)
    if objective == "accuracy" and accuracy is not None:
        return f"{accuracy.metric} {accuracy.accuracy_pct:.2f} %"
    return f"{duration(value)} of CPU" if objective == "cpu" else size(round(value))


def _latency(estimate: Estimate) -> str:
    return f"{percentile_name(estimate.percentile)} {duration(estimate.percentile_s)}"


def _claim(answer: RankedAnswer, best: Prospect) -> str:
    objective, number = answer.budgets.objective, _latency(best.estimate)
    if best.miss is not None:
        return _in_spite(answer, best.miss)
    others = [prospect for prospect in answer.within if not _unknown(prospect)]
    if not others:
        if len(answer.considered) == 1:
            return f"the only strategy measured, with {number}"
        return (
            f"the only one of {len(answer.considered)} measured strategies whose estimates are within every budget, "
            f"with {number}"
        )
    count = 1 + len(others)
    meeting = f"the {count} within every budget" if answer.budgets.any_set else counted(count, "strategy")
    first = min((best, *others), key=lambda prospect: _value(prospect, objective))
    if _value(first, objective) < _value(best, objective):
        return _not_first(best, first, meeting, objective)
    if math.isinf(_value(best, objective)):
        return f"{_MOST['latency']} of {meeting} ({number}), since {_MEASURED[objective]} is not known of any"
    if objective != "latency":
        number = f"{_amount(best, objective)}, {number}"
    comparable = [prospect for prospect in (best, *others) if not math.isinf(_value(prospect, objective))]
    if len(comparable) < count:
        meeting = f"the {len(comparable)} of {count} of which {_MEASURED[objective]} is known"
    return f"{_MOST[objective]} of {meeting} ({number})"


def _in_spite(answer: RankedAnswer, miss: NearMiss) -> str:
    """Say why a strategy is recommended although its estimates miss a budget."""
    count, short = len(answer.considered), join(list(lacks(miss)))
    if count == 1:
        return f"the only strategy measured; it {short}"
    return (
        f"no estimate of the {count} measured strategies is within every budget; this one is the best risk: it {short}"
    )


def _not_first(best: Prospect, first: Prospect, meeting: str, objective: Objective) -> str:
    """Say why the one that is first by the objective alone was not chosen: a tie, or its risk."""
    mine, its = _amount(best, objective), _amount(first, objective)
    if first.loss < best.loss:
        as_good = "as fast as the fastest" if objective == "latency" else f"as good as the {_MOST[objective]}"
        return (
            f"{as_good} of {meeting} within the margin, {strategy_name(first.candidate)} ({its}; this one {mine}), and "
            f"preferred for {_preferred(best, first)}"
        )
    return f"best choice of {meeting}, the risk of a broken budget weighed against the gain ({mine})"


def _preferred(best: Prospect, first: Prospect) -> str:
    """Name the declared rule that broke the tie."""
    # In the order of `_tie_break` in `recommender.ranking.recommend`: the first rule that differs decided.
    one, other = best.candidate, first.candidate
    if round(100 * (best.probability or 0)) > round(100 * (first.probability or 0)):
        return "being surer to keep the budgets"
    if one.accuracy and (other.accuracy is None or one.accuracy.accuracy_pct > other.accuracy.accuracy_pct):
        return "its accuracy"
    if len(one.tiers) != len(other.tiers):
        return "needing fewer tiers"
    return "its smaller models" if one.size_bytes != other.size_bytes else "sending less data"


def _instead_of(best: Prospect, quicker: Estimate) -> str:
    """Say why a strategy was chosen although a faster one, of unjudged answers, is within the budgets."""
    return (
        f"chosen because its answers are identity's, close to them, or judged against labels "
        f"({_latency(best.estimate)}); faster is {strategy_name(quicker.candidate)} "
        f"({duration(quicker.percentile_s)}), but {doubt(quicker.candidate)}"
    )


def _against(best: Prospect, other: Prospect) -> str:
    """Compare with the next best."""
    sure = "" if other.status is Status.PROVEN else f" ({how_sure(other.status, other.probability)})"
    name = f"{strategy_name(other.candidate)}{sure}"
    return f"{_speed(best.estimate, other.estimate)} the next best, {name}{_accuracy(best.candidate, other.candidate)}"


def _speed(best: Estimate, other: Estimate) -> str:
    ratio, name = other.percentile_s / best.percentile_s, percentile_name(best.percentile)
    # A ratio nearer to 1 would print as "1.00 times faster".
    if ratio >= 1.005:
        return f"{ratio:.2f} times faster at {name} ({duration(other.percentile_s)}) than"
    if ratio <= 1 / 1.005:
        return f"{1 / ratio:.2f} times slower at {name} ({duration(other.percentile_s)}) than"
    return f"within 0.5 % at {name} ({duration(other.percentile_s)}) of"


def _accuracy(best: Candidate, other: Candidate) -> str:
    if best.operator == other.operator and best.accuracy is None and other.accuracy is None:
        # One model gives the same answers on another placement: there is nothing to compare.
        return ""
    if best.accuracy is None or other.accuracy is None:
        return ", whose accuracy cannot be compared"
    difference_pp = other.accuracy.accuracy_pct - best.accuracy.accuracy_pct
    # A smaller difference would print as 0.00 pp.
    if abs(difference_pp) < 0.005:
        return f", at the same {best.accuracy.metric}"
    word = "less" if difference_pp > 0 else "more"
    return f", and {in_points(abs(difference_pp))} {word} accurate ({best.accuracy.metric})"


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


# By the evidence of the subject, and as many as tables of candidates (`recommender.ranking.prospects`): one for each
# choice of constraints.
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
            subject_evidence.environment,
        )
        rounds = _rounds(candidates, subject_evidence.environment)
        return (*output_warnings(candidates), *_remarks(candidates), *rounds, *doubtful)

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


def _rounds(considered: Sequence[Candidate], environment: EnvironmentEvidence) -> Iterator[str]:
    total = len(considered)
    # A race stops measuring a strategy once it cannot change an answer.
    candidates = [candidate for candidate in considered if candidate.error_share == 1]
    once = [candidate for candidate in candidates if candidate.rounds == 1]
    if once:
        more = (
            "import rows of at least three (column `round`)"
            if environment.of_rows
            else "measure at least three (`experiment.rounds`)"
        )
        yield f"{_count(once, total)} measured in one round alone: one round describes and does not decide; {more}"
    partial = [
        candidate
        for candidate in candidates
        if candidate.rounds_declared and candidate.rounds < candidate.rounds_declared
    ]
    if partial and not environment.of_rows:
        rest = f"`{fill_command(environment)}` measures the rest"
        yield f"{_count(partial, total)} measured in fewer rounds than declared; {rest}"


def _doubtful(considered: list[DeclaredStrategy], environment: EnvironmentEvidence) -> Iterator[str]:
    """Yield one line about all doubtful rounds, with the rule that most of them failed."""
    rules = Counter(rule for strategy in considered for rule in strategy.doubts)
    if rules:
        rounds = sum(strategy.candidate.rounds for strategy in considered if strategy.candidate is not None)
        rule, most = rules.most_common(1)[0]
        # One in four is not most of them.
        mostly = f"mostly for {rule} ({most})" if 2 * most > rules.total() else f"for {', '.join(sorted(rules))}"
        mostly = f"for {rule}" if len(rules) == 1 else mostly
        # What was measured elsewhere cannot be measured again from here.
        here, command = environment.imported_from is None, fill_command(environment, "--redo", "doubtful")
        again = f"; `{command}` measures them again" if here else ""
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
    # No fill adds to rows of another study.
    if not subject_evidence.complete and not environment.of_rows:
        yield f"the evidence of this environment is not complete; `{fill_command(environment)}` continues it"
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


def link_cautions(
    answer: RankedAnswer, links: Mapping[str, str] | None, unpredicted: Sequence[DeclaredStrategy] = ()
) -> Iterator[str]:
    """Yield what to know of an answer about other links; `unpredicted` are measured, but cannot be predicted there."""
    if not links:
        return
    candidates: Sequence[Candidate] = [estimate.candidate for estimate in answer.considered]
    predicted = [candidate for candidate in candidates if candidate.predicted is not None]
    where = ", ".join(f"{link} at {words}" for link, words in links.items())
    yield (
        f"asked about {where}: {len(predicted)} of {len(candidates)} latencies are predicted, the others measured; "
        "bounds and comparisons of the predicted ones include the model's error"
    )
    if unpredicted:
        names = join([f"{strategy.operator}@{strategy.placement}" for strategy in unpredicted])
        yield f"measured, but without a prediction on these links: {names}; `not_considered` says why"
    if any(candidate.predicted is not None and candidate.predicted.check is None for candidate in predicted):
        yield (
            "predictions from one measured bandwidth rest on a trust in the model that nothing here checks (5 % of the "
            f"time on the wire that is exchanged, and 0.5 ms); declare the link so and run `{FILL_COMMAND}` to know"
        )
