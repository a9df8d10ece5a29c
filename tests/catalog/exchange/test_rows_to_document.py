"""Rows from elsewhere: what they mean once stored, and everything that can be wrong with them, by line."""

import io
import json
import random
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from catalog.errors import CatalogError, ExchangeError
from catalog.evidence.database import Database, open_database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.reading import leaderboard
from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.exchange import collect, import_files, rows_csv
from catalog.exchange.rows import Rows, read_rows
from catalog.exchange.serialization import ContentStream
from catalog.statistics.samples import percentile_over_rounds

pytestmark = pytest.mark.both_databases

HEADER = "subject,operator,placement,input_id,repetition,latency_s"
ROW = "net,identity,edge,1.jpg,0,0.1"


def latency_s(item: int, number: int) -> float:
    return 0.1 + 0.01 * item + 0.001 * number


def phone(rounds: int = 3, inputs: int = 5) -> str:
    """Return two operators on two placements, one of them behind a link, with known latencies."""
    lines = [f"{HEADER},round,mobile-edge_bit_per_s"]
    for operator, factor in (("identity", 1.0), ("quantized", 0.5)):
        for placement, rate in (("mobile", ""), ("edge", "2e8")):
            lines += [
                f"net,{operator},{placement},{item}.jpg,0,{factor * latency_s(item, number)},{number},{rate}"
                for number in range(1, rounds + 1)
                for item in range(inputs)
            ]
    return "\n".join(lines) + "\n"


ACCURACIES = (
    "subject,operator,placement,metric,value_pct\n"
    "net,identity,mobile,top1,90\nnet,identity,mobile,top5,99\nnet,identity,edge,top1,91\n"
    "net,quantized,mobile,top1,88.5\nnet,quantized,edge,top1,91.5\n"
)


def stored(database: Database, *files: Path, **options: Any) -> list[StrategyEvidence]:
    import_files(database, files, **options)
    with database.session() as session:
        return list(strategy_evidence(session))


