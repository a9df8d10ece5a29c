"""Under which ids the evidence of an answer can be fetched, and the SHA-256 of what it recommends."""

from collections.abc import Iterable, Iterator

from rich.table import Table
from rich.text import Text

from recommender.evidence_lookup import EvidenceIds
from recommender.schemas import RecommendResponse, StrategyOut


def considered(answer: RecommendResponse) -> Iterator[StrategyOut]:
    """Every strategy of the answer, in its order."""
    if answer.recommendation is not None:
        yield answer.recommendation
    yield from (*answer.alternatives, *answer.undecided, *answer.near_misses)


def evidence_table(answer: RecommendResponse, found: Iterable[tuple[StrategyOut, EvidenceIds]]) -> Table:
    """One row per id, whole, so that each can be copied: GET /evidence/ID, or `runner sql`."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.title, table.title_justify, table.title_style = "evidence (GET /evidence/ID)", "left", "bold"
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    if answer.environment is not None:
        table.add_row("environment", Text(answer.environment.key))
    for each, ids in found:
        name = f"{each.operator} on {each.placement}"
        for kind, identity in (("latency", ids.latency), ("accuracy", ids.accuracy)):
            table.add_row(f"{name}: {kind}", Text(identity or "–"))
    if answer.recommendation is not None:
        for file, sha256 in answer.recommendation.artifact_sha256.items():
            table.add_row(f"{file}: sha256", Text(sha256))
    return table
