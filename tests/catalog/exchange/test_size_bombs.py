"""Files that are small and hold much: refused with one clear error, in little memory and time."""

import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from catalog.errors import ExchangeError
from catalog.evidence.database import Database
from catalog.exchange import import_files, parse_document
from catalog.exchange.document import MAX_PROBLEMS
from catalog.exchange.row_collector import RowCollector
from catalog.exchange.rows import read_rows
from catalog.exchange.rows_to_document import rows_digest
from catalog.exchange.serialization import FREE_BYTES, ContentStream, read_document
from catalog.keys import content_key
from tests.catalog.exchange.test_document import PLACE, ROUND, made, samples

HEADER = "subject,operator,placement,input_id,repetition,latency_s"
MANY = 30_000


def peak_of(work: Callable[[], object]) -> int:
    """Return the most bytes that are in use at once while something runs."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def document(**sections: str) -> bytes:
    """Return a document with sections as they are written."""
    head = '"format":"tierwise-evidence","version":1'
    return ("{" + ",".join([head, *(f'"{name}":{value}' for name, value in sections.items())]) + "}").encode()


def entry(**changes: Any) -> str:
    return json.dumps([{**ROUND, **changes}])


MEMBERS = ",".join(f'"x{number}":0' for number in range(MANY))
HOSTILE: dict[str, tuple[bytes, str]] = {
    "entries without a field": (document(measurements=f"[{','.join(['{}'] * MANY)}]"), r"measurements\[0\].*required"),
    "entries that are none": (document(strategies=f"[{','.join(['1'] * MANY)}]"), r"strategies\[0\]: Input should be"),
    "an entry of unknown fields": (document(slos=f"[{{{MEMBERS}}}]"), r"slos\[0\]: .*has 30000 members; allowed are"),
    "a field of unknown members": (
        document(slos=f'[{{"name":"s","latency":{{{MEMBERS}}},"accuracy":{{}}}}]'),
        "latency has 30000 members; allowed are",
    ),
    "unknown sections": (document(**{f"s{number}": "0" for number in range(20_000)}), "s0: Extra inputs"),
    "wrong numbers": (
        json.dumps(made(**samples(latency_s=[-1.0] * MANY))).encode(),
        r"measurements\[0\].samples.latency_s\[0\]: Input should be greater",
    ),
    "wrong warm-ups": (document(measurements=entry(warmup_latency_s=["x"] * MANY)), r"warmup_latency_s\[0\]"),
    "wrong ids": (
        document(ids='{"i":[' + ",".join(["0"] * MANY) + "]}"),
        r"ids.i\[0\]: Input should be a valid string",
    ),
    "nested lists": (document(measurements="[" * MANY), "recursion limit exceeded"),
    "nested objects": (b'{"a":' * MANY, "nested too deeply"),
    "a huge text": (document(measurements=entry(reason="x" * 2_000_000)), "at most 100000 characters"),
    "a huge number": (document(environments=f"[{'9' * 100_000}]"), "Invalid JSON: .*digits"),
    "a number that is none": (document(measurements=entry(window_s=float("inf"))), "window_s: .*finite"),
    "an endless text": (b'{"a": "' + b"x" * 2_000_000, "line 1: malformed JSON: Unterminated"),
    "a list of objects": (f"[{','.join(['{}'] * MANY)}]".encode(), "has no rows"),
    "a list of numbers": (f"[{','.join(['1'] * MANY)}]".encode(), "nothing says the unit of 'latency'"),
    "a row of many columns": (f"[{{{MEMBERS}}}]".encode(), "has more than 1000 columns"),
    "many columns": (f"{','.join(f'c{number}' for number in range(MANY))}\n".encode(), "has 30000 columns"),
    "bad rows": (f"{HEADER}\n".encode() + b"net,identity,edge,1,0,-1\n" * MANY, "line 2: latency_s is '-1'"),
    "short rows": (f"{HEADER}\n".encode() + b"1\n" * MANY, "line 2: 1 cells where the header has 6"),
    "a long line": (f"{HEADER}\n".encode() + b"x" * 3_000_000, "line 2 is longer than"),
    "many commas": (f"{HEADER}\n".encode() + b"," * 900_000, "line 2: 900001 cells"),
}


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_wrong_a_million_times_is_said_once(
    database: Database, tmp_path: Path, content: bytes, message: str
) -> None:
    """A problem of each wrong value took gigabytes."""
    (tmp_path / "f.gz").write_bytes(gzip.compress(content))
    caught: list[ExchangeError] = []

    def importing() -> None:
        with pytest.raises(ExchangeError, match=message) as error:
            import_files(database, [tmp_path / "f.gz"])
        caught.append(error.value)

    assert peak_of(importing) < 32 * 2**20
    # The last row that is read may have several.
    assert len(caught[0].problems) < MAX_PROBLEMS + 10
    assert len(str(caught[0]).splitlines()) <= 21
    with database.session() as session:
        assert session.execute(text("SELECT COUNT(*) FROM imported_file")).scalar_one() == 0


def test_a_bomb_is_refused_before_it_is_unpacked(database: Database, tmp_path: Path) -> None:
    bomb = gzip.compress(f"{HEADER}\n".encode() + b"0" * (4 * FREE_BYTES))
    (tmp_path / "bomb.csv.gz").write_bytes(bomb)

    def importing() -> None:
        with pytest.raises(ExchangeError) as caught:
            import_files(database, [tmp_path / "bomb.csv.gz"])
        said = str(caught.value)
        for words in ("KiB of gzip unpack to more than", "allowed are 200 times", "gunzip"):
            assert words in said or "line 2 is longer than" in said

    assert peak_of(importing) < 3 * FREE_BYTES


def test_a_bomb_of_many_lines_is_refused_by_its_ratio() -> None:
    bomb = gzip.compress(b"\n" * (4 * FREE_BYTES))
    with pytest.raises(ExchangeError, match=r"KiB of gzip unpack to more than .* MiB; allowed are 200 times the size"):
        ContentStream(io.BytesIO(bomb), file="f").readall()
    assert len(ContentStream(io.BytesIO(gzip.compress(b"\n" * FREE_BYTES)), file="f").readall()) == FREE_BYTES


def test_rows_are_not_in_memory_as_a_whole(database: Database, tmp_path: Path) -> None:
    """Text, cells and objects of all rows at once took four kilobytes for each."""
    rows = [
        f"net,identity,edge,{item},{repetition},{0.01 + item / 1e5!r}"
        for repetition in range(200)
        for item in range(100)
    ]
    (tmp_path / "rows.csv").write_text("\n".join([HEADER, *rows]))
    assert peak_of(lambda: import_files(database, [tmp_path / "rows.csv"])) < 700 * len(rows) + 20 * 2**20


def test_a_document_is_read_at_any_boundary() -> None:
    """A value may be cut off where a chunk ends; it is read on."""
    whole = made(measurements=[{**ROUND, "round": number} for number in range(1, 1200)], environments=[PLACE])
    content = json.dumps(whole, indent=1).encode()
    assert len(content) > 2 * 2**18
    assert len(parse_document(content, file="f").measurements) == 1199


def test_the_digest_of_rows_is_the_content_key_of_what_they_say() -> None:
    """Keys of evidence that was imported before must stay what they are."""
    lines = [
        HEADER + ",round,a-b_bit_per_s",
        "net,identity,b,\u00fc.jpg,1,2.0,10,2e6",
        'net,identity,b,"x""y",0,0.125,2,2e6',
    ]
    stream = ContentStream(io.BytesIO("\n".join(lines).encode()), file="f")
    gathered = RowCollector(read_rows(stream, file="f"), "lab").gather()
    strategy = {"environment": "lab", "subject": "net", "operator": "identity", "placement": "b"}
    rounds = {"2": [['x"y', 0, 0.125]], "10": [["\u00fc.jpg", 1, 2]]}
    row = {"strategy": strategy, "links": {"a-b": 2_000_000}, "rounds": rounds, "metrics": {}}
    assert rows_digest(gathered) == content_key({"kind": "rows", "rows": [row]})


def test_nothing_is_read_after_a_thousand_problems() -> None:
    stream = ContentStream(io.BytesIO(document(measurements=f"[{','.join(['{}'] * 400_000)}]")), file="f")
    with pytest.raises(ExchangeError) as caught:
        read_document(stream, file="f")
    assert len(caught.value.problems) == MAX_PROBLEMS
    assert stream.position < 2 * 2**18


def test_lists_of_ids_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog.exchange.serialization._MAX_MEMBERS", 100)
    with pytest.raises(ExchangeError, match="ids has more than 100 members at line 1 column"):
        parse_document(document(ids="{" + ",".join(f'"i{number}":[]' for number in range(102)) + "}"), file="f")
