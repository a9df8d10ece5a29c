"""A database of the first schema, made by its own migration, is upgraded and keeps everything."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from catalog.errors import DatabaseTooOldError
from catalog.evidence.database import open_database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.reading import leaderboard

AT = "2026-11-24T06:00:00.000+00:00"
ROWS = {
    "environment": ("'env','process','1','host','cpu',2,8589934592,'6','none','1','0','{}'", f"'{AT}'"),
    "artifact": ("'art','net','identity','[]','ready',NULL,'[]',100,'{}'", f"'{AT}'"),
    "strategy": (
        "'net','identity','edge','[\"edge\"]',1,'[]','art','lat','acc','classification',1,1",
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
    "accuracy_item": ["(1,'a',1,1)", "(1,'b',0,1)"],
    "accuracy_class_item": ["(1,'a',0,5,9)"],
    "slo": ["('fast','{\"90\": 0.1}','{}')"],
}


def first_schema(path: Path) -> None:
    """As the first version left it: its tables by its migration, its views of the same names, one of everything."""
    engine = create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", "migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    connection = sqlite3.connect(path)
    connection.execute("CREATE VIEW strategy_summary AS SELECT 'old' AS subject")
    connection.execute("CREATE VIEW leaderboard AS SELECT * FROM strategy_summary")
    for table, (values, more) in ROWS.items():
        connection.execute(f"INSERT INTO {table} VALUES (1,{values}{',' + more if more else ''})")
    for table, rows in PLAIN.items():
        for row in rows:
            connection.execute(f"INSERT INTO {table} VALUES {row}")
    connection.commit()
    connection.close()


def columns(path: Path) -> dict[str, list[str]]:
    """Return names by table, of the first schema's tables."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")] for table in (*ROWS, *PLAIN)
        }


def contents(path: Path, names: dict[str, list[str]]) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1, 2").fetchall()
            for table, columns in names.items()
        }


def test_everything_is_kept_and_counts_as_measured_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    path = tmp_path / "first.db"
    first_schema(path)
    names = columns(path)
    before = contents(path, names)
    with pytest.raises(DatabaseTooOldError, match=r"schema 0001.*`runner plan` upgrades it, evidence is kept"):
        open_database(path, readonly=True)
    with open_database(path) as database, database.session() as session:
        (evidence,) = strategy_evidence(session)
        (row,) = leaderboard(session)
    assert all(len(rows) > 0 for rows in before.values())
    assert contents(path, names) == before
    assert evidence.latency_s.tolist() == [0.5, 0.25]
    assert (evidence.environment.provenance, evidence.environment.origin) == ("measured", None)
    assert (row["subject"], row["provenance"], row["source"]) == ("net", "measured", None)
    assert (row["median_latency_s"], row["accuracy_pct"], row["sent_bytes"]) == (0.375, 50.0, 500.0)
