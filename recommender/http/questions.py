"""Routes that answer questions.

Reading evidence and resampling it takes up to seconds and runs in the server's thread pool. Arithmetic over evidence in
memory takes a millisecond or two and runs in the event loop, since threads would only take turns at it.
"""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from recommender import examples
from recommender.answer import respond
from recommender.errors import NotDeclared
from recommender.evidence.model import Evidence
from recommender.http.answer_cache import AnswerCache
from recommender.http.problems import documented, problem_for
from recommender.schemas import RecommendRequest, RecommendResponse
from recommender.schemas.resources import BatchItem, BatchRequest, BatchResponse

router = APIRouter()

_ANSWERED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer with its evidence; no recommendation if no strategy is known to meet every budget",
        "content": {
            "application/json": {
                "examples": {
                    "recommended": {
                        "summary": "True, from docs/example-evidence.json.gz: " + json.dumps(examples.QUESTION),
                        "value": examples.answer(),
                    }
                }
            }
        },
    }
}


def answers(request: Request) -> AnswerCache:
    """Return the application's cache of answers."""
    cache: AnswerCache = request.app.state.answers
    return cache


@router.post(
    "/recommend",
    response_model=RecommendResponse,
    responses={**_ANSWERED, **documented(401, 404, 413, 422, 500, 503)},
    tags=["questions"],
)
async def recommend(question: RecommendRequest, request: Request) -> Response:
    """Recommend an operator on a placement within these budgets, with the evidence."""
    cache = answers(request)
    body = cache.at_once(question) or await run_in_threadpool(cache.json_for, question)
    # Encoded already: returned as a model, the answer would be validated and encoded a second time.
    return Response(body, media_type="application/json")


@router.post("/recommend/batch", responses=documented(401, 413, 422, 500, 503), tags=["questions"])
# Not `async`, so that up to 100 questions run in the thread pool and not in the event loop.
def batch(body: BatchRequest, cache: Annotated[AnswerCache, Depends(answers)]) -> BatchResponse:
    """Answer several questions at once, all from the same snapshot of the evidence."""
    evidence = cache.current()
    return BatchResponse(answers=[_item(evidence, question) for question in body.questions])


def _item(evidence: Evidence, question: RecommendRequest) -> BatchItem:
    try:
        return BatchItem(answer=respond.respond(evidence, question))
    # An unknown name concerns its question alone; any other error concerns all of them and is raised.
    except NotDeclared as error:
        return BatchItem(problem=problem_for(error, "/recommend/batch"))
