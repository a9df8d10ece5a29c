"""A real SQLite database, filled through the catalog's own functions with latencies we choose."""

import asyncio
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from catalog.artifact_details import DISTANCE_DETAIL, OutputDistance
from catalog.evidence.database import open_database
from catalog.evidence.records import LinkBytes, StrategyRecord, Verdict
from catalog.evidence.writing import record_accuracy, sync_strategies, upsert_artifact
from recommender.app import create_app
from recommender.settings import RecommenderSettings
from tests.conftest import Contents
from tests.evidence_builder import (
    EvidenceBuilder,
    accuracy_record,
    artifact_record,
    measurement_record,
    named_passes,
    sample_records,
    strategy_record,
    tier_run_record,
)


def on(day: int) -> datetime:
    return datetime(2026, 1, day, 10, tzinfo=UTC)


@dataclass
class Writer(EvidenceBuilder):
    """What a fill would write, one strategy after another."""

    rows: dict[int, list[StrategyRecord]] = field(default_factory=dict)

    def environment(self, key: str = "env-a", **changes: Any) -> int:
        return super().environment(key, **({"host": "h", "onnxruntime": "1.32.0"} | changes))

    def declare(
        self,
        environment: int,
        operator: str,
        placement: str,
        *,
        subject: str = "net",
        rounds: int = 3,
        refused: str | None = None,
        passes: Sequence[str] | None = None,
    ) -> None:
        """Declare a strategy in the catalog, with its artifact."""
        changes: dict[str, Any] = {"rounds": rounds, "reason": refused}
        changes["status"] = "inapplicable" if refused else "applicable"
        if passes is not None:
            changes["passes"] = named_passes(*passes)
        declared = self.rows.setdefault(environment, [])
        declared.append(strategy_record(environment, subject, operator, placement, **changes))
        with self.database.session() as session:
            sync_strategies(session, environment, declared)
            upsert_artifact(session, artifact_record(subject, operator))
            session.commit()

    def declare_as_in(self, environment: int, other: int) -> None:
        """Declare the same catalog filled in another environment."""
        here, there = f":{environment}:", f":{other}:"
        self.rows[other] = [
            replace(
                row,
                latency_key=row.latency_key.replace(here, there),
                accuracy_key=row.accuracy_key.replace(here, there),
            )
            for row in self.rows[environment]
        ]
        with self.database.session() as session:
            sync_strategies(session, other, self.rows[other])
            session.commit()

    def measure(
        self,
        environment: int,
        operator: str,
        placement: str,
        latency_s: float | Sequence[float],
        *,
        subject: str = "net",
        number: int = 0,
        inputs: int = 30,
        verdict: Verdict = "VALID",
        day: int = 2,
        reason: str | None = None,
        inputs_select: str = "random",
        used: Mapping[str, tuple[int | None, float | None]] | None = None,
    ) -> None:
        """One round; a single latency stands for all inputs. `used` is per tier: peak memory, CPU of the window."""
        values = [latency_s] * inputs if isinstance(latency_s, float) else list(latency_s)
        limits: dict[str, Any] = {"cpus": 1.0, "memory_bytes": 2**30, "provider": "CPUExecutionProvider"}
        record = measurement_record(
            environment,
            subject,
            operator,
            placement,
            number,
            verdict=verdict,
            inputs_select=inputs_select,
            reason=reason,
            tier_runs=[
                tier_run_record(tier, memory_peak_bytes=peak, window_cpu_seconds=cpu_s, **limits)
                for tier, (peak, cpu_s) in (used or {}).items()
            ],
            started_at=on(day),
            finished_at=on(day),
            samples=sample_records(values, links=[LinkBytes("mobile-edge", 500, 50)]),
        )
        self.store_rounds([record])

    def judge(
        self,
        environment: int,
        operator: str,
        accuracy_pct: float,
        *,
        subject: str = "net",
        items: int = 2000,
        metric: Literal["top1", "agreement"] = "top1",
        class_counts: Mapping[str, int] | None = None,
    ) -> None:
        """Store an accuracy with its items: the first ones are right."""
        right = round(accuracy_pct * items / 100)
        changes: dict[str, Any] = {"metric_primary": metric, "class_counts": class_counts, "top1_pct": accuracy_pct}
        hits = [item < right for item in range(items)]
        record = accuracy_record(environment, subject, operator, hits, started_at=on(2), finished_at=on(2), **changes)
        with self.database.session() as session:
            record_accuracy(session, record)
            session.commit()

    def compare_outputs(self, operator: str, distance: OutputDistance) -> None:
        """Store what the build of the artifact measured of its outputs."""
        self.artifact_details(operator, {DISTANCE_DETAIL: distance.as_details()})

    def prove_equal(self, operator: str) -> None:
        """Store that a cut computes the same, bit for bit."""
        self.artifact_details(operator, {"proof": {"composition": {"bit_identical": True}}})

    def artifact_details(self, operator: str, details: Mapping[str, object], *, subject: str = "net") -> None:
        """Store what else the artifact's row holds."""
        with self.database.session() as session:
            upsert_artifact(session, artifact_record(subject, operator, details=details))
            session.commit()

    def slo(self, name: str, spec: dict[str, object]) -> None:
        self.slos({name: spec})

    def strategy(
        self, environment: int, operator: str, placement: str, latency_s: float, *, subject: str = "net", day: int = 2
    ) -> None:
        """Declare a strategy and measure its three rounds."""
        self.declare(environment, operator, placement, subject=subject)
        for number in range(3):
            self.measure(environment, operator, placement, latency_s, subject=subject, number=number, day=day)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "evidence.db"


