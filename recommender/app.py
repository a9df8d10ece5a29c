"""The assembly of the service: settings in, application out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware

from recommender.answer.tabulation import Tabulation
from recommender.evidence.snapshots import Snapshots
from recommender.http import evidence, problems, questions, service, whatif
from recommender.http.draining import Drain
from recommender.http.evidence import EvidenceLookup
from recommender.http.middleware import (
    ApiKey,
    BodyLimit,
    LocalOnly,
    RequestLog,
    RequestObserver,
    RequestRecorder,
    SafeHeaders,
    ServiceMetrics,
    TimeLimit,
)
from recommender.http.questions import AnswerCache, QuestionQueue, QuickAnswers
from recommender.http.service import install_api_page, install_question_page
from recommender.settings import RecommenderSettings

_DESCRIPTION = """\
Which operator on which tier: budgets in, a strategy with its measured evidence out.

All latencies are end to end, for unloaded, single-stream, closed-loop requests. SI units throughout.
Errors are problem details (RFC 9457). Evidence comes from `runner fill-catalog`; new evidence is seen at once.
"""


def create_app(settings: RecommenderSettings | None = None, *, log: RequestLog | None = None) -> FastAPI:
    """Build the application; the database is opened at the first question and may be created later.

    Requests are noted in `log`; without one, the server that runs the application may log them.

    Raises `Unprotected` when the settings name an address that others reach, without a key.
    """
    chosen = settings or RecommenderSettings()
    chosen.require_protection()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        app.state.queue.close()
        app.state.snapshots.close()

    app = _Service(
        title="Tierwise recommender",
        version=version("tierwise"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # the stock page loads its scripts from a content network
        redoc_url=None,
    )
    snapshots = Snapshots(chosen.database, follow=True, prepare=Tabulation())
    app.state.snapshots = snapshots
    app.state.answers = AnswerCache(snapshots)
    app.state.queue = QuestionQueue()
    app.state.drain = Drain()
    app.state.lookup = EvidenceLookup(chosen.database)
    app.state.metrics = ServiceMetrics(snapshots)
    secret = None if chosen.api_key is None else chosen.api_key.get_secret_value()
    app.state.recorder = RequestRecorder(app.state.metrics, log, secret=secret)
    for resources in (questions, evidence, whatif):
        app.include_router(resources.router, dependencies=[Depends(problems.refuse_unknown_parameters)])
    # What watches a service may add parameters of its own.
    app.include_router(service.router)
    install_api_page(app)
    install_question_page(app)
    problems.install(app)
    _wrap(app, chosen)
    return app


def _wrap(app: FastAPI, chosen: RecommenderSettings) -> None:
    """Add the middleware from the inside out: the last one added sees a request first."""
    app.add_middleware(QuickAnswers, cache=app.state.answers)
    # Within all that refuse: of a request that another layer refuses, the body is never read.
    app.add_middleware(BodyLimit, limit_bytes=chosen.max_body_bytes)
    if chosen.api_key is not None:
        app.add_middleware(ApiKey, key=chosen.api_key.get_secret_value())
    elif not chosen.without_key:
        app.add_middleware(LocalOnly, host=chosen.host)
    # Outside the key: a browser sends its preflight request (OPTIONS) without credentials.
    if chosen.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=chosen.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-api-key"],
        )
    # Outside all that may wait for a client or compute.
    app.add_middleware(TimeLimit, limit_s=chosen.max_request_s)
    # Outside every layer that refuses, so that refusals carry the headers too.
    app.add_middleware(SafeHeaders)
    # Outermost, so that refusals are counted and timed as well.
    app.add_middleware(RequestObserver, recorder=app.state.recorder)


class _Service(FastAPI):
    """FastAPI whose OpenAPI document names the media type that its problems really have."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            # FastAPI keeps the document that it returns here, so what is changed below stays changed.
            document = super().openapi()
            operations = [operation for path in document["paths"].values() for operation in path.values()]
            for operation in operations:
                for status, response in operation["responses"].items():
                    if int(status) >= 400 and "application/json" in response.get("content", {}):
                        response["content"] = {problems.MEDIA_TYPE: response["content"]["application/json"]}
        return self.openapi_schema or {}
