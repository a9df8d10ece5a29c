"""The answers in short, per operator: where it is fastest, how often it beats identity, what it costs in accuracy."""

from collections.abc import Iterator, Sequence

from catalog.analysis import DropResult, FamilyResult, SubjectResult
from catalog.output_distance import percentage
from catalog.statistics.verdicts import Verdict
from runner.reports.html.codes import split
from runner.reports.html.sentences import MissingSubject, Outcome, PairOfSubject, without
from runner.reports.html.words import METRIC_NAMES, count, extent, listed, scope, sentence, spoken


def fastest_sentence(operator: str, results: Sequence[SubjectResult], family: str) -> str | None:
    """On which of its placements an operator is fastest: those that none of the others is shown to beat."""
    fronts: dict[tuple[str, ...], list[str]] = {}
    missing: list[MissingSubject] = []
    decided = True
    everyone = []
    for result in results:
        found = next((each for each in result.families if each.paper.family.name == family), None)
        members = [] if found is None else [name for name in found.paper.members if split(name)[0] == operator]
        if found is None or len(members) < 2:
            missing.append(MissingSubject(result.subject, "fewer than two placements measured"))
        else:
            front = _unbeaten(found, members)
            decided &= all(pair.decided.refusal is None for pair in found.pairs)
            everyone.append(result.subject)
            fronts.setdefault(tuple(split(name)[1] for name in front), []).append(result.subject)
    if not fronts:
        return None
    parts = [
        f"on {_placed(front)} {scope(subjects, everyone, again=number > 0)}"
        for number, (front, subjects) in enumerate(fronts.items())
    ]
    if not decided:
        return sentence(f"what was measured does not decide where {spoken(operator)} is fastest everywhere")
    return sentence(f"{spoken(operator)} is fastest {listed(parts)}{without(missing)}")


def _placed(front: Sequence[str]) -> str:
    return front[0] if len(front) == 1 else f"{' or '.join(front)} (not told apart)"


def _unbeaten(family: FamilyResult, members: Sequence[str]) -> list[str]:
    """Those that no other of the members is shown to be faster than, the smallest median first."""
    beaten = set()
    for pair in family.pairs:
        left, right = pair.paper.left, pair.paper.right
        if pair.decided.verdict is Verdict.DIFFERENT and pair.decided.high is not None:
            loser, winner = (right, left) if pair.decided.high < 1 else (left, right)
            if winner in members:
                beaten.add(loser)
    medians = dict(zip(family.paper.members, family.paper.median.tolist(), strict=True))
    return sorted((name for name in members if name not in beaten), key=lambda name: float(medians[name]))


def tally_sentence(
    operator: str,
    reference: str,
    where: str,
    compared: Sequence[PairOfSubject],
    *,
    missing: Sequence[MissingSubject] = (),
) -> str | None:
    """How often the operator is faster or slower, over subjects and tiers."""
    if not compared:
        return None
    outcomes = [each.outcome for each in compared]
    words = {
        "faster": outcomes.count(Outcome.LOWER),
        "slower": outcomes.count(Outcome.HIGHER),
        "equivalent": outcomes.count(Outcome.EQUIVALENT),
        "unresolved": outcomes.count(Outcome.UNRESOLVED),
        "not decided": outcomes.count(Outcome.UNDECIDED),
    }
    said = ", ".join(f"{word} in {count(number)}" for word, number in words.items() if number)
    total = f"{count(len(outcomes))} comparison{'s' if len(outcomes) > 1 else ''}"
    return sentence(f"{spoken(operator)} against {spoken(reference)} {where}: {said} of {total}{without(missing)}")


def accuracy_sentences(operator: str, results: Sequence[SubjectResult]) -> Iterator[str]:
    """What the operator loses against identity, one sentence per metric."""
    found = [(result.subject, drop) for result in results for drop in result.drops if drop.operator == operator]
    for metric in dict.fromkeys(drop.metric for _, drop in found):
        drops = {subject: drop for subject, drop in reversed(found) if drop.metric == metric}
        yield _drop_sentence(operator, metric, dict(reversed(drops.items())))


def outputs_sentence(operator: str, results: Sequence[SubjectResult]) -> str | None:
    """In which subjects the operator's outputs are far from identity's; None where they are in none."""
    far: dict[str, str] = {}
    for result in results:
        for strategy in result.strategies:
            distance = strategy.evidence.output_distance
            if strategy.evidence.operator != operator or distance is None or not distance.is_large:
                continue
            error = distance.relative_error
            far[result.subject] = "in what is finite" if error is None else f"by {percentage(error)}"
    if not far:
        return None
    told = listed([f"{figure} in {subject}" for subject, figure in far.items()])
    return sentence(f"{spoken(operator)} gives other outputs than identity: they differ {told}")


def _drop_sentence(operator: str, metric: str, drops: dict[str, DropResult]) -> str:
    lost = extent([each.drop.drop_pp for each in drops.values()])
    name = METRIC_NAMES.get(metric, metric)
    shown = [subject for subject, each in drops.items() if each.drop.low_pp > 0 or each.drop.high_pp < 0]
    if len(drops) == 1:
        said = "shown" if shown else "not told from none"
        return sentence(f"{spoken(operator)} has a {name} drop of {lost} points in {next(iter(drops))}, {said}")
    told = f"shown in {count(len(shown))} of {count(len(drops))}" if shown else "not told from none in any"
    return sentence(f"{spoken(operator)} has a {name} drop of {lost} points across {listed(list(drops))}; {told}")


def against_whole(operator: str, results: Sequence[SubjectResult]) -> tuple[str, list[PairOfSubject]]:
    """A cut operator on its fastest placement against the uncut one on its fastest tier; also the uncut one's name."""
    whole, compared = "", []
    for result in results:
        family = next((each for each in result.families if each.paper.family.name == f"partitions:{operator}"), None)
        if family is None:
            continue
        across = [name for name in family.paper.members if split(name)[0] == operator]
        single = [name for name in family.paper.members if split(name)[0] != operator]
        if across and single:
            whole = split(single[0])[0]
            best = _unbeaten(family, single)[0], _unbeaten(family, across)[0]
            pair = next(each for each in family.pairs if (each.paper.left, each.paper.right) == best)
            medians = dict(zip(family.paper.members, family.paper.median.tolist(), strict=True))
            compared.append(PairOfSubject(result.subject, medians[best[1]], medians[best[0]], pair, turned=True))
    return whole, compared
