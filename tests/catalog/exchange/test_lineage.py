"""Files meet only where one contains the other's evidence: a claimed key changes nothing of another file's."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from catalog.declaration.schema import SloSpec
from catalog.errors import ExchangeError
from catalog.evidence.database import Database, open_database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.reading import leaderboard
from catalog.evidence.tables import Slo
from catalog.evidence.writing import record_measurement, sync_slos, sync_strategies
from catalog.exchange import collect, document_bytes, forget_file, import_files
from tests.catalog.conftest import store_estate
from tests.conftest import Contents, NewDatabase

pytestmark = pytest.mark.both_databases

FORGED_S = 0.000103
TABLES = ("environment", "strategy", "artifact", "measurement", "sample", "accuracy", "accuracy_item", "imported_file")


def exported(database: Database) -> dict[str, Any]:
    with database.session() as session:
        content: dict[str, Any] = json.loads(document_bytes(collect(session)))
    return content


def written(content: dict[str, Any], file: Path) -> Path:
    file.write_text(json.dumps(content))
    return file


def rows(database: Database) -> dict[str, list[Any]]:
    with database.session() as session:
        return {table: sorted(map(repr, session.execute(text(f"SELECT * FROM {table}")))) for table in TABLES}


def shown(database: Database) -> dict[tuple[str, str, str], Any]:
    """Return what every strategy shows, by environment, operator and placement."""
    with database.session() as session:
        return {
            (row.environment.key, row.operator, row.placement): (
                row.latency_s.tolist(),
                row.accuracy.accuracy_pct if row.accuracy else None,
                row.size_bytes,
                [origin.name for origin in row.origins],
            )
            for row in strategy_evidence(session)
        }


@pytest.fixture(scope="module")
def estate(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the exported estate, from a file: test_round_trip.py exports from both kinds of database."""
    with open_database(shutil.copy(sqlite_template, tmp_path_factory.mktemp("estate") / "estate.db")) as database:
        store_estate(database)
        return json.dumps(exported(database))


@pytest.fixture
def first(estate: str, tmp_path: Path) -> dict[str, Any]:
    """Return the document of a first file, which `other` has imported."""
    (tmp_path / "first.json").write_text(estate)
    document: dict[str, Any] = json.loads(estate)
    return document


@pytest.fixture
def other(request: pytest.FixtureRequest, new_database: NewDatabase, tmp_path: Path) -> Iterator[Database]:
    """Open a second database; it holds the first file where the test takes that."""
    contents = None
    if "first" in request.fixturenames:
        request.getfixturevalue("first")
        contents = Contents("first-file", lambda opened: import_files(opened, [tmp_path / "first.json"]))
    with open_database(new_database("other.db", contents)) as opened:
        yield opened


def other_rounds(document: dict[str, Any], latency_s: float) -> dict[str, Any]:
    """Return rounds that the first file does not have, under its keys."""
    content: dict[str, Any] = json.loads(json.dumps(document))
    for entry in content["measurements"]:
        entry["round"] += 10
        entry["samples"]["latency_s"] = [latency_s] * len(entry["samples"]["latency_s"])
    return content


def same_rounds(document: dict[str, Any], latency_s: float) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(document))
    for entry in content["measurements"]:
        entry["samples"]["latency_s"] = [latency_s] * len(entry["samples"]["latency_s"])
    return content


def another_environment(document: dict[str, Any], latency_s: float) -> dict[str, Any]:
    """Return another environment, whose rounds and accuracies have the first file's keys."""
    content: dict[str, Any] = json.loads(json.dumps(other_rounds(document, latency_s)).replace('"env"', '"elsewhere"'))
    return content


def only_artifacts_differ(document: dict[str, Any], latency_s: float) -> dict[str, Any]:
    content = other_rounds(document, latency_s)
    for entry in content["artifacts"]:
        entry["size_bytes"] = 1
    return content


@pytest.mark.parametrize("forge", [other_rounds, same_rounds, another_environment, only_artifacts_differ])
def test_a_claimed_key_changes_nothing_of_another_files_evidence(
    other: Database, first: dict[str, Any], tmp_path: Path, forge: Callable[..., dict[str, Any]]
) -> None:
    before = shown(other)
    import_files(other, [written(forge(first, FORGED_S), tmp_path / "forged.json")])
    after = shown(other)
    assert {place: after[place] for place in before} == before
    added = {place: after[place] for place in after.keys() - before.keys()}
    assert {place[1:] for place in added} == {place[1:] for place in before}
    assert all(set(values[0]) == {FORGED_S} and values[3] == ["forged.json"] for values in added.values())
    with other.session() as session:
        assert {row["source"] for row in leaderboard(session)} == {"first.json", "forged.json"}


