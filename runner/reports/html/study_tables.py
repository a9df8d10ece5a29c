"""The study's tables: accuracies with drops, intervals and McNemar's p, and matrices of effect sizes.

Accuracies are laid out as the study's Table 6, effect sizes as its Tables 5 and 7 to 16.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from catalog.analysis import DropResult, FamilyResult, PairResult, SubjectResult
from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.statistics.families import StrategyFamily
from catalog.statistics.study_analysis import speedup
from catalog.units import duration, points, pvalue, size
from runner.reports.html.figures import families_of_all
from runner.reports.html.markup import Child, Html, joined, table, tag
from runner.reports.html.operator_sentences import METRICS, StudyAccuracies, whole_strategies
from runner.reports.html.sentences import METRIC_NAMES, Codes, PairOfSubject, SubjectOutcome, extent, listed, split
from runner.reports.html.summary import StrategyPair


def ratio_table(pairs: Sequence[StrategyPair], tasks: Mapping[str, str]) -> Html:
    """Return a row per pair and a column per subject: factor, difference of medians, effect size, decision.

    Columns of averages follow, over the subjects of each task, in which directions agree more often than over all.
    """
    rows, subjects = [], list(tasks)
    groups = [[subject for subject in subjects if tasks[subject] == task] for task in dict.fromkeys(tasks.values())]
    averaged = [group for group in groups if 1 < len(group) < len(subjects)]
    for pair in pairs:
        members = {member.subject: member for member in pair.members}
        cells = ["–" if (member := members.get(subject)) is None else ratio_cell(member) for subject in subjects]
        averages = [_average_cell([members[name] for name in group if name in members]) for group in averaged]
        rows.append([f"{pair.spoken_of} : {pair.reference}", *cells, *averages])
    caption = (
        "Ratio and difference of medians, subject by subject; Cliff's delta where the study's test is significant; "
        "what the deciding analysis says"
    )
    heads = ["pair", *subjects, *(f"average of {listed(group)}" for group in averaged)]
    return table(caption, heads, rows, texts=tuple(range(len(heads))))


def _average_cell(members: Sequence[PairOfSubject]) -> str:
    """Return `1.45x lower (1.29x to 1.62x)`; no average of opposite directions."""
    if not members:
        return "–"
    if len({member.direction for member in members}) > 1:
        return "opposite directions"
    average = speedup([member.median_s for member in members], [member.reference_s for member in members])
    factors = [speedup(member.median_s, member.reference_s).factor for member in members]
    return (
        "equal"
        if average.direction == "equal"
        else f"{average.factor:.2f}x {average.direction} ({extent(factors, 'x')})"
    )


def ratio_cell(member: PairOfSubject) -> str:
    """Return `1.59x lower, -3.30 s, large, different`."""
    compared = speedup(member.median_s, member.reference_s)
    difference_s = member.median_s - member.reference_s
    paper = member.pair.paper
    # A pair is stored with its earlier member on the left, whichever of the two the row speaks of.
    delta = -paper.delta if member.turned else paper.delta
    effect = f"{paper.magnitude} ({delta:+.2f})" if paper.significant else "not significant"
    words = [
        "equal" if compared.direction == "equal" else f"{compared.factor:.2f}x {compared.direction}",
        f"{'−' if difference_s < 0 else '+'}{duration(abs(difference_s))}",
        effect,
    ]
    return ", ".join(words if member.outcome is SubjectOutcome.UNDECIDED else [*words, _decided(member)])


def _decided(member: PairOfSubject) -> str:
    return "different" if member.outcome in (SubjectOutcome.LOWER, SubjectOutcome.HIGHER) else str(member.outcome)


def median_table(operators: Sequence[str], results: Sequence[SubjectResult]) -> Html:
    """Return the median latency and the interquartile range of every placement of some operators, by subject."""
    names = dict.fromkeys(
        strategy.name for result in results for strategy in result.strategies if strategy.evidence.operator in operators
    )
    by_subject = [{strategy.name: strategy.description for strategy in result.strategies} for result in results]
    rows = (
        [
            name,
            *(
                "–"
                if (description := described.get(name)) is None
                else f"{duration(description.median)} (IQR {duration(description.interquartile_range)})"
                for described in by_subject
            ),
        ]
        for name in names
    )
    caption = "Median latency of all samples, and interquartile range"
    return table(caption, ["strategy", *(result.subject for result in results)], rows)


def accuracy_table(results: Sequence[SubjectResult]) -> Html | None:
    """Return a row per subject and uncut operator; None without accuracies."""
    evidence = [whole_strategy for result in results for whole_strategy in whole_strategies(result)]
    judged = [strategy for strategy in evidence if strategy.accuracy is not None]
    if not judged:
        return None
    placements = list(dict.fromkeys(strategy.placement for strategy in evidence))
    metrics = [
        name for name in (*METRICS, "agreement") if any(_value(strategy, name) is not None for strategy in judged)
    ]
    heads = ["subject, operator", "size", *(f"{METRIC_NAMES[m]} {p}, %" for m in metrics for p in placements)]
    rows = (
        [*_row(members, metrics, placements), *_drop_cells(members, result)]
        for result in results
        for members in _by_operator(result)
    )
    caption = (
        "Accuracy over the whole validation set (as Table 6). Drops are against identity, in percentage points, with "
        "intervals that hold together, paired by item"
    )
    return table(caption, [*heads, "drop [interval]", "McNemar p", "lost, gained"], rows)


def graph_table(results: Sequence[SubjectResult]) -> Html | None:
    """Return parameters, nodes and size of what each operator makes of each model; None where none is known."""
    rows = []
    for result in results:
        artifacts: dict[str, StrategyEvidence] = {}
        for strategy in result.strategies:
            artifacts.setdefault(strategy.evidence.operator, strategy.evidence)
        identity = next((evidence for evidence in artifacts.values() if not evidence.passes), None)
        for operator, evidence in artifacts.items():
            graph, reference = evidence.graph_size, identity and identity.graph_size
            counts = (
                (graph.parameters, reference and reference.parameters, _count),
                (graph.nodes, reference and reference.nodes, _count),
                (evidence.size_bytes, identity and identity.size_bytes, size),
            )
            if any(count is not None for count, _, _ in counts):
                rows.append([f"{result.subject} {operator}", *(_beside(*count) for count in counts)])
    caption = (
        "Size of the models (as Table 6): parameters, nodes and files, of all parts together, and their share of "
        "identity's"
    )
    return table(caption, ["subject, operator", "parameters", "nodes", "size"], rows) if rows else None


def _beside(count: int | None, reference: int | None, shown: Callable[[int], str]) -> str:
    """Return a count and its share of identity's."""
    if count is None:
        return "unknown"
    return shown(count) if not reference or count == reference else f"{shown(count)} ({100 * count / reference:.1f} %)"


