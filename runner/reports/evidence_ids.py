"""Under which ids the evidence of an answer can be fetched, and the SHA-256 of what it recommends."""

from collections.abc import Iterator

from recommender.schemas import RecommendResponse, StrategyOut


def considered(answer: RecommendResponse) -> Iterator[StrategyOut]:
    """Every strategy of the answer, in its order."""
    if answer.recommendation is not None:
        yield answer.recommendation
    yield from (*answer.alternatives, *answer.undecided, *answer.near_misses)


def evidence_lines(answer: RecommendResponse) -> Iterator[str]:
    """Every id whole on a line of its own, so that it can be copied: GET /evidence/ID, or `runner sql`."""
    if answer.environment is not None:
        yield "environment"
        yield f"  {answer.environment.key}"
    for each in considered(answer):
        yield f"{each.operator} on {each.placement}: latency, accuracy"
        yield from (f"  {identity}" for identity in (each.latency_evidence_id, each.accuracy_evidence_id) if identity)
    if answer.recommendation is not None:
        for file, sha256 in answer.recommendation.artifact_sha256.items():
            yield f"{file}: SHA-256"
            yield f"  {sha256}"
