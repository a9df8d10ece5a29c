"""Health, readiness, metrics and the record of requests for operating the service, and its two pages."""

import time
from collections.abc import Iterable
from importlib.metadata import version
from importlib.resources import files

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recommender.errors import Draining, RecommenderError
from recommender.evidence.snapshots import Snapshots
from recommender.http.evidence import EvidenceNow
from recommender.http.middleware import RequestLog, request_line
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

    def record(self, *, route: str, method: str, status: int, duration_s: float | None) -> None:
        """Count one request; without a duration, one that never reached the application."""
        count, durations = self._children(route, method, status)
        count.inc()
        if duration_s is not None:
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


# Where a request's scope has the status of the answer that its connection sent instead of the application's.
REFUSED = "tierwise.refused"


class RequestRecorder:
    """Takes note of every answer in the metrics and, where there is one, in a log; it holds no key and no query."""

    def __init__(self, metrics: ServiceMetrics, log: RequestLog | None = None, *, secret: str | None = None) -> None:
        self._metrics = metrics
        self._log = log
        self._secret = secret

    def answered(self, scope: Scope, *, status: int, sent_bytes: int, duration_s: float) -> None:
        """Note an answer of the application.

        Routes are labelled by their template, unknown ones together, so that labels stay few.
        """
        route = getattr(scope.get("route"), "path", None) or "(other)"
        method = scope["method"] if scope["method"] in _METHODS else "(other)"
        self._metrics.record(route=route, method=method, status=status, duration_s=duration_s)
        if self._log is not None:
            client = str(scope["client"][0]) if scope.get("client") else ""
            line = self._line(scope)
            self._log.write(client=client, request=line, status=status, sent_bytes=sent_bytes, duration_s=duration_s)

    def refused(self, *, client: str, status: int, sent_bytes: int, scope: Scope | None = None) -> None:
        """Note a refusal before the application; without a scope, of what never became a request."""
        self._metrics.record(route="(refused)", method="(other)", status=status, duration_s=None)
        if self._log is not None:
            line = "-" if scope is None else self._line(scope)
            self._log.write(client=client, request=line, status=status, sent_bytes=sent_bytes, duration_s=0.0)

    def _line(self, scope: Scope) -> str:
        return request_line(scope["method"], scope["path"], scope.get("http_version", "1.1"), secret=self._secret)


class RequestObserver:
    """Times every request, with all that other layers do about it."""

    def __init__(self, app: ASGIApp, recorder: RequestRecorder) -> None:
        self._app = app
        self._recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status: int | None = None
        sent_bytes = 0
        started = time.perf_counter()

        async def observed(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, observed)
            if status is None:
                status = scope.get(REFUSED, _GONE)
        finally:
            duration_s = time.perf_counter() - started
            self._recorder.answered(scope, status=status or _FAILED, sent_bytes=sent_bytes, duration_s=duration_s)


# The status of a request whose application fails before it answers; the response is made further out.
_FAILED = 500
# Of a client that left before its request was complete, as nginx logs it.
_GONE = 499
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
        polled = "1 where changes of the evidence are looked for, 0 where they are announced or seen in the file"
        yield GaugeMetricFamily("tierwise_polling", polled, value=self._snapshots.refresh().startswith("polling"))
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