def file(tmp_path: Path, content: str | bytes, name: str = "phone.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_rows_become_evidence(database: Database, tmp_path: Path) -> None:
    latencies = file(tmp_path, phone(), "pixel 8.csv")
    rows = stored(database, latencies, file(tmp_path, ACCURACIES, "accuracies.csv"))
    assert [(row.operator, row.placement, row.tiers) for row in rows] == [
        ("identity", "mobile", ("mobile",)),
        ("identity", "edge", ("edge",)),
        ("quantized", "mobile", ("mobile",)),
        ("quantized", "edge", ("edge",)),
    ]
    (environment,) = {row.environment.key: row.environment for row in rows}.values()
    assert (environment.host, environment.launcher, environment.cpu_model) == ("pixel-8", "imported", "unknown")
    assert environment.origin is not None
    assert environment.origin.name == "pixel 8.csv"
    edge = rows[3]
    assert (edge.latency_s.size, len(edge.rounds), edge.rounds_declared, edge.inputs_select) == (15, 3, 3, "given")
    assert edge.conditions["links"] == [{"name": "mobile-edge", "up_bit_per_s": 2e8, "down_bit_per_s": 2e8}]
    assert rows[0].conditions["links"] == []
    values = np.array([0.5 * latency_s(item, number) for number in (1, 2, 3) for item in range(5)])
    expected = percentile_over_rounds(values, np.repeat([1, 2, 3], 5), 90)
    assert percentile_over_rounds(edge.latency_s, edge.round, 90) == pytest.approx(expected, rel=1e-12)
    assert edge.accuracy is not None
    assert (edge.accuracy.accuracy_pct, edge.accuracy.items, edge.accuracy.top1.size) == (91.5, 0, 0)
    assert edge.drop_pp == pytest.approx(-0.5)
    assert rows[2].drop_pp == pytest.approx(1.5)
    assert rows[0].accuracy is not None
    assert rows[0].accuracy.top5_pct == 99.0


def test_the_number_of_items_is_kept_and_is_one_per_strategy(database: Database, tmp_path: Path) -> None:
    header = "subject,operator,placement,metric,value_pct,items\n"
    content = f"{header}net,identity,mobile,top1,90,2000\nnet,identity,mobile,top5,99,2000\n"
    (row,) = stored(database, file(tmp_path, content))
    assert row.accuracy is not None and row.accuracy.items == 2000
    with pytest.raises(ExchangeError, match="items of net/identity@mobile in phone is 100, and 2000 before; keep one"):
        stored(database, file(tmp_path, content.replace("99,2000", "99,100")))
    with pytest.raises(ExchangeError, match="items is '0'; expected a whole number from 1 on"):
        stored(database, file(tmp_path, content.replace("2000", "0")))


def test_json_rows_are_the_same(database: Database, tmp_path: Path) -> None:
    header, *lines = phone().splitlines()
    names = header.split(",")
    objects = [dict(zip(names, line.split(","), strict=True)) for line in lines]
    for row in objects:
        numbers = {"repetition": int(row["repetition"]), "latency_s": float(row["latency_s"])}
        row |= numbers | {"round": int(row["round"])}  # type: ignore[arg-type]
    first = stored(database, file(tmp_path, phone()))
    both = stored(database, file(tmp_path, json.dumps(objects), "phone.json"), environment="json")
    for one, two in zip(first, both[len(first) :], strict=True):
        assert (one.latency_s == two.latency_s).all()
        assert (one.subject, one.operator, one.placement) == (two.subject, two.operator, two.placement)
        assert one.environment.key != two.environment.key
        assert one.latency_key != two.latency_key


def test_environments_come_from_the_column_the_option_or_the_name(database: Database, tmp_path: Path) -> None:
    column = file(tmp_path, f"{HEADER},environment\n{ROW},pixel\n{ROW},\n", "lab.csv")
    assert [row.environment.host for row in stored(database, column)] == ["lab", "pixel"]
    plain = file(tmp_path, f"{HEADER}\n{ROW}\n", "plain.csv")
    assert [row.environment.host for row in stored(database, plain, environment="x1")][2:] == ["x1"]
    with pytest.raises(ExchangeError, match="--environment: 'a b' is no name"):
        import_files(database, [plain], environment="a b")


def test_the_same_rows_again_change_nothing_and_others_are_not_pooled(database: Database, tmp_path: Path) -> None:
    first = file(tmp_path, phone())
    stored(database, first)
    (again,) = import_files(database, [first])
    assert again.stored.known_before
    more = file(tmp_path, phone(rounds=4), "more.csv")
    with pytest.raises(
        ExchangeError, match=r"another file brought latencies of net/identity@mobile in phone; name ano"
    ):
        import_files(database, [more], environment="phone")
    (elsewhere,) = import_files(database, [more], environment="monday")
    assert elsewhere.stored.rounds == 16
    with database.session() as session:
        assert {row["host"]: row["samples"] for row in leaderboard(session)} == {"phone": 15, "monday": 20}


def test_accuracies_join_the_latencies_of_another_import(database: Database, tmp_path: Path) -> None:
    stored(database, file(tmp_path, phone()))
    accuracies = file(tmp_path, ACCURACIES, "accuracies.csv")
    rows = stored(database, accuracies, environment="phone")
    assert len(rows) == 4
    assert all(row.measured and row.accuracy is not None for row in rows)
    other = file(tmp_path, ACCURACIES.replace("88.5", "80"), "others.csv")
    with pytest.raises(ExchangeError, match="another file brought accuracies of net/identity@mobile in phone"):
        import_files(database, [other], environment="phone")


def test_accuracies_alone_and_of_every_metric(database: Database, tmp_path: Path) -> None:
    content = (
        "subject,operator,placement,metric,value_pct\n"
        "net,identity,edge,top1,90\ncanvas,identity,edge,miou,60.5\nblind,quantized,edge,agreement,97\n"
    )
    rows = {row.subject: row for row in stored(database, file(tmp_path, content))}
    accuracies = {
        name: (row.task, row.accuracy.metric, row.accuracy.accuracy_pct) for name, row in rows.items() if row.accuracy
    }
    assert accuracies == {
        "net": ("classification", "top1", 90.0),
        "canvas": ("segmentation", "miou", 60.5),
        "blind": ("any", "agreement", 97.0),
    }
    assert not any(row.measured for row in rows.values())


def test_rows_go_out_as_they_came_in(database: Database, tmp_path: Path) -> None:
    stored(database, file(tmp_path, phone()), file(tmp_path, ACCURACIES, "accuracies.csv"))
    with database.session() as session:
        document = collect(session)
    for kind, source in (("latencies", phone()), ("accuracies", ACCURACIES)):
        first = cells(read(source))
        second = cells(read(rows_csv(document, kind)))  # type: ignore[arg-type]
        assert sorted(map(comparable, first)) == sorted(map(comparable, second))


def read(content: str) -> Rows:
    return read_rows(ContentStream(io.BytesIO(content.encode()), file="x"), file="x")


def cells(rows: Rows) -> list[dict[str, str]]:
    return [dict(zip(rows.columns, row.cells, strict=True)) for row in rows.rows]


def comparable(row: dict[str, str]) -> list[tuple[str, Any]]:
    def value(cell: str) -> Any:
        try:
            return str(float(cell))
        except ValueError:
            return cell

    return sorted((name, value(cell)) for name, cell in row.items() if name != "environment")


@pytest.mark.parametrize(
    "content",
    [
        f"\ufeff{HEADER}\n{ROW}\n",
        f"{HEADER}\r\n{ROW}\r\n",
        f"{HEADER}\r{ROW}",
        f"\n\n{HEADER}\n\n{ROW}\n\n".lstrip("\n"),
        f'{HEADER}\n"net","identity", edge ,"1.jpg",0,+1e-1\n',
    ],
    ids=["byte order mark", "CRLF", "CR", "blank lines", "quotes, blanks, exponent"],
)
def test_spellings_of_the_same_file(content: str) -> None:
    rows = read(content)
    assert rows.kind == "latencies"
    (row,) = cells(rows)
    assert row["placement"] == "edge"


BAD: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "is empty or has no header"),
    "blank": ("\n\n", "is empty or has no header"),
    "no rows": (f"{HEADER}\n", "has no rows"),
    "binary": (b"\x00\x01\x02" * 50, "holds NUL characters: not a text file"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not UTF-8 text"),
    "UTF-16": (f"{HEADER}\n{ROW}\n".encode("utf-16"), "not UTF-8 text"),
    "missing": (
        "subject,operator,placement,latency_s\nnet,i,edge,1\n",
        "missing columns input_id, repetition; latencies",
    ),
    "no near name": (f"{HEADER},comment\n{ROW},x\n", r"unknown column 'comment'; allowed: [^;?]*; or a link such"),
    "yaml": ("version: 1\nsubjects:\n  net: {model: a.onnx}\n", r"^[^\n]*is YAML, as a catalog file is, [^\n]*$"),
    "unknown": (f"{HEADER},rund\n{ROW},1\n", r"unknown column 'rund'; allowed: subject, .* did you mean 'round'\?"),
    "misspelt": (f"{HEADER}\n{ROW}\n".replace("latency_s", "latensy_s"), "unknown column 'latensy_s'.*'latency_s'"),
    "twice": (f"{HEADER},latency_s\n{ROW},1\n", "column 'latency_s' is there 2 times"),
    "accuracy columns": (
        "subject,operator,placement,metric,worth\nn,i,e,top1,9\n",
        "missing column value_pct; accuracies",
    ),
    "short row": (f"{HEADER}\n{ROW}\nnet,identity\n", "line 3: 2 cells where the header has 6"),
    "long row": (f"{HEADER}\n{ROW},7\n", "line 2: 7 cells where the header has 6"),
    "open quote": (f'{HEADER}\nnet,"identity,edge,1,0,0.1\n', "line 2: unexpected end of data"),
    "NaN": (f"{HEADER}\nnet,identity,edge,1,0,NaN\n", "line 2: latency_s is 'NaN'; expected seconds above 0"),
    "infinite": (f"{HEADER}\nnet,identity,edge,1,0,1e999\n", "line 2: latency_s is '1e999'"),
    "negative": (f"{HEADER}\n{ROW}\nnet,identity,edge,1,0,-0.1\n", "line 3: latency_s is '-0.1'"),
    "zero": (f"{HEADER}\nnet,identity,edge,1,0,0\n", "line 2: latency_s is '0'"),
    "decimal comma": (f'{HEADER}\nnet,identity,edge,1,0,"0,1"\n', "expected seconds above 0, with a decimal point"),
    "underscore": (f"{HEADER}\nnet,identity,edge,1,0,1_0\n", "latency_s is '1_0'"),
    "other digits": (f"{HEADER}\nnet,identity,edge,1,0,٣\n", "latency_s is '٣'"),
    "no number": (f"{HEADER}\nnet,identity,edge,1,0,\n", "latency_s is ''"),
    "repetition": (f"{HEADER}\nnet,identity,edge,1,0.5,1\n", "repetition is '0.5'; expected a whole number from 0 on"),
    "round": (f"{HEADER},round\n{ROW},0\n", "round is '0'; expected a whole number from 1 on"),
    "name": (f"{HEADER}\n[/],identity,edge,1,0,1\n", r"subject is '\[/\]'; expected letters"),
    "two names that become one": (
        f"{HEADER}\na b,identity,edge,1,0,1\na/b,identity,edge,1,0,1\n",
        "line 3: subject is 'a/b' and 'a b' in other rows; both would be a-b here",
    ),
    "placement": (f"{HEADER}\nnet,identity,mobile->fog,1,0,1\n", "placement is 'mobile->fog'; expected a tier"),
    "input": (f"{HEADER}\nnet,identity,edge,,0,1\n", "input_id is ''; expected 1 to 255 printable"),
    "duplicate": (f"{HEADER}\n{ROW}\n{ROW}\n", "line 3: this input, repetition and round is on line 2 already"),
    "link": (f"{HEADER},a-b_bit_per_s\n{ROW},-1\n", "a-b_bit_per_s is '-1'; expected bit/s above 0"),
    "links differ": (
        f"{HEADER},a-b_bit_per_s\n{ROW},1e6\nnet,identity,edge,2.jpg,0,0.1,\n",
        "line 3: other links than before for net/identity@edge in f; that is another environment",
    ),
    "huge field": (f"{HEADER}\nnet,identity,edge,{'x' * 20_000},0,1\n", "line 2: input_id is 20000 characters long"),
    "huge quoted field": (f'{HEADER}\nnet,identity,edge,"{"x" * 200_000}",0,1\n', "field larger than field limit"),
    "metric": ("subject,operator,placement,metric,value_pct\nn,i,e,top3,9\n", "metric is 'top3'; expected top1, top5"),
    "percentage": (
        "subject,operator,placement,metric,value_pct\nn,i,e,top1,101\n",
        "value_pct is '101'; expected a perc",
    ),
    "metric twice": (
        "subject,operator,placement,metric,value_pct\nn,i,e,top1,9\nn,i,e,top1,8\n",
        "line 3: top1 of n/i@e in f is on line 2 already",
    ),
    "two tasks": (
        "subject,operator,placement,metric,value_pct\nn,i,e,top1,9\nn,i,e,miou,8\n",
        "n/i@e in f has top1 and miou; expected one of",
    ),
    "top5 alone": ("subject,operator,placement,metric,value_pct\nn,i,e,top5,9\n", "has top5; expected one of top1"),
    "JSON of other things": ('["a", 2]', "row 1: expected an object"),
    "JSON nested": ('[{"subject": ["a"]}]', "missing columns|subject is a list"),
    "JSON malformed": ("[\n{]", "line 2: malformed JSON"),
    "JSON deep": ("[" * 100_000, "nested too deeply"),
    "JSON empty": ("[]", "missing columns|has no rows"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_by_line_and_nothing_is_stored(
    database: Database, tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(ExchangeError, match=message) as caught:
        import_files(database, [file(tmp_path, content, "f.csv")])
    assert str(caught.value).startswith(f"{tmp_path / 'f.csv'}: ")
    with database.session() as session:
        for table in ("environment", "strategy", "measurement", "sample", "imported_file"):
            assert session.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one() == 0


def test_a_number_in_json_is_judged_like_a_cell(database: Database, tmp_path: Path) -> None:
    row = {
        "subject": "net",
        "operator": "identity",
        "placement": "edge",
        "input_id": 7,
        "repetition": 0,
        "latency_s": 0.25,
    }
    (evidence,) = stored(database, file(tmp_path, json.dumps([row]), "f.json"))
    assert evidence.input_ids == ("7",)
    assert evidence.latency_s.tolist() == [0.25]
    for bad, message in ((float("nan"), "'NaN'"), (True, "is a bool"), (None, "is ''"), ([1], "is a list")):
        with pytest.raises(ExchangeError, match=f"row 1: latency_s.*{message}"):
            import_files(database, [file(tmp_path, json.dumps([row | {"latency_s": bad}]), "g.json")])
    short = {name: value for name, value in row.items() if name != "latency_s"}
    with pytest.raises(ExchangeError, match="row 2: latency_s is ''"):
        import_files(database, [file(tmp_path, json.dumps([row, short]))])


def test_all_problems_are_found_and_twenty_shown(database: Database, tmp_path: Path) -> None:
    lines = [HEADER, *[f"net,identity,edge,{number},0,-1" for number in range(50)]]
    with pytest.raises(ExchangeError) as caught:
        import_files(database, [file(tmp_path, "\n".join(lines))])
    assert len(caught.value.problems) == 50
    assert str(caught.value).splitlines()[19].startswith(f"{tmp_path / 'phone.csv'}: line 21: ")
    assert str(caught.value).splitlines()[20].endswith("and 30 more; nothing of the file was stored")


def test_files_that_are_none(database: Database, tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match="is a directory; name a file in it"):
        import_files(database, [tmp_path])
    with pytest.raises(ExchangeError, match="cannot be read: No such file"):
        import_files(database, [tmp_path / "none.csv"])
    export = file(tmp_path, '{"format":"tierwise-evidence","version":1}', "e.json")
    with pytest.raises(ExchangeError, match="leave out --environment"):
        import_files(database, [export], environment="x")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(alphabet=f'{HEADER},;"\n\r\t0123456789.eE-+[]{{}}:\0', max_size=200).map(
            lambda body: f"{HEADER}\n{body}"
        ),
    )
)
def test_nothing_hostile_gets_further_than_one_clear_error(tmp_path: Path, database: Database, content: Any) -> None:
    try:
        import_files(database, [file(tmp_path, content)])
    except CatalogError as error:
        assert str(error)


# Names that sort otherwise as numbers, in another case, or that could be taken for a link.
ODD_NAMES = (("1", "A-net", "a-net"), ("identity", "edge-1", "Edge-1", "10"), ("edge-1", "10", "1", "Edge", "edge"))


def odd_rows() -> list[dict[str, str]]:
    subjects, operators, placements = ODD_NAMES
    return [
        {
            "subject": subject,
            "operator": operator,
            "placement": placement,
            "input_id": str(item),
            "repetition": "0",
            "latency_s": str(0.1 + item / 10 + len(operator) / 100),
            "edge-1_bit_per_s": "1e6" if placement == "edge-1" else "",
        }
        for subject in subjects
        for operator in operators
        for placement in placements
        for item in (1, 10, 9)
    ]


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rng=st.randoms(use_true_random=False), as_json=st.booleans())
def test_rows_and_columns_in_any_order_store_the_same(
    tmp_path: Path, sqlite_template: Path, rng: random.Random, as_json: bool
) -> None:
    stored = []
    for arrange in (list, lambda values: rng.sample(values, len(values))):
        rows = arrange([dict(arrange(list(row.items()))) for row in odd_rows()])
        columns = arrange(list(rows[0]))
        lines = [",".join(columns), *(",".join(row[column] for column in columns) for row in rows)]
        (tmp_path / "phone.csv").write_text(json.dumps(rows) if as_json and stored else "\n".join(lines))
        shutil.copy(sqlite_template, tmp_path / "any.db")
        with open_database(tmp_path / "any.db") as opened:
            import_files(opened, [tmp_path / "phone.csv"], now=datetime(2026, 11, 29, tzinfo=UTC))
            with opened.session() as session:
                tables = ("environment", "strategy", "measurement", "sample", "leaderboard")
                stored.append([session.execute(text(f"SELECT * FROM {table}")).all() for table in tables])
    assert stored[0] == stored[1]
