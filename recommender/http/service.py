"""Health, readiness and metrics for operating the service, and its two pages."""

from importlib.metadata import version
from importlib.resources import files

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST

from recommender.errors import Draining
from recommender.http.evidence import EvidenceNow
from recommender.http.middleware import ServiceMetrics
from recommender.http.problems import documented
from recommender.schemas import HealthResponse
from recommender.schemas.resources import LivenessResponse

router = APIRouter(tags=["service"])


@router.get("/healthz", responses=documented(413, 500, 503))
async def healthz() -> LivenessResponse:
    """Return 200 while the process answers, with evidence or without."""
    # The evidence is not read: a restart would not repair a database. In the event loop, so that it also answers while
    # all threads compute.
    return LivenessResponse(version=version("tierwise"))


def _refuse_while_draining(request: Request) -> None:
    """Raise `Draining` once the service was told to stop."""
    if request.app.state.drain.begun:
        raise Draining


# Before the evidence is looked at: a service that stops is not ready, whatever it could answer.
@router.get("/readyz", responses=documented(413, 500, 503), dependencies=[Depends(_refuse_while_draining)])
def readyz(request: Request, evidence: EvidenceNow) -> HealthResponse:
    """Return 200 when a question can be answered now; otherwise a problem that says what is missing."""
    return HealthResponse(
        version=version("tierwise"),
        subjects=len(evidence.subjects),
        loaded_at=evidence.loaded_at.isoformat(),
        left_out=len(evidence.left_out),
        refresh=request.app.state.snapshots.refresh(),
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses=documented(401, 413, 500, 503)
    | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus exposition format"}},
)
def metrics(request: Request) -> Response:
    """Return requests by route and status, and how much evidence the answers rest on."""
    counted: ServiceMetrics = request.app.state.metrics
    return Response(counted.text(), headers={"content-type": CONTENT_TYPE_LATEST})


_STATIC = "/docs/static"


def install_api_page(app: FastAPI) -> None:
    """Serve the page and its script, style and icon; nothing is loaded from elsewhere."""
    app.mount(_STATIC, StaticFiles(directory=str(files("fastapi_offline") / "static")), name="docs-static")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=app.openapi_url or "",
            title=app.title,
            swagger_js_url=f"{_STATIC}/swagger-ui-bundle.js",
            swagger_css_url=f"{_STATIC}/swagger-ui.css",
            swagger_favicon_url=f"{_STATIC}/favicon.png",
        )


def install_question_page(app: FastAPI) -> None:
    """Serve the page and its script and style."""
    directory = str(files("recommender") / "page")
    app.mount("/page", StaticFiles(directory=directory), name="page")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(f"{directory}/index.html", media_type="text/html")
