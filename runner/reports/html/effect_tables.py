"""Matrices of effect sizes, laid out as the study's Tables 5 and 7 to 16."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from catalog.analysis import FamilyResult, PairResult, SubjectResult
from catalog.statistics import StrategyFamily
from runner.reports.html.figures import families_of_all
from runner.reports.html.markup import Child, Html, joined, table, tag
from runner.reports.html.sentences import Codes, split

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
    passes = _passes(results)
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


def _passes(results: Sequence[SubjectResult]) -> Mapping[str, tuple[str, ...]]:
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
