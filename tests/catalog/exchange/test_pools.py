"""The pool that rounds drew their inputs from: stored once, shown in SQL, exported, imported, taken back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from catalog.errors import ExchangeError
from catalog.evidence.database import Database
from catalog.evidence.records import PoolInputRecord, PoolRecord
from catalog.evidence.soundness import sound_database
from catalog.evidence.writing import record_measurement, sync_strategies, upsert_environment
from catalog.exchange import collect, document_bytes, import_files, parse_document
from catalog.exchange.export_document import rows_csv
from catalog.exchange.import_files import forget_file
from catalog.statistics.input_draw import Pool, PoolInput

pytestmark = pytest.mark.both_databases

INPUTS = [PoolInput(f"{index:02d}.jpg", 1000 + index, "image/jpeg") for index in range(8)]
POOL = Pool(INPUTS)
RECORD = PoolRecord(POOL.digest, "bytes", [PoolInputRecord(row.id, row.size, row.media) for row in INPUTS])
STRATA = {"body": {"pool": 7, "drawn": 2}, "certainty": {"pool": 1, "drawn": 1}}
PROTOCOL = {"version": 2, "select": "systematic", "inputs": 2, "tail": False, "strata": STRATA}


@pytest.fixture
def drawn(database: Database, make: Any) -> Database:
    """Two rounds of one strategy: the first has the largest input, too."""
    with database.session() as session:
        where = upsert_environment(session, make.environment())
        for number, chosen in ((1, ["07.jpg", "00.jpg", "04.jpg"]), (2, ["02.jpg", "06.jpg"])):
            samples = [
                replace(sample, input_id=name, stratum="certainty" if name == "07.jpg" else "body")
                for name, sample in zip(chosen, make.samples([0.01] * len(chosen), "edge"), strict=True)
            ]
            record = make.measurement(where, "identity", "edge", number, samples=samples, inputs_select="systematic")
            record_measurement(session, replace(record, protocol=PROTOCOL, pool_key=POOL.digest, pool=RECORD))
        sync_strategies(session, where, [make.strategy("identity", "edge")])
        session.commit()
    return database


def exported(database: Database) -> bytes:
    with database.session() as session:
        return document_bytes(collect(session))


def rows(database: Database, query: str) -> list[Any]:
    with database.session() as session:
        return [tuple(row) for row in session.execute(text(query))]


def test_a_pool_is_stored_once_and_sql_has_the_size_of_each_sample(drawn: Database) -> None:
    assert rows(drawn, "SELECT key, unit FROM input_pool") == [(POOL.digest, "bytes")]
    assert rows(drawn, "SELECT COUNT(*) FROM pool_input") == [(8,)]
    query = "SELECT round, input_id, stratum, size, unit, media FROM sample_sizes ORDER BY round, seq"
    assert rows(drawn, query)[0] == (1, "07.jpg", "certainty", 1007, "bytes", "image/jpeg")
    assert [row[3] for row in rows(drawn, query)] == [1007, 1000, 1004, 1002, 1006]


def test_a_pool_comes_and_goes_with_its_measurements(drawn: Database, other: Database, tmp_path: Path) -> None:
    file = tmp_path / "drawn.json"
    file.write_bytes(exported(drawn))
    import_files(other, [file])
    for query in (
        "SELECT key, unit FROM input_pool",
        "SELECT input_id, size, media FROM pool_input ORDER BY input_id",
        "SELECT input_id, stratum, size FROM sample_sizes ORDER BY round, seq",
        "SELECT pool_key, inputs_select FROM measurement ORDER BY round",
    ):
        assert rows(drawn, query) == rows(other, query)
    (again,) = import_files(other, [file])
    assert again.stored.known_before
    forget_file(other, "drawn.json")
    assert rows(other, "SELECT COUNT(*) FROM input_pool") == rows(other, "SELECT COUNT(*) FROM pool_input") == [(0,)]


def test_a_later_export_joins_and_the_pool_stays_until_both_are_forgotten(
    drawn: Database, other: Database, tmp_path: Path
) -> None:
    document = json.loads(exported(drawn))
    first = document | {"measurements": document["measurements"][:1]}
    for name, content in (("first.json", first), ("both.json", document)):
        (tmp_path / name).write_text(json.dumps(content))
        import_files(other, [tmp_path / name])
    assert rows(other, "SELECT COUNT(*) FROM environment") == [(1,)]
    assert rows(other, "SELECT COUNT(*) FROM sample_sizes") == [(5,)]
    forget_file(other, "both.json")
    assert rows(other, "SELECT COUNT(*) FROM pool_input") == [(8,)]
    assert rows(other, "SELECT COUNT(*) FROM sample_sizes") == [(3,)]
    forget_file(other, "first.json")
    assert rows(other, "SELECT COUNT(*) FROM pool_input") == [(0,)]


def test_forgetting_a_file_leaves_a_pool_that_others_name(drawn: Database, tmp_path: Path) -> None:
    file = tmp_path / "drawn.json"
    file.write_bytes(exported(drawn))
    import_files(drawn, [file])
    forget_file(drawn, "drawn.json")
    assert rows(drawn, "SELECT COUNT(*) FROM pool_input") == [(8,)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda document: next(iter(document["pools"].values()))["size"].append(5), "has 9 sizes, and the list"),
        (lambda document: next(iter(document["pools"].values())).update(size=[5] * 8), "hash to"),
        (lambda document: document.pop("pools"), "is not among the pools"),
        (lambda document: document["measurements"][0]["samples"].update(stratum=["body"]), "differ in length"),
        (lambda document: document["measurements"][0]["samples"].update(stratum=["head"] * 3), "body"),
    ],
)
def test_a_document_whose_pool_does_not_hold_together_is_refused(drawn: Database, change: Any, says: str) -> None:
    document = json.loads(exported(drawn))
    for columns in document["pools"].values():
        columns.pop("media")
        columns["media"] = None
    change(document)
    with pytest.raises(ExchangeError, match=says):
        parse_document(json.dumps(document).encode(), file="changed.json")


def test_a_document_without_pools_is_written_as_before(database: Database, make: Any) -> None:
    with database.session() as session:
        where = upsert_environment(session, make.environment())
        record_measurement(session, make.measurement(where, "identity", "edge", 1))
        session.commit()
    content = exported(database)
    assert not any(word in content for word in (b"pool", b"stratum"))


def test_rows_may_bring_the_bytes_of_their_inputs(drawn: Database, other: Database, tmp_path: Path) -> None:
    with drawn.session() as session:
        csv = rows_csv(collect(session), "latencies")
    assert csv.splitlines()[0].split("round,environment,")[1].startswith("input_bytes,measured_at,")
    file = tmp_path / "rows.csv"
    file.write_text(csv)
    import_files(other, [file])
    # A pool of what was measured: five of the eight.
    assert rows(other, "SELECT COUNT(*) FROM pool_input") == [(5,)]
    query = "SELECT input_id, size, unit, stratum FROM sample_sizes ORDER BY round, input_id"
    assert rows(other, query)[-1] == ("06.jpg", 1006, "bytes", None)


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (("100", "x"), "line 3: input_bytes is 'x'; expected a whole number from 1 on"),
        (("100", "0"), "line 3: input_bytes is '0'; expected a whole number from 1 on"),
        (("100", ""), "is given for a.jpg on line 2 and not for b.jpg on line 3; give it for every input"),
    ],
)
def test_bytes_that_cannot_be_are_refused(other: Database, tmp_path: Path, cells: tuple[str, str], says: str) -> None:
    file = tmp_path / "rows.csv"
    lines = [f"net,identity,edge,{name}.jpg,0,0.1,{cell}" for name, cell in zip("ab", cells, strict=True)]
    file.write_text("subject,operator,placement,input_id,repetition,latency_s,input_bytes\n" + "\n".join(lines))
    with pytest.raises(ExchangeError, match=says):
        import_files(other, [file])


def test_an_input_has_one_size(other: Database, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    lines = [f"net,{operator},edge,a.jpg,0,0.1,{size}" for operator, size in (("identity", 5), ("quantized", 6))]
    file.write_text("subject,operator,placement,input_id,repetition,latency_s,input_bytes\n" + "\n".join(lines))
    with pytest.raises(ExchangeError, match=r"line 3: input_bytes of a\.jpg is 6, and 5 on line 2; keep one"):
        import_files(other, [file])


def test_a_pool_that_another_program_changed_is_left_out(drawn: Database) -> None:
    """Sizes that cannot be are not read; an export has no pool that is not what its key says."""
    with drawn.session() as session:
        session.execute(text("UPDATE pool_input SET size = -1 WHERE input_id = '00.jpg'"))
        session.execute(text("UPDATE sample SET stratum = 'head' WHERE input_id = '07.jpg'"))
        session.commit()
    sound = sound_database(drawn)
    assert sorted(line.split(":")[0] for line in sound.left_out) == ["pool_input of pool 1", "sample of measurement 1"]
    assert rows(sound, "SELECT COUNT(*) FROM pool_input") == [(7,)]
    assert b'"pools"' not in exported(sound)
    parse_document(exported(sound), file="without a pool")