def _count(number: int) -> str:
    """Return a count with three figures or more: `65.14 M`, `49`."""
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number:,}".replace(",", " ")


def _by_operator(result: SubjectResult) -> list[list[StrategyEvidence]]:
    groups: dict[str, list[StrategyEvidence]] = {}
    for whole_strategy in whole_strategies(result):
        groups.setdefault(whole_strategy.operator, []).append(whole_strategy)
    return list(groups.values())


def _value(strategy: StrategyEvidence, metric: str) -> float | None:
    if strategy.accuracy is None:
        return None
    if strategy.accuracy.metric == "agreement":
        return strategy.accuracy.accuracy_pct if metric == "agreement" else None
    value: float | None = getattr(strategy.accuracy, f"{metric}_pct", None)
    return value


def _row(members: Sequence[StrategyEvidence], metrics: Sequence[str], placements: Sequence[str]) -> Iterator[str]:
    by_placement = {member.placement: member for member in members}
    yield f"{members[0].subject} {members[0].operator}"
    yield size(members[0].size_bytes)
    for metric in metrics:
        for placement in placements:
            value = _value(by_placement[placement], metric) if placement in by_placement else None
            yield "–" if value is None else f"{value:.2f}"


def _drop_cells(members: Sequence[StrategyEvidence], result: SubjectResult) -> Iterator[str]:
    """Yield the drop of each provider once; without items a drop has no interval."""
    drops = [drop for drop in result.drops if drop.operator == members[0].operator]
    # One drop for each provider: only then does its name say anything.
    several = len(drops) > 1
    if not drops:
        drop_texts = {points(member.drop_pp) for member in members if member.drop_pp is not None and member.passes}
        yield from (", ".join(sorted(drop_texts)) + " (no items)" if drop_texts else "–", "–", "–")
        return
    yield "; ".join(_interval(drop) + (f" {drop.accuracy.provider}" if several else "") for drop in drops)
    yield "; ".join("–" if drop.drop.pvalue is None else pvalue(drop.drop.pvalue) for drop in drops)
    yield "; ".join("–" if drop.drop.lost is None else f"{drop.drop.lost}, {drop.drop.gained}" for drop in drops)


