"""A real SQLite database, filled through the catalog's own functions with latencies we choose."""

import asyncio
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from catalog.declaration import SloSpec
from catalog.evidence import (
    AccuracyRecord,
    ArtifactFile,
    ArtifactRecord,
    Database,
    EnvironmentRecord,
    ItemHits,
    LinkBytes,
    MeasurementRecord,
    SampleRecord,
    StrategyRecord,
    TierRunRecord,
    Verdict,
    open_database,
    record_accuracy,
    record_measurement,
    sync_slos,
    sync_strategies,
    upsert_artifact,
    upsert_environment,
)
from catalog.output_distance import DETAIL, OutputDistance
from recommender.app import create_app
from recommender.settings import RecommenderSettings


def on(day: int) -> datetime:
    return datetime(2026, 1, day, 10, tzinfo=UTC)


def _passes(operator: str) -> list[str]:
    return [] if operator == "identity" else [operator]


@dataclass
class Writer:
    """What a fill would write, with chosen numbers; every method is one transaction."""

    database: Database
    rows: dict[int, list[StrategyRecord]]

    def environment(self, key: str = "env-a", launcher: str = "docker", scale: str = "1", host: str = "h") -> int:
        with self.database.session() as session:
            row = EnvironmentRecord(
                key=key,
                launcher=launcher,
                scale=scale,
                host=host,
                cpu_model="Test CPU",
                cpu_count=2,
                memory_bytes=4 * 2**30,
                kernel="6",
                engine="test 1",
                onnxruntime="1.32.0",
                tierwise="0",
            )
            number = upsert_environment(session, row)
            session.commit()
        return number

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
        """Declare a strategy in the catalog, with its artifact; keys are readable here."""
        artifact = f"artifact:{subject}:{operator}"
        declared = self.rows.setdefault(environment, [])
        declared.append(
            StrategyRecord(
                subject=subject,
                operator=operator,
                placement=placement,
                passes=[{"name": name, "options": {}} for name in (_passes(operator) if passes is None else passes)],
                tiers=placement.split("-"),
                task="classification",
                rounds=rounds,
                artifact_key=artifact,
                latency_key=f"latency:{environment}:{subject}:{operator}:{placement}",
                accuracy_key=f"accuracy:{environment}:{subject}:{operator}",
                status="inapplicable" if refused else "applicable",
                reason=refused,
            )
        )
        files = [ArtifactFile(part=0, file="whole.onnx", sha256="ab" * 32, size_bytes=2048)]
        with self.database.session() as session:
            sync_strategies(session, environment, declared)
            upsert_artifact(
                session,
                ArtifactRecord(artifact, subject, operator, passes=[], status="ready", files=files, size_bytes=2048),
            )
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
        record = MeasurementRecord(
            latency_key=f"latency:{environment}:{subject}:{operator}:{placement}",
            environment_id=environment,
            subject=subject,
            operator=operator,
            placement=placement,
            round=number,
            position=0,
            seed=1,
            status="complete",
            verdict=verdict,
            inputs_select=inputs_select,
            reason=reason,
            tier_runs=[
                TierRunRecord(
                    tier,
                    cpus=1.0,
                    memory_bytes=2**30,
                    threads=1,
                    provider="CPUExecutionProvider",
                    memory_peak_bytes=peak,
                    window_cpu_seconds=cpu_s,
                )
                for tier, (peak, cpu_s) in (used or {}).items()
            ],
            started_at=on(day),
            finished_at=on(day),
            samples=[
                SampleRecord(seq, f"{seq:04d}", 0, value, 0.0, links=[LinkBytes("mobile-edge", 500, 50)])
                for seq, value in enumerate(values)
            ],
        )
        with self.database.session() as session:
            record_measurement(session, record)
            session.commit()

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
        record = AccuracyRecord(
            key=f"accuracy:{environment}:{subject}:{operator}",
            environment_id=environment,
            subject=subject,
            operator=operator,
            provider="CPUExecutionProvider",
            metric_primary=metric,
            class_counts=class_counts,
            items=items,
            status="complete",
            started_at=on(2),
            finished_at=on(2),
            top1_pct=accuracy_pct,
            item_hits=[ItemHits(f"{item:04d}", item < right, True) for item in range(items)],
        )
        with self.database.session() as session:
            record_accuracy(session, record)
            session.commit()

    def compare_outputs(self, operator: str, distance: OutputDistance) -> None:
        """Store what the build of the artifact measured of its outputs."""
        self.artifact_details(operator, {DETAIL: distance.as_details()})

    def prove_equal(self, operator: str) -> None:
        """Store that a cut computes the same, bit for bit."""
        self.artifact_details(operator, {"proof": {"composition": {"bit_identical": True}}})

    def artifact_details(self, operator: str, details: Mapping[str, object], *, subject: str = "net") -> None:
        """Return what else the artifact's row holds."""
        files = [ArtifactFile(part=0, file="whole.onnx", sha256="ab" * 32, size_bytes=2048)]
        key = f"artifact:{subject}:{operator}"
        with self.database.session() as session:
            upsert_artifact(
                session,
                ArtifactRecord(
                    key, subject, operator, passes=[], status="ready", files=files, size_bytes=2048, details=details
                ),
            )
            session.commit()

    def slo(self, name: str, spec: dict[str, object]) -> None:
        with self.database.session() as session:
            sync_slos(session, {name: SloSpec.model_validate(spec)})
            session.commit()

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
def location(backend: str, path: Path, request: pytest.FixtureRequest) -> str:
    """Where the writer writes and the application reads; a file is made by the writer, a test may do without."""
    return str(path) if backend == "sqlite" else str(request.getfixturevalue("database_url"))


@pytest.fixture
def writer(backend: str, location: str, sqlite_template: Path) -> Iterator[Writer]:
    if backend == "sqlite":
        shutil.copy(sqlite_template, location)
    database = open_database(location)
    yield Writer(database, {})
    database.close()


@pytest.fixture
def filled(writer: Writer) -> Writer:
    """Two operators on two placements: quantized is faster and 0.5 points worse, edge is slower than mobile."""
    environment = writer.environment()
    for placement, factor in (("mobile", 1.0), ("edge", 2.0)):
        writer.strategy(environment, "identity", placement, 0.1 * factor)
        writer.strategy(environment, "quantized", placement, 0.08 * factor)
    writer.judge(environment, "identity", 90.0)
    writer.judge(environment, "quantized", 89.5)
    writer.slo("interactive", {"latency": {"p90": "150ms"}, "accuracy": {"max_drop": 0.2}})
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
