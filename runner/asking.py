"""The recommender's question, asked from the command line: the same code that answers over HTTP, without the web."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from recommender.answering import respond
from recommender.schemas import RecommendRequest, RecommendResponse
from recommender.snapshot import Snapshots
from runner.errors import RunnerError


def ask(database: str, question: Mapping[str, Any]) -> RecommendResponse:
    """Answer from the evidence in a database; entries that are None were not asked.

    Raises
    ------
    RunnerError
        When a budget is impossible, with what is allowed.
    """
    asked = {name: value for name, value in question.items() if value is not None}
    if "slo" in asked:
        asked.pop("latency_percentile", None)
    try:
        request = RecommendRequest(**asked)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "question"
        raise RunnerError(f"{where}: {first['msg']}, got {first.get('input')!r}") from error
    snapshots = Snapshots(database)
    try:
        return respond(snapshots.current(), request)
    finally:
        snapshots.close()