def _interval(result: DropResult) -> str:
    return f"{result.drop.drop_pp:.2f} [{result.drop.low_pp:.2f}, {result.drop.high_pp:.2f}]"


def wilcoxon_table(accuracies: StudyAccuracies) -> Html:
    """Return the study's test of accuracies, over all measurements and with each shared one counted once."""
    heads = (
        "pair",
        "drops, points",
        "pairs",
        "p",
        "significant",
        "Cliff's delta",
        "pairs, once",
        "p, once",
        "significant, once",
    )
    rows = (
        [
            f"{pooled.pair.left} : {pooled.pair.right}",
            f"{pooled.smallest_drop:.2f} to {pooled.largest_drop:.2f}",
            str(pooled.test.count),
            pvalue(pooled.test.pvalue),
            "yes" if pooled.significant else "no",
            f"{pooled.delta:.2f} {pooled.magnitude}",
            str(once.test.count),
            pvalue(once.test.pvalue),
            "yes" if once.significant else "no",
        ]
        for pooled, once in accuracies.both()
    )
    caption = (
        f"Wilcoxon's signed-rank test, exact, Bonferroni level {accuracies.pooled.corrected_alpha:.4g}: as in the "
        "paper over subjects, metrics and tiers, and with tiers that share a measurement counted once"
    )
    return table(caption, heads, rows)


FOOTNOTE = (
    "Row against column above the diagonal, column against row below it, as in the study: the member listed first "
    "against the one listed later. A minus sign: the first one has the lower latency, it is the faster one. "
    "L, M, S, N: large, medium, small, negligible (Cliff's delta). Empty: not significant. ·: not measured. "
    "†: the analysis that decides says otherwise."
)
# By what an operator does: it may be called anything. The figures are numbers of the study's tables.
_TIERS = {(): "5", ("static_ptq",): "10", ("early_exit",): "11", ("static_ptq", "early_exit"): "14"}
_PARTITIONS = {("partition",): ("12", "13"), ("static_ptq", "early_exit", "partition"): ("15", "16")}
_OPERATORS = {"operators@mobile": "7", "operators@edge": "8", "operators@cloud": "9"}


@dataclass(frozen=True)
class _Matrix:
    """One family of all subjects."""

    family: StrategyFamily
    by_subject: Mapping[str, FamilyResult]
    codes: Codes

    def cell(self, subject: str | None, left: str, right: str) -> str:
        pair = self._pairs(subject).get((left, right)) if subject else None
        if pair is None:
            return "·" if subject else ""
        return pair.paper.symbol + ("†" if pair.disagreement else "")

    def _pairs(self, subject: str) -> Mapping[tuple[str, str], PairResult]:
        pairs = self.by_subject[subject].pairs if subject in self.by_subject else ()
        return {(pair.paper.left, pair.paper.right): pair for pair in pairs}


