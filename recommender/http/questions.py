"""Routes that answer questions, and the cache of encoded answers.

An answer that is kept, or takes a few milliseconds of arithmetic over evidence in memory, is given in the event loop:
threads would only take turns at it. It is given before the question is routed, because routes and dependencies take as
long as the answer. Everything else, such as resampling, waits for its turn in the queue of questions.

Of each client one question is computed at a time, and of each subject one. So a client that sends many waits behind
itself alone, and a subject whose evidence takes long to resample does not hold up the others.

A snapshot never changes, so the same question has the same answer, byte for byte, until the age of the evidence, which
an answer states in whole days, changes.
"""

import asyncio
import json
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from recommender import examples
from recommender.answer import respond
from recommender.answer.respond import today
from recommender.answer.tabulation import tabulate_together
from recommender.errors import NotDeclared, RecommenderError
from recommender.evidence.model import Evidence
from recommender.evidence.snapshots import Snapshots
from recommender.http.connections import CLIENT
from recommender.http.middleware import replay
from recommender.http.problems import documented, problem_for
from recommender.schemas import RecommendRequest, RecommendResponse
from recommender.schemas.resources import BatchItem, BatchRequest, BatchResponse

# At some 34 kB an answer (docs/recommend.md), about 17 MB.
_KEPT = 512
# A question of a shape that took less is answered in the event loop: a thread would only take turns with it. The limit
# is several times what such a question takes: one that is handed to a thread waits behind all those that are not.
_QUICK_S = 0.02
_FIGURES = {"max_latency_s", "min_accuracy_pct", "max_accuracy_drop_pp"}


@dataclass(frozen=True)
class Moment:
    """What an answer depends on besides its question."""

    # Compared by identity: every snapshot is another object.
    evidence: Evidence
    day: date


class AnswerCache:
    """Encoded answers; safe to share between threads."""

    def __init__(
        self, snapshots: Snapshots, *, kept: int = _KEPT, quick_s: float = _QUICK_S, day: Callable[[], date] = today
    ) -> None:
        self._snapshots = snapshots
        self._day = day
        self._kept = kept
        self._quick_s = quick_s
        self._lock = threading.Lock()
        self._moment: Moment | None = None
        self._quick: set[str] = set()
        self._answers: OrderedDict[str, bytes] = OrderedDict()

    def now(self) -> Moment:
        """Return the newest evidence and the day; raise `EvidenceUnavailable`."""
        return Moment(self._snapshots.current(), self._day())

    def at_once(self, question: RecommendRequest, moment: Moment | None = None) -> bytes | None:
        """Return the answer if it is cached or quick to compute; None where `json_for` may have to read evidence or
        resample."""
        if moment is None:
            evidence = self._snapshots.unchanged()
            if evidence is None:
                return None
            moment = Moment(evidence, self._day())
            self._renew(moment)
        key = question.model_dump_json()
        body = self._find(moment, key)
        if body is None and (shape := _shape(question)) in self._quick:
            body = self._compute(moment, question, key, shape)
        return body

    def json_for(self, question: RecommendRequest, moment: Moment | None = None) -> bytes:
        """Return the answer as JSON; of the newest evidence, or of an earlier moment."""
        if moment is None:
            moment = self.now()
            self._renew(moment)
        key = question.model_dump_json()
        # Another client may have asked the same while this question waited for its turn.
        return self._find(moment, key) or self._compute(moment, question, key, _shape(question))

    def _renew(self, moment: Moment) -> None:
        """Forget the answers of an earlier moment."""
        with self._lock:
            if self._moment != moment:
                self._moment = moment
                self._answers.clear()
                self._quick.clear()

    def _find(self, moment: Moment, key: str) -> bytes | None:
        with self._lock:
            body = self._answers.get(key) if self._moment == moment else None
            if body is not None:
                self._answers.move_to_end(key)
            return body

    def _compute(self, moment: Moment, question: RecommendRequest, key: str, shape: str) -> bytes:
        # CPU time of this thread: by the wall clock, a busy service would find every question slow.
        started = time.thread_time()
        body = respond.answer_json(moment.evidence, question, on=moment.day)
        quick = time.thread_time() - started < self._quick_s
        with self._lock:
            if self._moment == moment:  # else newer evidence or a new day came while this was computed
                self._keep(key, body)
                self._learn(shape, quick=quick)
        return body

    def _keep(self, key: str, body: bytes) -> None:
        self._answers[key] = body
        if len(self._answers) > self._kept:
            self._answers.popitem(last=False)

    def _learn(self, shape: str, *, quick: bool) -> None:
        if not quick:
            self._quick.discard(shape)
        # Bounded, because clients choose the shapes.
        elif len(self._quick) < self._kept:
            self._quick.add(shape)


def _shape(question: RecommendRequest) -> str:
    """Return what decides how long an answer takes: all of the question but the figures of its budgets."""
    return question.model_dump_json(exclude=_FIGURES)


# More threads would only take turns at the interpreter, and the event loop waits for its turn behind all of them.
_THREADS = 2

T = TypeVar("T")