def test_strategies_that_wait_for_evidence_do_not_get_another_files(
    database: Database, other: Database, fill: Callable[[], Any], tmp_path: Path
) -> None:
    fill()
    document = exported(database)
    waiting = document | {"measurements": document["measurements"][:1], "accuracies": [], "artifacts": [], "ids": {}}
    waiting["ids"] = document["ids"]
    import_files(other, [written(waiting, tmp_path / "first.json")])
    before = shown(other)
    late = document | {"measurements": document["measurements"][1:]}
    import_files(other, [written(late, tmp_path / "second.json")])
    assert {place: shown(other)[place] for place in before} == before


def test_a_file_of_the_same_name_is_told_apart(other: Database, first: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    import_files(other, [written(other_rounds(first, 0.2), tmp_path / "sub" / "first.json")])
    names = {name for values in shown(other).values() for name in values[3]}
    assert len(names) == 2
    assert all(name.startswith("first.json (SHA-256 ") for name in names)
    with other.session() as session:
        assert set(session.execute(text("SELECT source FROM leaderboard")).scalars()) == names


def test_a_file_that_contains_the_other_one_adds_to_it_in_either_order(
    database: Database, fill: object, other: Database, first: dict[str, Any], make: Any, tmp_path: Path
) -> None:
    with database.session() as session:
        record_measurement(session, make.measurement(1, "identity", "edge", 4))
        session.commit()
    later = written(exported(database), tmp_path / "later.json")
    (imported,) = import_files(other, [later])
    assert imported.stored.extended == ("first.json",)
    names = {place[1:]: values[3] for place, values in shown(other).items()}
    assert names["identity", "edge"] == ["first.json", "later.json"]
    with other.session() as session:
        sources = set(session.execute(text("SELECT source FROM leaderboard")).scalars())
    assert sources == {"first.json, later.json"}
    before = rows(other)
    earlier = first | {"measurements": first["measurements"][:5], "strategies": first["strategies"][:2]}
    earlier["strategies"] = [
        entry | {"latency_key": "latency-quantized-cloud", "updated_at": "2099-01-01T00:00:00+00:00"}
        for entry in earlier["strategies"]
    ]
    (again,) = import_files(other, [written(earlier, tmp_path / "earlier.json")])
    assert again.stored.known_before
    assert rows(other) == before


def test_two_files_that_both_add_to_a_third_are_kept_apart(
    other: Database, first: dict[str, Any], tmp_path: Path
) -> None:
    both = []
    for number, latency_s in ((20, 0.2), (30, 0.3)):
        added = [entry | {"round": entry["round"] + number} for entry in same_rounds(first, latency_s)["measurements"]]
        content = first | {"measurements": [*first["measurements"], *added]}
        both.append(content)
        import_files(other, [written(content, tmp_path / f"{number}.json")])
    keys = {place[0] for place in shown(other)}
    assert len(keys) == 2
    assert "imported:env" in keys
    added = both[1]["measurements"][len(first["measurements"]) :]
    union = both[0] | {"measurements": [*both[0]["measurements"], *added]}
    (imported,) = import_files(other, [written(union, tmp_path / "union.json")])
    assert imported.stored.extended == ("first.json", "20.json")
    assert {place[0] for place in shown(other)} == keys


def test_the_key_that_this_file_would_get_may_be_taken_too(
    other: Database, first: dict[str, Any], tmp_path: Path
) -> None:
    second = written(other_rounds(first, 0.2), tmp_path / "second.json")
    import_files(other, [second])
    (kept_apart,) = {place[0] for place in shown(other)} - {"imported:env"}
    forget_file(other, "second.json")
    squatting = json.dumps(other_rounds(first, 0.3)).replace('"env"', f'"{kept_apart.removeprefix("imported:")}"')
    (tmp_path / "squatting.json").write_text(squatting)
    import_files(other, [tmp_path / "squatting.json"])
    before = shown(other)
    import_files(other, [second])
    after = shown(other)
    assert {place: after[place] for place in before} == before
    assert len({place[0] for place in after}) == 3


def test_what_was_measured_here_is_not_touched_by_a_file_that_claims_its_key(
    database: Database, fill: Callable[[], Any], tmp_path: Path
) -> None:
    fill()
    before = shown(database)
    (imported,) = import_files(
        database, [written(other_rounds(exported(database), FORGED_S), tmp_path / "forged.json")]
    )
    assert {place: shown(database)[place] for place in before} == before
    assert "which was measured here; it is kept apart as imported:env" in imported.stored.apart[0]


def test_forgetting_a_file_gives_what_was_there_before(
    database: Database, fill: object, other: Database, first: dict[str, Any], make: Any, tmp_path: Path
) -> None:
    before = rows(other)
    with database.session() as session:
        record_measurement(session, make.measurement(1, "identity", "edge", 4))
        sync_strategies(session, 1, [make.strategy("identity", "edge", latency_key="changed")])
        session.commit()
    import_files(other, [written(exported(database), tmp_path / "later.json")])
    import_files(other, [written(other_rounds(first, 0.2), tmp_path / "second.json")])
    forget_file(other, "second.json")
    assert {place[0] for place in shown(other)} == {"imported:env"}
    forgotten = forget_file(other, "later.json")
    assert (forgotten.measurements, forgotten.environments) == (1, 0)
    assert rows(other) == before


def test_what_a_later_file_contains_as_well_stays_with_it(
    database: Database, fill: object, other: Database, first: dict[str, Any], make: Any, tmp_path: Path
) -> None:
    with database.session() as session:
        record_measurement(session, make.measurement(1, "identity", "edge", 4))
        session.commit()
    later = written(exported(database), tmp_path / "later.json")
    import_files(other, [later])
    forgotten = forget_file(other, "first.json")
    assert (forgotten.kept_with, forgotten.measurements) == (("later.json",), 0)
    assert {name for values in shown(other).values() for name in values[3]} == {"later.json"}
    forget_file(other, "later.json")
    assert not any(rows(other).values())


def test_a_file_is_forgotten_by_name_id_or_sha256_and_nothing_else(
    other: Database, first: dict[str, Any], tmp_path: Path
) -> None:
    with other.session() as session:
        sha256 = session.execute(text("SELECT sha256 FROM imported_file")).scalar_one()
    before = rows(other)
    for name in ("second.json", "", "first", sha256[:3], "%", "2"):
        with pytest.raises(ExchangeError, match=r"no imported file .*; there are: id 1: first\.json, SHA-256"):
            forget_file(other, name)
    assert rows(other) == before
    for way in ("sha256", "id", "name"):
        with other.session() as session:
            value = str(session.execute(text(f"SELECT {way} FROM imported_file")).scalar_one())
        assert forget_file(other, value[:8].upper() if way == "sha256" else value).environments == 1
        assert not any(rows(other).values())
        import_files(other, [tmp_path / "first.json"])


HEADER = "subject,operator,placement,input_id,repetition,latency_s,environment\n"


def csv(latency_s: float, operator: str = "identity") -> str:
    return HEADER + "".join(f"net,{operator},mobile,{item}.jpg,0,{latency_s + item / 1e6},phone\n" for item in range(5))


def test_rows_that_claim_an_environment_are_kept_apart_unless_the_user_joins_them(
    other: Database, tmp_path: Path
) -> None:
    for name, content in (("a.csv", csv(0.1)), ("b.csv", csv(FORGED_S, "quantized")), ("c.csv", csv(0.2, "early"))):
        (tmp_path / name).write_text(content)
    import_files(other, [tmp_path / "a.csv"])
    before = shown(other)
    (imported,) = import_files(other, [tmp_path / "b.csv"])
    assert {place: shown(other)[place] for place in before} == before
    assert "kept apart as 'phone-" in imported.stored.apart[0]
    with other.session() as session:
        hosts = sorted(row["host"] for row in leaderboard(session))
    assert hosts[0] == "phone"
    assert hosts[1].startswith("phone-")
    (again,) = import_files(other, [tmp_path / "b.csv"])
    assert again.stored.known_before
    import_files(other, [tmp_path / "c.csv"], environment="phone")
    with other.session() as session:
        sources = {row["host"]: row["source"] for row in leaderboard(session)}
    assert sources["phone"] == "a.csv, c.csv"
    forget_file(other, "c.csv")
    forget_file(other, "b.csv")
    assert shown(other) == before


def test_rows_of_one_command_meet(other: Database, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(csv(0.1))
    (tmp_path / "b.csv").write_text(csv(0.2, "quantized"))
    import_files(other, [tmp_path / "a.csv"])
    import_files(other, [tmp_path / "a.csv", tmp_path / "b.csv"])
    with other.session() as session:
        assert {row["host"]: row["source"] for row in leaderboard(session)} == {"phone": "a.csv, b.csv"}
    forget_file(other, "a.csv")
    assert [place[1] for place in shown(other)] == ["quantized"]


def with_slos(document: dict[str, Any], **limits_s: float) -> dict[str, Any]:
    slos = [{"name": name, "latency": {"90": limit_s}, "accuracy": {}} for name, limit_s in limits_s.items()]
    return document | {"slos": slos}


def stored_slos(database: Database) -> dict[str, float]:
    with database.session() as session:
        return {row.name: row.latency["90"] for row in session.execute(select(Slo)).scalars()}


def test_the_targets_of_a_file_go_with_it_unless_another_file_or_the_user_has_them(
    other: Database, first: dict[str, Any], tmp_path: Path
) -> None:
    forget_file(other, "first.json")
    import_files(other, [written(with_slos(first, shared=1.0, own=2.0, here=3.0), tmp_path / "a.json")])
    second = with_slos(other_rounds(first, 0.2), shared=9.0, second=4.0)
    (imported,) = import_files(other, [written(second, tmp_path / "b.json")])
    assert imported.stored.slos_kept == ("shared",)
    assert forget_file(other, "a.json").slos == ("own", "here")
    assert stored_slos(other) == {"shared": 9.0, "second": 4.0}  # as if the first file had never been imported
    with other.session() as session:
        sync_slos(session, {"shared": SloSpec.model_validate({"latency": {"p90": "5s"}})})
        session.commit()
    assert forget_file(other, "b.json").slos == ()
    assert stored_slos(other) == {"shared": 5.0}


def test_targets_of_a_file_whose_evidence_is_there_go_with_the_file_that_brought_it(
    other: Database, first: dict[str, Any], tmp_path: Path
) -> None:
    (imported,) = import_files(other, [written(with_slos(first, late=1.0), tmp_path / "again.json")])
    assert imported.stored.known_before
    assert stored_slos(other) == {"late": 1.0}
    assert forget_file(other, "first.json").slos == ("late",)
    (imported,) = import_files(other, [written(with_slos(first, late=1.0), tmp_path / "again.json")])
    assert imported.stored.environments == 1
    assert forget_file(other, "again.json").slos == ("late",)


# What another program may leave in rows that files brought; afterwards both commands do what they did before.
DAMAGE = (
    "UPDATE environment SET created_at = 'yesterday' WHERE id = 1",
    "UPDATE measurement SET conditions = '[]' WHERE id = 2",
    "UPDATE strategy SET tiers = '1', updated_at = 'x' WHERE id = 1",
    "UPDATE artifact SET details = '[1]', files = '1'",
    "UPDATE imported_file SET details = '[]', imported_at = 'x'",
    "UPDATE slo SET latency = '1', accuracy = '[]'",
    "UPDATE accuracy SET top1_pct = 1000 WHERE id = 1",
    "UPDATE measurement SET imported_file_id = NULL WHERE id = 3",
    "UPDATE accuracy SET imported_file_id = 77 WHERE id = 1",
    "UPDATE imported_file SET name = CAST(x'fffe' AS TEXT)",
    "UPDATE imported_file SET sha256 = 7, key = x'00'",
    "UPDATE strategy SET environment_id = 99 WHERE id = 1",
)
OF_OTHER_TYPES = (
    "UPDATE measurement SET environment_id = 'agreement' WHERE id = 3",
    "UPDATE measurement SET imported_file_id = 'x', latency_key = x'ff' WHERE id = 3",
    "UPDATE strategy SET reason = CAST(x'fffe' AS TEXT), task = x'fffe', declared = 'x' WHERE id = 1",
    "UPDATE sample SET input_id = 7, latency_s = 'x' WHERE id < 9",
    "INSERT INTO slo VALUES (CAST(x'fffe' AS TEXT), '{', '{')",
)


@pytest.mark.parametrize("damage", [*DAMAGE, *OF_OTHER_TYPES])
def test_rows_that_another_program_wrote_stop_neither_an_import_nor_the_forgetting_of_a_file(
    other: Database, first: dict[str, Any], tmp_path: Path, damage: str
) -> None:
    is_sqlite = other.engine.dialect.name == "sqlite"
    unchecked = (
        ("COMMIT", "PRAGMA foreign_keys = OFF", "BEGIN") if is_sqlite else ("SET session_replication_role = replica",)
    )
    with other.engine.connect() as connection:
        for statement in unchecked:
            connection.exec_driver_sql(statement)
        if damage in OF_OTHER_TYPES and not is_sqlite:  # a server keeps its columns' types
            with pytest.raises(DBAPIError):
                connection.exec_driver_sql(damage)
            return
        connection.exec_driver_sql(damage)
        connection.commit()
    other.engine.dispose()
    more = first | {"measurements": [*first["measurements"], first["measurements"][0] | {"round": 30}]}
    more["strategies"] = [entry | {"updated_at": "2099-01-01T00:00:00+00:00"} for entry in first["strategies"]]
    import_files(other, [written(with_slos(more, new=1.0), tmp_path / "more.json")])
    (tmp_path / "a.csv").write_text(csv(0.1))
    import_files(other, [tmp_path / "a.csv"])
    for name in ("more.json", "a.csv"):
        forget_file(other, name)
    forget_file(other, "1")
    with other.session() as session:
        left = {table: session.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one() for table in TABLES}
    assert {table for table, count in left.items() if count} <= {"strategy", "artifact"}
    assert left["imported_file"] == left["environment"] == left["measurement"] == left["accuracy"] == 0