@pytest.fixture(scope="session")
def template(sqlite_template: Path) -> Path:
    """Create a migrated, empty database once; a copy costs less than a migration."""
    return sqlite_template


@pytest.fixture
def contents(request: pytest.FixtureRequest) -> Contents | None:
    """Return what `filled` holds for a test that takes it."""
    return Contents("filled", lambda opened: fill(Writer(opened))) if "filled" in request.fixturenames else None


@pytest.fixture
def location(backend: str, path: Path, request: pytest.FixtureRequest) -> str:
    """Where the writer writes and the application reads; a file is made by the writer, a test may do without."""
    return str(path) if backend == "sqlite" else str(request.getfixturevalue("database_url"))


def fill(writer: Writer) -> None:
    """Two operators on two placements: quantized is faster and 0.5 points worse, edge is slower than mobile."""
    environment = writer.environment()
    for placement, factor in (("mobile", 1.0), ("edge", 2.0)):
        writer.strategy(environment, "identity", placement, 0.1 * factor)
        writer.strategy(environment, "quantized", placement, 0.08 * factor)
    writer.judge(environment, "identity", 90.0)
    writer.judge(environment, "quantized", 89.5)
    writer.slo("interactive", {"latency": {"p90": "150ms"}, "accuracy": {"max_drop": 0.2}})


@dataclass(frozen=True)
class FilledTemplate:
    """A filled file to copy, and what its writer declared."""

    path: Path
    rows: Mapping[int, Sequence[StrategyRecord]]


@pytest.fixture(scope="session")
def filled_template(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> FilledTemplate:
    path = tmp_path_factory.mktemp("filled") / "evidence.db"
    with open_database(shutil.copy(sqlite_template, path)) as database:
        writer = Writer(database)
        fill(writer)
    return FilledTemplate(path, writer.rows)


@pytest.fixture
def writer(backend: str, location: str, sqlite_template: Path, request: pytest.FixtureRequest) -> Iterator[Writer]:
    source, rows = sqlite_template, dict[int, Sequence[StrategyRecord]]()
    if "filled" in request.fixturenames:  # a copy takes a hundredth of what filling takes
        template: FilledTemplate = request.getfixturevalue("filled_template")
        source, rows = template.path, dict(template.rows)
    if backend == "sqlite":
        shutil.copy(source, location)
    database = open_database(location)
    yield Writer(database, {environment: list(declared) for environment, declared in rows.items()})
    database.close()


@pytest.fixture
def filled(writer: Writer) -> Writer:
    """Return the writer of a database with two operators on two placements."""
    return writer


class Client:
    """Asks the real application over ASGI; errors become responses, as behind a real server."""

    def __init__(self, app: FastAPI) -> None:
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    def request(self, method: str, path: str, **content: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://localhost") as asking:
                return await asking.request(method, path, **content)

        return asyncio.run(ask())

    def get(self, path: str, **content: Any) -> httpx.Response:
        return self.request("GET", path, **content)

    def post(self, path: str, **content: Any) -> httpx.Response:
        return self.request("POST", path, **content)


@pytest.fixture
def client(location: str) -> Iterator[Client]:
    app = create_app(RecommenderSettings(database=location))
    yield Client(app)
    app.state.snapshots.close()


@pytest.fixture
def serve(location: str, filled: object) -> Iterator[Callable[..., Client]]:
    """Return a function that builds the application over the filled database with other settings."""
    apps = []

    def make(**settings: Any) -> Client:
        app = create_app(RecommenderSettings(database=location, **settings))
        apps.append(app)
        return Client(app)

    yield make
    for app in apps:
        app.state.snapshots.close()


@pytest.fixture
def live(location: str, filled: object) -> Iterator[Callable[..., str]]:
    """Return a function that runs the application behind a real server on a free port and returns its address."""
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(**settings: Any) -> str:
        app = create_app(RecommenderSettings(database=location, **settings))
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(timeout=10)
