"""Whatever a file or a database holds: no command ends in a trace, no endpoint in a 500, one bad row costs that row."""

import copy
import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from catalog.evidence.database import Database, open_database
from catalog.evidence.records import EnvironmentRecord
from catalog.evidence.soundness import sound_database
from catalog.evidence.tables import Environment, EvidenceTable
from catalog.evidence.writing import upsert_environment
from catalog.exchange import collect, decompressed, document_bytes
from recommender.app import create_app
from recommender.settings import RecommenderSettings
from runner.cli import app, run
from tests.catalog_of_one import declare
from tests.recommender.conftest import Client

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs/example-evidence.json.gz"
SUBJECT = "fashion-resnet"
ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63 - 1, 2**63, 2**80, 0.5, 1e-300, 1e300, 100.0, 101.0, float("nan"),
    float("inf"), "", "abc", "0", "90", "nan", "../../x", "a b", "[red]x[/]", "\x1b[2J", "\0", "ä" * 300, "x" * 5000,
    "2026-11-24T06:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "complete", "VALID", "agreement",
    [], [None], [1, "a"], {}, {"abc": 1.0}, {"": None}, {"name": 1}, [[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]],
]  # fmt: skip
COMMANDS = (
    ["status"],
    ["status", "--json"],
    ["verify"],
    ["leaderboard", "--columns", "all"],
    ["leaderboard", "--json"],
    ["rank"],
    ["report", "--output", "-"],
    ["recommend", SUBJECT, "--max-latency", "1s"],
    ["slo"],
    ["whatif", SUBJECT, "--link", "edge-cloud=10mbit"],
    ["sql", "SELECT * FROM leaderboard"],
    ["export"],
    ["export", "--format", "csv"],
    ["compare", "odd.db", "whole.db"],
    ["bundle", SUBJECT, "--output", "deploy"],
    ["plan", "--launcher", "process"],
)
ROUTES = (
    "/readyz", "/metrics", "/subjects", "/strategies", "/coverage", "/slos", f"/leaderboard?subject={SUBJECT}",
    f"/pareto?subject={SUBJECT}", f"/links?subject={SUBJECT}", f"/whatif?subject={SUBJECT}&link=edge-cloud",
    f"/strategies/{SUBJECT}:identity:mobile", f"/strategies/{SUBJECT}:quantized:cloud",
)  # fmt: skip
QUESTIONS: tuple[dict[str, Any], ...] = (
    {"subject": SUBJECT},
    {"subject": SUBJECT, "max_latency_s": 0.2, "max_accuracy_drop_pp": 1.0, "percentile": 50},
    {"subject": SUBJECT, "slo": "interactive"},
    {"subject": SUBJECT, "max_latency_s": 1.0, "links": {"edge-cloud": "20mbit"}},
)
RECORDED = fields(EnvironmentRecord)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a small database of real evidence."""
    path = tmp_path_factory.mktemp("whole") / "whole.db"
    assert run(lambda: app(["import", str(EXAMPLE), "--database", str(path)])) == 0
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


@pytest.fixture
def folder(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    declare(tmp_path)
    shutil.copy(whole, tmp_path / "whole.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIERWISE_DATABASE", "odd.db")
    yield tmp_path


def everything(capture: pytest.CaptureFixture[str], commands: Any = COMMANDS) -> list[str]:
    """Run every command and ask every endpoint over odd.db; returns what the commands said."""
    said = []
    for command in commands:
        code = run(lambda arguments=command: app([*arguments]))
        out, err = capture.readouterr()
        assert code in (0, 1, 2) and "Traceback" not in out + err, (command, out, err)
        said.append(out + err)
    service = create_app(RecommenderSettings(database="odd.db"))
    client = Client(service)
    try:
        keys = _keys()
        for route in (*ROUTES, *(f"/evidence/{key}" for key in keys)):
            response = client.get(route)
            assert response.status_code != 500, (route, response.text)
        for question in QUESTIONS:
            response = client.post("/recommend", json=question)
            assert response.status_code != 500, (question, response.text)
    finally:
        service.state.snapshots.close()
    return said


def _keys() -> list[str]:
    connection = sqlite3.connect("odd.db")
    connection.text_factory = lambda value: value.decode(errors="replace")
    keys = [row[0] for row in connection.execute("SELECT latency_key FROM measurement UNION SELECT key FROM accuracy")]
    connection.close()
    return [key for key in keys if isinstance(key, str) and key.isascii() and key.replace(":", "").isalnum()][:6]


def fresh(folder: Path, template: Path) -> Path:
    for name in ("odd.db", "odd.db-wal", "odd.db-shm"):
        (folder / name).unlink(missing_ok=True)
    shutil.copy(template, folder / "odd.db")
    return folder / "odd.db"


def _places(value: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    """Return every member of every container, as (container, key)."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    places: list[tuple[Any, Any]] = []
    for key in list(keys)[:40]:
        places.append((value, key))
        places += _places(value[key], depth + 1)
    return places