@dataclass
class _Turn:
    """The right to compute for one client or one subject; `users` counts who has it or waits for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class QuestionQueue:
    """Computes answers in threads of its own, so that they take none from other routes."""

    def __init__(self, threads: int = _THREADS) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="question")
        # A lock belongs to an event loop, and an application may be called from several.
        self._turns: dict[tuple[asyncio.AbstractEventLoop, str, str], _Turn] = {}
        self._computations: set[asyncio.Task[object]] = set()

    async def run(
        self, compute: Callable[[], T], *, client: str, subject: str, at_once: Callable[[], T | None] = lambda: None
    ) -> T:
        """Return what `compute` returns, once it is the turn of this client and this subject.

        What `at_once` returns by then is taken instead: the question before may have computed what this one needs.

        A caller that is cancelled while it waits gives up its place. A computation that has begun cannot be stopped: it
        keeps its turns to its end, so that abandoned questions never add up.
        """
        async with AsyncExitStack() as turns:
            # First the client's: of each client one question at most waits for the subject, in the order of arrival.
            await turns.enter_async_context(self._turn("client", client))
            await turns.enter_async_context(self._turn("subject", subject))
            if (result := at_once()) is not None:
                return result
            computation = asyncio.create_task(self._compute(compute, turns.pop_all()))
        self._computations.add(computation)
        computation.add_done_callback(self._end)
        return await asyncio.shield(computation)

    async def _compute(self, compute: Callable[[], T], turns: AsyncExitStack) -> T:
        async with turns:
            return await asyncio.get_running_loop().run_in_executor(self._threads, compute)

    def close(self) -> None:
        """Let the threads end once they have nothing to compute."""
        self._threads.shutdown(wait=False)

    def _end(self, computation: "asyncio.Task[object]") -> None:
        self._computations.discard(computation)
        # Looked at, or asyncio would log the error of a computation that no client waits for any more.
        if not computation.cancelled():
            computation.exception()

    @asynccontextmanager
    async def _turn(self, kind: str, name: str) -> AsyncIterator[None]:
        key = asyncio.get_running_loop(), kind, name
        turn = self._turns.setdefault(key, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            # Clients choose the names, so the table must not grow with them.
            if not turn.users:
                del self._turns[key]


router = APIRouter()


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


_PATH = "/recommend"


@router.post(
    _PATH,
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
    items = [await _item(request, moment, body.questions, place) for place in range(len(body.questions))]
    return Response(b'{"answers":[%b]}' % b",".join(items), media_type="application/json")


# Percentiles that a batch computes at a time: more would save little, and keep others of the subject waiting.
_TOGETHER = 16


async def _item(request: Request, moment: Moment, questions: Sequence[RecommendRequest], place: int) -> bytes:
    """Return a `BatchItem` as JSON."""
    cache, question = answers(request), questions[place]

    def compute() -> bytes:
        # What the next ones need too takes a fraction of the time if it is computed together.
        end = (place // _TOGETHER + 1) * _TOGETHER
        tabulate_together(moment.evidence, questions[place:end])
        return cache.json_for(question, moment)

    # Other requests get the event loop between two questions.
    await asyncio.sleep(0)
    try:
        at_once = partial(cache.at_once, question, moment)
        answer = at_once()
        if answer is None:
            answer = await _in_turn(request, question.subject, compute, at_once)
    # An unknown name concerns its question alone; any other error concerns all of them and is raised.
    except NotDeclared as error:
        return BatchItem(problem=problem_for(error, "/recommend/batch")).model_dump_json().encode()
    return b'{"answer":%b,"problem":null}' % answer


class QuickAnswers:
    """Answers the questions of `recommend` that are answered at once; to be wrapped in `BodyLimit`.

    All others go on to the application, those that are not valid included.
    """

    def __init__(self, app: ASGIApp, cache: AnswerCache) -> None:
        self._app = app
        self._cache = cache

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asks = scope["type"] == "http" and scope["path"] == _PATH and scope["method"] == "POST" and _is_json(scope)
        # The application refuses parameters in the address.
        if not asks or scope["query_string"]:
            await self._app(scope, receive, send)
            return
        body = (await receive()).get("body", b"")
        answer = self._answer(body)
        if answer is None:
            await self._app(scope, replay(body, receive), send)
            return
        # By which the request is counted.
        scope["route"] = _ROUTE
        headers = [(b"content-length", b"%d" % len(answer)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _answer(self, body: bytes) -> bytes | None:
        try:
            return self._cache.at_once(RecommendRequest.model_validate_json(body))
        except (ValidationError, RecommenderError):
            # The application finds the same error, and says it.
            return None


_ROUTE = Route(_PATH, recommend, methods=["POST"])


def _is_json(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"content-type":
            return bytes(value).partition(b";")[0].strip().lower() == b"application/json"
    return False


async def _in_turn(request: Request, subject: str, compute: Callable[[], T], at_once: Callable[[], T | None]) -> T:
    """Compute when it is the turn of the client that asks, and of the subject."""
    queue: QuestionQueue = request.app.state.queue
    # Without the limits on connections, as another server may run the application, an address is a client.
    client = request.scope.get(CLIENT) or (request.client.host if request.client else "")
    return await queue.run(compute, client=client, subject=subject, at_once=at_once)
