"""The questions.

Reading evidence and drawing for it takes up to seconds and runs in the server's thread pool; arithmetic over what is in
memory already takes a millisecond or two and runs where the request arrives, since threads would only take turns at it.
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
        "description": "The answer with its evidence; no recommendation when nothing is known to hold every budget",
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
    """The application's answers from the newest evidence."""
    found: AnswerCache = request.app.state.answers
    return found


@router.post(
    "/recommend",
    response_model=RecommendResponse,
    responses={**_ANSWERED, **documented(401, 404, 413, 422, 500, 503)},
    tags=["questions"],
)
async def recommend(question: RecommendRequest, request: Request) -> Response:
    """Which operator on which placement, within these budgets, and on what evidence."""
    held = answers(request)
    body = held.at_once(question) or await run_in_threadpool(held.json_for, question)
    return Response(body, media_type="application/json")


@router.post("/recommend/batch", responses=documented(401, 413, 422, 500, 503), tags=["questions"])
def batch(asked: BatchRequest, held: Annotated[AnswerCache, Depends(answers)]) -> BatchResponse:
    """Several questions at once, all answered from the same picture of the evidence."""
    known = held.current()
    return BatchResponse(answers=[_item(known, question) for question in asked.questions])


def _item(known: Evidence, question: RecommendRequest) -> BatchItem:
    try:
        return BatchItem(answer=respond.respond(known, question))
    except NotDeclared as error:
        return BatchItem(problem=problem_for(error, "/recommend/batch"))
