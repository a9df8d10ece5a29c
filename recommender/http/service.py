"""Health, readiness and metrics for operating the service, and its two pages."""

import time
from collections.abc import Iterable
from importlib.metadata import version
from importlib.resources import files

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recommender.errors import RecommenderError
from recommender.evidence.snapshots import Snapshots
from recommender.http.evidence import EvidenceNow
from recommender.http.problems import documented
from recommender.schemas import HealthResponse
from recommender.schemas.resources import LivenessResponse

# A kept answer takes less than a millisecond, a new one about two, the first one seconds (docs/recommend.md).
_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class ServiceMetrics:
    """One registry per application, so that two in one process never share a count."""

    def __init__(self, snapshots: Snapshots) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "tierwise_requests", "Requests answered", ["route", "method", "status"], registry=self.registry
        )
        self._duration = Histogram(
            "tierwise_request_duration_seconds",
            "From the first byte of a request to the last of its response",
            ["route"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.registry.register(_EvidenceCollector(snapshots))
        self._labelled: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def record(self, *, route: str, method: str, status: int, duration_s: float) -> None:
        """Count one request."""
        count, durations = self._children(route, method, status)
        count.inc()
        durations.observe(duration_s)

    def _children(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        """Return the metrics of these labels, looked up once; routes, methods and statuses are few."""
        key = route, method, status
        if key not in self._labelled:
            self._labelled[key] = self._requests.labels(route, method, str(status)), self._duration.labels(route)
        return self._labelled[key]

    def text(self) -> bytes:
        """Return the metrics in Prometheus' exposition format."""
        return generate_latest(self.registry)


class MetricsMiddleware:
    """Times every request. Routes are labelled by their template, unknown ones together, so that labels stay few."""

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # The status to count where the application fails before it answers.
        status = 500
        started = time.perf_counter()

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            route = getattr(scope.get("route"), "path", None) or "(other)"
            method = scope["method"] if scope["method"] in _METHODS else "(other)"
            self._metrics.record(route=route, method=method, status=status, duration_s=time.perf_counter() - started)


# HTTP lets a client make up methods, and each would be a label that stays.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _EvidenceCollector(Collector):
    """Reads the state of the evidence at each scrape."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not open the database."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield how much evidence there is, or that it cannot be read."""
        ready = GaugeMetricFamily("tierwise_ready", "1 when a question can be answered now")
        try:
            evidence = self._snapshots.current()
        except RecommenderError:
            ready.add_metric([], 0)
            yield ready
            return
        ready.add_metric([], 1)
        yield ready
        yield GaugeMetricFamily(
            "tierwise_evidence_loaded_timestamp_seconds",
            "When the evidence in memory was read",
            value=evidence.loaded_at.timestamp(),
        )
        strategies = GaugeMetricFamily(
            "tierwise_strategies", "Strategies of the default environment", labels=["subject", "state"]
        )
        for subject in evidence.subjects:
            subject_evidence = evidence.select(subject)
            strategies.add_metric([subject, "declared"], len(subject_evidence.strategies))
            strategies.add_metric([subject, "measured"], len(subject_evidence.candidates))
        yield strategies


router = APIRouter(tags=["service"])


@router.get("/healthz", responses=documented(413, 500, 503))
async def healthz() -> LivenessResponse:
    """Return 200 while the process answers, with evidence or without."""
    # The evidence is not read: a restart would not repair a database. In the event loop, so that it also answers while
    # all threads compute.
    return LivenessResponse(version=version("tierwise"))


@router.get("/readyz", responses=documented(413, 500, 503))
def readyz(evidence: EvidenceNow) -> HealthResponse:
    """Return 200 when a question can be answered now; otherwise a problem that says what is missing."""
    return HealthResponse(
        version=version("tierwise"),
        subjects=len(evidence.subjects),
        loaded_at=evidence.loaded_at.isoformat(),
        left_out=len(evidence.left_out),
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses=documented(401, 413, 500, 503)
    | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus exposition format"}},
)
def metrics(request: Request) -> Response:
    """Return requests by route, and how much evidence the answers rest on."""
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
        # The browser asks again at every visit, so that a new version never meets an old page.
        return FileResponse(f"{directory}/index.html", media_type="text/html", headers={"cache-control": "no-cache"})
