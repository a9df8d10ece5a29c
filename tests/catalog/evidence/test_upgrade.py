"""A database of the first schema, made by its own migration, is upgraded and keeps everything."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, inspect, make_url

from catalog.errors import DatabaseTooOldError
from catalog.evidence.database import open_database
from catalog.evidence.loading import strategy_evidence, subject_slo_evidence
from catalog.evidence.reading import leaderboard

AT = "2026-11-24T06:00:00.000+00:00"
ROWS = {
    "environment": ("'env','process','1','host','cpu',2,8589934592,'6','none','1','0','{}'", f"'{AT}'"),
    "artifact": ("'art','net','identity','[]','ready',NULL,'[]',100,'{}'", f"'{AT}'"),
    "strategy": (
        "'net','identity','edge','[\"edge\"]',1,'[]','art','lat','acc','classification',1,TRUE",
        f"'applicable',NULL,'{AT}'",
    ),
    "measurement": (
        "'lat',1,'net','identity','edge',1,0,7,'complete','VALID',NULL,NULL,'random','{}','{}'",
        f"'{AT}','{AT}'",
    ),
    "tier_run": ("1,'edge',1.0,1024,1,'cpu',NULL,NULL,NULL,NULL,NULL,NULL", ""),
    "link_probe": ("1,'mobile-edge','up',1e6,1.1e6,0.001", ""),
    "accuracy": ("'acc',1,'net','identity','cpu','top1',50.0,100.0,NULL,2,'complete',NULL", f"'{AT}','{AT}'"),
}
PLAIN = {
    "sample": ["(1,1,0,'a.jpg',0,0.5,0.1)", "(2,1,1,'b.jpg',0,0.25,0.1)"],
    "sample_part": ["(1,'edge',0.1,0.1,0.1,0.1)"],
    "sample_link": ["(1,'mobile-edge',1000,50)"],
    "accuracy_item": ["(1,'a',TRUE,TRUE)", "(1,'b',FALSE,TRUE)"],
    "accuracy_class_item": ["(1,'a',0,5,9)"],
    "slo": ["('fast','{\"90\": 0.1}','{}')"],
}


@pytest.fixture
def old_database(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the address of an empty database, without tables."""
    if backend == "sqlite":
        yield str(tmp_path / "first.db")
        return
    server = request.getfixturevalue("postgres")
    name = f"tierwise_{uuid4().hex}"
    server.create(name)
    yield server.url_of(name)
    server.drop(name)


def engine_of(address: str) -> Engine:
    url = make_url(address) if "://" in address else make_url(f"sqlite:///{address}")
    return create_engine(url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url)


def first_schema(address: str) -> None:
    """As the first version left it: its tables by its migration, its views of the same names, one of everything."""
    engine = engine_of(address)
    config = Config()
    config.set_main_option("script_location", "migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql("CREATE VIEW strategy_summary AS SELECT 'old' AS subject")
        connection.exec_driver_sql("CREATE VIEW leaderboard AS SELECT * FROM strategy_summary")
        for table, (values, more) in ROWS.items():
            connection.exec_driver_sql(f"INSERT INTO {table} VALUES (1,{values}{',' + more if more else ''})")
        for table, rows in PLAIN.items():
            for row in rows:
                connection.exec_driver_sql(f"INSERT INTO {table} VALUES {row}")
    engine.dispose()


def columns(address: str) -> dict[str, list[str]]:
    """Return names by table, of the first schema's tables."""
    engine = engine_of(address)
    names = {table: [row["name"] for row in inspect(engine).get_columns(table)] for table in (*ROWS, *PLAIN)}
    engine.dispose()
    return names


def contents(address: str, names: dict[str, list[str]]) -> dict[str, list[tuple[object, ...]]]:
    engine = engine_of(address)
    with engine.connect() as connection:
        stored = {
            # Sorted here: a server orders no JSON.
            table: sorted(map(tuple, connection.exec_driver_sql(f"SELECT {', '.join(columns)} FROM {table}")), key=repr)
            for table, columns in names.items()
        }
    engine.dispose()
    return stored


@pytest.mark.both_databases
def test_everything_is_kept_and_counts_as_measured_here(old_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of each table of the first schema goes through every migration, on both databases."""
    monkeypatch.chdir(Path(__file__).parents[3])
    first_schema(old_database)
    names = columns(old_database)
    before = contents(old_database, names)
    with pytest.raises(DatabaseTooOldError, match=r"schema 0001.*`runner plan` upgrades it, evidence is kept"):
        open_database(old_database, readonly=True)
    with open_database(old_database) as database, database.session() as session:
        (evidence,) = strategy_evidence(session)
        (row,) = leaderboard(session)
        targets = subject_slo_evidence(session)
    assert all(len(rows) > 0 for rows in before.values())
    assert contents(old_database, names) == before
    assert evidence.latency_s.tolist() == [0.5, 0.25]
    assert (evidence.environment.provenance, evidence.environment.origin) == ("measured", None)
    assert (row["subject"], row["provenance"], row["source"]) == ("net", "measured", None)
    assert (row["median_latency_s"], row["accuracy_pct"], row["sent_bytes"]) == (0.375, 50.0, 500.0)
    # Its targets were those of the last fill, whichever catalog that had.
    assert {subject: {name: slo.latency_s for name, slo in slos.items()} for subject, slos in targets.items()} == {
        "net": {"fast": {90.0: 0.1}}
    }