def mutate_document(document: Any, seed: int) -> Any:
    """Replace, remove or exchange one or two members; the section is drawn first, so that each has its share."""
    rng = random.Random(seed)
    changed = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 1, 2))):
        section = rng.choice([name for name in changed if isinstance(changed[name], (list, dict)) and changed[name]])
        places = _places(changed[section])
        if not places:
            continue
        # Arrays of samples would otherwise be nearly all of it.
        shallow = [place for place in places if not isinstance(place[0], list)] or places
        container, key = rng.choice(shallow if rng.random() < 0.8 else places)
        match rng.randrange(5):
            case 0 | 1 | 2:
                container[key] = copy.deepcopy(rng.choice(ODD))
            case 3:
                del container[key]
            case 4:
                other, name = rng.choice(places)
                container[key] = copy.deepcopy(other[name])
    return changed


def mutate_database(path: Path, seed: int) -> str:
    """Change one to three cells of one table as another program might, which keeps to no constraint."""
    rng = random.Random(seed)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys = OFF")
    done = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        table = rng.choice([table.name for table in EvidenceTable.metadata.sorted_tables])
        rows = [row[0] for row in connection.execute(f"SELECT rowid FROM {table} LIMIT 400")]
        if not rows:
            continue
        column = rng.choice([row[1] for row in connection.execute(f"PRAGMA table_info({table})")])
        value = rng.choice([*ODD, b"\xff\xfe", "{", "[1,", "NaN", '{"a": NaN}', '{"abc": 1}', "[]", "{}", "null"])
        if isinstance(value, (list, dict)):
            value = json.dumps(value)
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            value = float(value)
        row = rng.choice(rows)
        # SQLite stores any bytes as TEXT, and its driver then cannot read the cell.
        cell = "CAST(? AS TEXT)" if isinstance(value, bytes) and rng.random() < 0.5 else "?"
        try:
            connection.execute(f"UPDATE OR IGNORE {table} SET {column} = {cell} WHERE rowid = ?", (value, row))
        except sqlite3.Error:
            continue
        done.append(f"{table}[{row}].{column} = {value!r}"[:200])
    connection.commit()
    connection.close()
    return "; ".join(done)


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads(decompressed(EXAMPLE.read_bytes(), file="example"))


QUICK = settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@QUICK
@given(seed=st.integers(0, 2**32))
def test_a_file_is_refused_or_everything_works_with_it(
    folder: Path, document: Any, sqlite_template: Path, capfd: pytest.CaptureFixture[str], seed: int
) -> None:
    for attempt in range(10):  # most are refused, which costs little
        changed = mutate_document(document, seed + attempt)
        (folder / "odd.json").write_text(json.dumps(changed))
        fresh(folder, sqlite_template)
        code = run(lambda: app(["import", "odd.json"]))
        said = "".join(capfd.readouterr())
        assert code in (0, 1) and "Traceback" not in said, (seed + attempt, said)
        if code == 0:
            assert "no analysis of" not in said, (seed + attempt, said)
            everything(capfd)
            return


