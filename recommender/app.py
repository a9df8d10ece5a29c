"""The service's one place of assembly: settings in, application out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from recommender import api_page, problems
from recommender.body_limit import BodyLimit
from recommender.routes import router
from recommender.settings import RecommenderSettings
from recommender.snapshot import Snapshots

MAX_BODY_BYTES = 64 * 1024

_DESCRIPTION = """\
Which operator on which tier: budgets in, a strategy with its measured evidence out.

All latencies are end to end, for unloaded, single-stream, closed-loop requests. SI units throughout.
Errors are problem details (RFC 9457). Evidence comes from `runner fill-catalog`; new evidence is seen at once.
"""


def create_app(settings: RecommenderSettings | None = None) -> FastAPI:
    """Build the application; the database is opened at the first question and may come into being later."""
    chosen = settings or RecommenderSettings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        app.state.snapshots.close()

    app = _Service(
        title="Tierwise recommender",
        version=version("tierwise"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # the stock page loads its scripts from a content network
        redoc_url=None,
    )
    app.state.snapshots = Snapshots(chosen.database)
    app.include_router(router)
    api_page.install(app)
    app.add_middleware(BodyLimit, limit_bytes=MAX_BODY_BYTES)
    problems.install(app)
    return app


class _Service(FastAPI):
    """FastAPI whose OpenAPI document names the media type that its problems really have."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            for operation in (each for path in document["paths"].values() for each in path.values()):
                for status, response in operation["responses"].items():
                    if int(status) >= 400 and "application/json" in response.get("content", {}):
                        response["content"] = {problems.MEDIA_TYPE: response["content"]["application/json"]}
        return self.openapi_schema or {}