def effect_tables(results: Sequence[SubjectResult], codes: Codes) -> Iterator[Html]:
    """Yield all matrices, family by family, two subjects to a triangle."""
    passes = _passes_by_operator(results)
    for family in families_of_all(results):
        by_subject = {
            result.subject: result_family
            for result in results
            for result_family in result.families
            if result_family.paper.family.name == family.name
        }
        matrix = _Matrix(family, by_subject, codes)
        if family.kind == "partitions":
            yield from _partition_tables(
                matrix, _PARTITIONS.get(passes.get(family.name.partition(":")[2], ()), ("", ""))
            )
        elif family.kind == "tiers":
            table_number = _TIERS.get(passes.get(family.name.partition(":")[2], ()), "")
            yield from _triangles(matrix, family.members, table_number, lambda name: codes.placements[split(name)[1]])
        else:
            yield from _triangles(matrix, family.members, _OPERATORS.get(family.name, ""), codes.head)


def _passes_by_operator(results: Sequence[SubjectResult]) -> Mapping[str, tuple[str, ...]]:
    evidence = [
        strategy for result in results for strategy in (*(s.evidence for s in result.strategies), *result.unmeasured)
    ]
    return {strategy.operator: tuple(str(step["name"]) for step in strategy.passes) for strategy in evidence}


def _partition_tables(matrix: _Matrix, table_numbers: tuple[str, str]) -> Iterator[Html]:
    """Yield placements across tiers compared among themselves, then each of them with every single tier."""
    operator = matrix.family.name.partition(":")[2]
    across = [name for name in matrix.family.members if split(name)[0] == operator]
    single = [name for name in matrix.family.members if split(name)[0] != operator]

    def head(name: str) -> str:
        return matrix.codes.placements[split(name)[1]]

    if len(across) > 1:
        yield from _triangles(matrix, across, table_numbers[0], head)
    if not single:
        return
    for subject in matrix.by_subject:
        rows = [[head(row), *(_turned(matrix.cell(subject, column, row)) for column in single)] for row in across]
        corner = f"{matrix.codes.operators[operator]} \\ {matrix.codes.operators[split(single[0])[0]]}"
        caption = _caption(f"{matrix.family.name}, {subject}: rows against columns", table_numbers[1])
        yield table(caption, [corner, *map(head, single)], rows, class_="matrix")


def _turned(cell: str) -> str:
    """Return the same effect in the other direction: the members are listed with the single tiers first."""
    if cell in ("", "·", "†"):
        return cell
    # Cliff's delta of the pair in the other order has the other sign and the same magnitude.
    return cell[1:] if cell.startswith("-") else f"-{cell}"


def _triangles(
    matrix: _Matrix, members: Sequence[str], table_number: str, head: Callable[[str], Child]
) -> Iterator[Html]:
    subjects = list(matrix.by_subject)
    # Two subjects to a square, one above and one below the diagonal, as the study prints its tables.
    for start in range(0, len(subjects), 2):
        upper, lower = subjects[start], subjects[start + 1] if start + 1 < len(subjects) else None
        rows = [
            [head(row), *(_triangle_cell(matrix, members, (i, j), upper, lower) for j in range(len(members)))]
            for i, row in enumerate(members)
        ]
        title = f"{matrix.family.name}: {upper} above" + (f", {lower} below" if lower else "")
        yield table(_caption(title, table_number), ["", *map(head, members)], rows, class_="matrix")


def _triangle_cell(
    matrix: _Matrix, members: Sequence[str], place: tuple[int, int], upper: str, lower: str | None
) -> str:
    row, column = place
    if row == column:
        return "-"
    # Below the diagonal the column's member is the earlier one, and a pair is stored with the earlier one first.
    subject = upper if row < column else lower
    return matrix.cell(subject, members[min(place)], members[max(place)])


def _caption(title: str, table_number: str) -> Html:
    return joined(title, tag("span", f" (as Table {table_number})", class_="muted") if table_number else None)