@QUICK
@given(seed=st.integers(0, 2**32))
def test_a_row_that_another_wrote_costs_no_more_than_itself(
    folder: Path, capfd: pytest.CaptureFixture[str], seed: int
) -> None:
    done = mutate_database(fresh(folder, folder / "whole.db"), seed)
    try:
        everything(capfd)
    except BaseException as error:
        raise AssertionError(f"{seed}: {done}") from error


def test_the_row_is_named_and_the_rest_stays(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    connection = sqlite3.connect(fresh(folder, folder / "whole.db"))
    connection.execute("""INSERT INTO slo VALUES ('bad', '{"abc": 1.0}', '{}'), ('torn', '{', '{}')""")
    connection.execute("UPDATE sample SET latency_s = 'x' WHERE id = 5")
    connection.execute("UPDATE measurement SET status = 'odd' WHERE id = 3")
    connection.execute("UPDATE strategy SET tiers = '[]' WHERE id = 2")
    connection.commit()
    connection.close()
    said = everything(capfd)
    assert "left out: slo bad: latency: 'abc' is not a percentile" in " ".join(said[0].split())
    for text in ("measurement 3: status", "strategy 2: tiers", "slo torn: latency", "sample of measurement"):
        assert text in said[0], text
    service = create_app(RecommenderSettings(database="odd.db"))
    client = Client(service)
    assert client.get("/readyz").json()["left_out"] == 5
    assert len(client.get("/coverage").json()["left_out"]) == 5
    assert client.get("/slos").json()["slos"] and client.post("/recommend", json=QUESTIONS[0]).status_code == 200
    assert len(client.get("/strategies").json()["strategies"]) == 5
    service.state.snapshots.close()
    with open_database("odd.db") as database, database.session() as session:
        assert session.connection().exec_driver_sql("SELECT COUNT(*) FROM slo").scalar() == 4


# What stands in the way of a fill where another program changed its last results.
DAMAGE = (
    "UPDATE measurement SET conditions = '[]' WHERE id = (SELECT MAX(id) FROM measurement)",
    "UPDATE sample SET latency_s = 'x' WHERE measurement_id = (SELECT MIN(id) FROM measurement)",
    "UPDATE accuracy SET top1_pct = 1000",
    "UPDATE strategy SET reason = CAST(x'fffe' AS TEXT), updated_at = 'x'",
    "UPDATE artifact SET details = '[]', reason = CAST(x'fffe' AS TEXT), created_at = 'x'",
    "UPDATE environment SET host = CAST(x'fffe' AS TEXT)",
    "INSERT INTO slo VALUES (CAST(x'fffe' AS TEXT), '{', '{')",
)


def test_a_fill_measures_again_what_cannot_be_read_and_ends(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fill = ["fill-catalog", "--launcher", "process"]
    assert run(lambda: app(fill)) == 0
    connection = sqlite3.connect("odd.db")
    for statement in DAMAGE:
        connection.execute(statement)
    connection.commit()
    capfd.readouterr()
    assert run(lambda: app(fill)) == 0, capfd.readouterr().err
    assert connection.execute("SELECT COUNT(*) FROM measurement").fetchone() == (6,)
    again = connection.execute("SELECT COUNT(*) FROM measurement WHERE status = 'failed' AND verdict = 'INVALID'")
    assert again.fetchone() == (2,)
    connection.execute("UPDATE environment SET created_at = 'yesterday', imported_file_id = 77")
    connection.commit()
    connection.close()
    with open_database("odd.db") as database:
        assert any(text.startswith("environment 1: its") for text in sound_database(database).left_out)
        store_again(database)
        assert not any("environment" in text for text in sound_database(database).left_out)


def store_again(database: Database) -> None:
    """Store the environment as a fill does when it starts."""
    with database.writing_session() as session:
        row = session.execute(select(Environment)).scalar_one()
        upsert_environment(session, EnvironmentRecord(**{field.name: getattr(row, field.name) for field in RECORDED}))
        session.commit()


def test_sound_evidence_is_read_as_it_is(whole: Path) -> None:
    with open_database(whole) as database:
        assert sound_database(database) is database
        with database.session() as session:
            assert document_bytes(collect(session))
