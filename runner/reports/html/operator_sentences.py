"""What one operator changes, over all subjects: where it is fastest, and how often it is faster than identity."""

from collections.abc import Sequence

from catalog.analysis import FamilyResult, SubjectResult
from catalog.output_distance import percentage
from catalog.statistics.outcomes import ComparisonOutcome
from catalog.units import duration
from runner.reports.html.sentences import (
    MissingSubject,
    PairOfSubject,
    SubjectOutcome,
    count,
    listed,
    scope,
    sentence,
    split,
    spoken,
    without,
)


def fastest_sentence(operator: str, results: Sequence[SubjectResult], family: str) -> str | None:
    """Name the placements where an operator is fastest: those that none of the others is shown to beat."""
    fronts: dict[tuple[str, ...], list[str]] = {}
    missing: list[MissingSubject] = []
    decided = True
    everyone = []
    for result in results:
        family_result = next(
            (candidate for candidate in result.families if candidate.paper.family.name == family), None
        )
        members = (
            []
            if family_result is None
            else [name for name in family_result.paper.members if split(name)[0] == operator]
        )
        if family_result is None or len(members) < 2:
            missing.append(MissingSubject(result.subject, "fewer than two placements measured"))
        else:
            front = _unbeaten(family_result, members)
            # One pair without a decision leaves open whether another placement is faster.
            decided &= all(pair.decided.refusal is None for pair in family_result.pairs)
            everyone.append(result.subject)
            # Subjects with the same placements share a clause.
            fronts.setdefault(tuple(split(name)[1] for name in front), []).append(result.subject)
    if not fronts:
        return None
    clauses = [
        f"on {_placed(front)} {scope(subjects, everyone, again=number > 0)}"
        for number, (front, subjects) in enumerate(fronts.items())
    ]
    if not decided:
        return sentence(f"what was measured does not decide where {spoken(operator)} is fastest everywhere")
    return sentence(f"{spoken(operator)} is fastest {listed(clauses)}{without(missing)}")


def extreme_medians(operator: str, results: Sequence[SubjectResult], family: str) -> str | None:
    """Name the placements of an operator with the lowest and the highest median, with the medians of each subject."""
    places: dict[str, dict[str, dict[str, float]]] = {"lowest": {}, "highest": {}}
    everyone = []
    for result in results:
        medians = _medians(result, operator, family)
        if len(medians) < 2:
            continue
        everyone.append(result.subject)
        for word, place in (
            ("lowest", min(medians, key=medians.__getitem__)),
            ("highest", max(medians, key=medians.__getitem__)),
        ):
            places[word].setdefault(place, {})[result.subject] = medians[place]
    if not everyone:
        return None
    texts = [
        f"{word} on " + listed([f"{place} ({_named_medians(subjects)})" for place, subjects in by_place.items()])
        for word, by_place in places.items()
    ]
    return sentence(f"the median latency of {spoken(operator)} is {' and '.join(texts)}")


def _medians(result: SubjectResult, operator: str, family: str) -> dict[str, float]:
    """Return the medians of the operator's placements in a family, in seconds."""
    for family_result in result.families:
        if family_result.paper.family.name == family:
            paired = zip(family_result.paper.members, family_result.paper.median.tolist(), strict=True)
            return {split(name)[1]: float(median) for name, median in paired if split(name)[0] == operator}
    return {}


def _named_medians(subjects: dict[str, float]) -> str:
    return listed([f"{subject} {duration(median_s)}" for subject, median_s in subjects.items()])


def _placed(front: Sequence[str]) -> str:
    return front[0] if len(front) == 1 else f"{' or '.join(front)} (not shown to differ)"


def _unbeaten(family: FamilyResult, members: Sequence[str]) -> list[str]:
    """Return the members that no other is shown to be faster than, the smallest median first."""
    beaten = set()
    for pair in family.pairs:
        left, right = pair.paper.left, pair.paper.right
        if pair.decided.verdict is ComparisonOutcome.DIFFERENT and pair.decided.high is not None:
            # A ratio of left by right below 1: the left one is faster.
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
    """Count how often the operator is faster or slower, over subjects and tiers."""
    if not compared:
        return None
    outcomes = [member.outcome for member in compared]
    if outcomes.count(SubjectOutcome.UNDECIDED) == len(outcomes):
        return _undecided_tally(operator, reference, where, compared, missing)
    words = {
        "faster": outcomes.count(SubjectOutcome.LOWER),
        "slower": outcomes.count(SubjectOutcome.HIGHER),
        "equivalent": outcomes.count(SubjectOutcome.EQUIVALENT),
        "unresolved": outcomes.count(SubjectOutcome.UNRESOLVED),
        "not decided": outcomes.count(SubjectOutcome.UNDECIDED),
    }
    text = ", ".join(f"{word} in {count(number)}" for word, number in words.items() if number)
    total = f"{count(len(outcomes))} comparison{'s' if len(outcomes) > 1 else ''}"
    return sentence(f"{spoken(operator)} against {spoken(reference)} {where}: {text} of {total}{without(missing)}")


def _undecided_tally(
    operator: str, reference: str, where: str, compared: Sequence[PairOfSubject], missing: Sequence[MissingSubject]
) -> str:
    """Count directions of medians where the study's test is significant: all that one round supports."""
    shown = [member.direction for member in compared if member.is_shown]
    words = {
        "lower": shown.count("lower"),
        "higher": shown.count("higher"),
        "not significantly different": len(compared) - len(shown),
    }
    text = ", ".join(f"{word} in {count(number)}" for word, number in words.items() if number)
    total = f"{count(len(compared))} comparison{'s' if len(compared) > 1 else ''}"
    return sentence(
        f"the median latency of {spoken(operator)} against {spoken(reference)} {where} is {text} of {total} by the "
        f"study's test; what decides needs more rounds{without(missing)}"
    )


def outputs_sentence(operator: str, results: Sequence[SubjectResult]) -> str | None:
    """Name the subjects where the operator's outputs are far from identity's; None if there are none."""
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
    figures = listed([f"{figure} in {subject}" for subject, figure in far.items()])
    return sentence(f"{spoken(operator)} gives other outputs than identity: they differ {figures}")


def against_whole(operator: str, results: Sequence[SubjectResult]) -> tuple[str, list[PairOfSubject]]:
    """Compare a cut operator on its fastest placement with the uncut one on its fastest tier; also name that."""
    whole, compared = "", []
    for result in results:
        family = next(
            (family for family in result.families if family.paper.family.name == f"partitions:{operator}"), None
        )
        if family is None:
            continue
        across = [name for name in family.paper.members if split(name)[0] == operator]
        single = [name for name in family.paper.members if split(name)[0] != operator]
        if across and single:
            whole = split(single[0])[0]
            best = _unbeaten(family, single)[0], _unbeaten(family, across)[0]
            # A family lists single tiers before placements across tiers, so that its pairs have them on the left.
            pair = next(pair for pair in family.pairs if (pair.paper.left, pair.paper.right) == best)
            medians = dict(zip(family.paper.members, family.paper.median.tolist(), strict=True))
            compared.append(PairOfSubject(result.subject, medians[best[1]], medians[best[0]], pair, turned=True))
    return whole, compared
