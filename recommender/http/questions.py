"""Routes that answer questions.

An answer that is kept, or takes a few milliseconds of arithmetic over evidence in memory, is given in the event loop:
threads would only take turns at it. Everything else, such as resampling, waits for its turn in the queue of questions.
"""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from recommender import examples
from recommender.errors import NotDeclared
from recommender.http.answer_cache import AnswerCache, Moment
from recommender.http.connections import CLIENT
from recommender.http.problems import documented, problem_for
from recommender.http.question_queue import QuestionQueue
from recommender.schemas import RecommendRequest, RecommendResponse
from recommender.schemas.resources import BatchItem, BatchRequest, BatchResponse

router = APIRouter()

T = TypeVar("T")

_ANSWERED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer with its evidence; no recommendation if no estimate is within the budgets",
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
    at_once = partial(cache.at_once, question)
    body = at_once() or await _in_turn(request, question.subject, partial(cache.json_for, question), at_once)
    # Encoded already: returned as a model, the answer would be validated and encoded a second time.
    return Response(body, media_type="application/json")


@router.post(
    "/recommend/batch",
    response_model=BatchResponse,
    responses=documented(401, 413, 422, 500, 503),
    tags=["questions"],
)
async def batch(body: BatchRequest, request: Request) -> Response:
    """Answer several questions at once, all from the same snapshot of the evidence."""
    moment = await run_in_threadpool(answers(request).now)
    items = [await _item(request, moment, question) for question in body.questions]
    return Response(b'{"answers":[%b]}' % b",".join(items), media_type="application/json")


async def _item(request: Request, moment: Moment, question: RecommendRequest) -> bytes:
    """Return a `BatchItem` as JSON."""
    cache = answers(request)
    # Other requests get the event loop between two questions.
    await asyncio.sleep(0)
    try:
        at_once = partial(cache.at_once, question, moment)
        answer = at_once()
        if answer is None:
            answer = await _in_turn(request, question.subject, partial(cache.json_for, question, moment), at_once)
    # An unknown name concerns its question alone; any other error concerns all of them and is raised.
    except NotDeclared as error:
        return BatchItem(problem=problem_for(error, "/recommend/batch")).model_dump_json().encode()
    return b'{"answer":%b,"problem":null}' % answer


async def _in_turn(request: Request, subject: str, compute: Callable[[], T], at_once: Callable[[], T | None]) -> T:
    """Compute when it is the turn of the client that asks, and of the subject."""
    queue: QuestionQueue = request.app.state.queue
    # Without the limits on connections, as another server may run the application, an address is a client.
    client = request.scope.get(CLIENT) or (request.client.host if request.client else "")
    return await queue.run(compute, client=client, subject=subject, at_once=at_once)
