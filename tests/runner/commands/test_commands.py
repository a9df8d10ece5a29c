"""Export, import, sql and compare as a user types them: data on stdout, messages on stderr, exit codes."""

import contextlib
import csv
import gzip
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.cli import app, run

PHONE = "subject,operator,placement,input_id,repetition,latency_s,round\n" + "".join(
    f"net,{operator},{placement},{item}.jpg,0,{seconds + 0.001 * item},{number}\n"
    for operator, seconds in (("identity", 0.2), ("quantized", 0.1))
    for placement in ("mobile", "edge")
    for number in (1, 2, 3)
    for item in range(30)
)
ACCURACIES = (
    "subject,operator,placement,metric,value_pct\n"
    "net,identity,mobile,top1,90\nnet,identity,edge,top1,90\nnet,quantized,mobile,top1,89\nnet,quantized,edge,top1,88\n"
)


@dataclass(frozen=True)
class Done:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


Runner = Callable[..., Done]


@pytest.fixture
def runner(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runner:
    """Run commands in a temporary directory; none may leave a stack trace."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phone.csv").write_text(PHONE)
    (tmp_path / "accuracies.csv").write_text(ACCURACIES)
    (tmp_path / "empty").mkdir()

    def running(*arguments: str) -> Done:
        code = run(lambda: app(list(arguments)))
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Done(code, printed.out, printed.err)

    return running


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database of the two files, which are imported once; tests copy it."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "phone.csv").write_text(PHONE)
    (folder / "accuracies.csv").write_text(ACCURACIES)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert run(lambda: app(["import", "phone.csv", "accuracies.csv", "-d", "lab.db"])) == 0
    # A copy of the file alone is the whole database.
    assert not (folder / "lab.db-wal").exists()
    return folder / "lab.db"


@pytest.fixture
def lab(runner: Runner, imported: Path, tmp_path: Path) -> Runner:
    """Have the two files in lab.db."""
    shutil.copy(imported, tmp_path)
    return runner


def test_an_imported_file_can_be_ranked_and_asked(runner: Runner) -> None:
    done = runner("import", "phone.csv", "accuracies.csv", "-d", "lab.db")
    assert done.out.splitlines() == [
        "phone.csv: 1 new environment, 4 strategies, 12 rounds with 360 samples, 0 accuracies",
        "accuracies.csv: 0 new environments, 4 strategies, 0 rounds with 0 samples, 4 accuracies",
    ]
    board = runner("leaderboard", "-d", "lab.db")
    assert "net · phone, imported from phone.csv" in board.out
    answer = runner("recommend", "net", "-d", "lab.db", "--max-latency", "150ms", "--json")
    assert answer.code == 0
    content = json.loads(answer.out)
    assert content["recommendation"]["placement"] == "mobile"
    assert content["environment"]["imported_from"] == "phone.csv"
    assert "imported from phone.csv and accuracies.csv, not measured here" in content["warnings"]
    assert runner("import", "phone.csv", "-d", "lab.db").out == "phone.csv: imported before, nothing changed\n"


def test_an_accuracy_without_items_promises_no_budget_and_says_what_to_do(lab: Runner) -> None:
    question = ("recommend", "net", "-d", "lab.db", "--max-latency", "150ms", "--max-drop", "1", "--json")
    done = lab(*question)
    content = json.loads(done.out)
    best = content["recommendation"]
    assert (done.code, content["status"], best["id"]) == (1, "estimated", "net:quantized:mobile")
    assert "without its items no bound can be given" in best["reason"]
    # No fill adds to rows of another study.
    assert content["to_do"]["command"] is None and content["to_do"]["words"].startswith("Importing the accuracy of q")


def test_an_import_is_analysed_and_stored(lab: Runner) -> None:
    counted = "SELECT COUNT(*) AS strategies, (SELECT COUNT(*) FROM pairwise) > 0 AS paired FROM ranking"
    assert json.loads(lab("sql", counted, "-d", "lab.db", "--json").out) == [{"strategies": 4, "paired": 1}]
    odd = "SELECT 9e999 AS far, x'00ff' AS bytes"
    assert json.loads(lab("sql", odd, "-d", "lab.db", "--json").out) == [{"far": "Infinity", "bytes": "\\x00ff"}]
    made = lab("sql", "SELECT created_at FROM analysis", "-d", "lab.db", "--json").out
    lab("import", "phone.csv", "-d", "lab.db")
    assert lab("sql", "SELECT created_at FROM analysis", "-d", "lab.db", "--json").out == made


def test_an_export_answers_elsewhere_without_measuring(lab: Runner, tmp_path: Path) -> None:
    done = lab("export", "-d", "lab.db", "-o", "all.json.gz")
    assert (done.code, done.out) == (0, "")
    assert "exported 4 strategies, 12 rounds with 360 samples, 4 accuracies to all.json.gz" in done.err
    lab("import", "all.json.gz", "-d", "x.db")
    (row,) = json.loads(
        lab("sql", "SELECT COUNT(*) AS n, MIN(provenance) AS p FROM leaderboard", "-d", "x.db", "--json").out
    )
    assert row == {"n": 4, "p": "imported"}
    assert lab("recommend", "net", "-d", "x.db").code == 0
    (first,) = json.loads(lab("import", "all.json.gz", "-d", "x.db", "--json").out)
    assert first["known_before"]
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_export_goes_to_stdout_for_pipes(lab: Runner) -> None:
    document = json.loads(lab("export", "-d", "lab.db").out)
    assert (document["format"], document["version"], len(document["strategies"])) == ("tierwise-evidence", 1, 4)
    rows = lab("export", "-d", "lab.db", "--format", "csv").out.splitlines()
    assert rows[0] == "subject,operator,placement,input_id,repetition,latency_s,round,environment"


def test_export_as_rows(lab: Runner, tmp_path: Path) -> None:
    assert lab("export", "-d", "lab.db", "-o", "rows.csv").code == 0
    assert lab("export", "-d", "lab.db", "-o", "rows.csv.gz").code == 0
    assert lab("export", "-d", "lab.db", "-o", "top1.csv", "--format", "accuracy-csv").code == 0
    plain = (tmp_path / "rows.csv").read_text()
    assert gzip.decompress((tmp_path / "rows.csv.gz").read_bytes()).decode() == plain
    rows = list(csv.DictReader(io.StringIO(plain)))
    assert len(rows) == 360
    assert {row["environment"] for row in rows} == {"phone"}
    done = lab("import", "rows.csv.gz", "top1.csv", "-d", "again.db")
    assert "12 rounds with 360 samples" in done.out
    medians = "SELECT operator, placement, median_latency_s, accuracy_pct FROM leaderboard ORDER BY 1, 2"
    assert lab("sql", medians, "-d", "again.db").out == lab("sql", medians, "-d", "lab.db").out


def test_a_rejected_file_is_told_by_line_and_leaves_no_trace(lab: Runner, tmp_path: Path) -> None:
    lines = PHONE.splitlines()
    lines[6] = "net,identity,mobile,5.jpg,0,-0.2,1"
    (tmp_path / "bad.csv").write_text("\n".join(lines))
    done = lab("import", "bad.csv", "-d", "lab.db")
    assert (done.code, done.out) == (1, "")
    assert "bad.csv: line 7: latency_s is '-0.2'; expected seconds above 0" in " ".join(done.err.split())
    count = lab("sql", "SELECT COUNT(*) FROM imported_file", "-d", "lab.db", "--csv").out
    assert count == "COUNT(*)\n2\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["export", "-d", "none.db"], 1, "there is no database"),
        (["leaderboard", "-d", "lab.db", "--subject", "nett"], 1, "there is no subject 'nett'; known: net"),
        (["rank", "-d", "lab.db", "--subject", "nett"], 1, "there is no subject 'nett'; known: net"),
        (["verify", "-d", "lab.db", "--subject", "nett"], 1, "there is no subject 'nett'; known: net"),
        (["export", "-d", "lab.db", "--subject", "nett"], 1, "there is no subject 'nett'; known: net"),
        (["export", "-d", "lab.db", "-o", "no/where.json"], 1, "cannot be written: No such file"),
        (["export", "-d", "lab.db", "-o", "."], 1, "cannot be written"),
        (["export", "--format", "xml"], 2, "'xml' is not one of"),
        (["import"], 2, "Missing argument"),
        (["import", "empty", "-d", "new.db"], 1, "holds no file of evidence"),
        (["import", "phone.csv", "-d", "new.db", "--environment", "a b"], 1, "is no name"),
        (["sql", "SELECT 1", "-d", "none.db"], 1, "there is no database"),
        (["sql", "DROP TABLE sample", "-d", "lab.db"], 1, "only reading is allowed"),
        (["sql", "SELECT 1 UNION SELECT 2", "-d", "lab.db", "--max-rows", "1", "--json"], 1, "more than 1 row;"),
        (["sql", "SELECT 1", "-d", "lab.db", "--max-size", "much"], 2, "--max-size"),
        (["sql", "SELECT 1", "-d", "lab.db", "--json", "--csv"], 2, "choose one of --json and --csv"),
        (
            ["compare", "lab.db", "none.db"],
            1,
            "none.db: there is no evidence; name a database that `runner fill-catalog`",
        ),
        (["compare", "lab.db"], 2, "Missing argument"),
        (["compare", "lab.db", "lab.db", "--subject", "x"], 1, "neither database declares x"),
    ],
)
def test_what_cannot_be_done_is_one_error(lab: Runner, arguments: list[str], code: int, message: str) -> None:
    done = lab(*arguments)
    assert done.code == code
    assert message in " ".join(done.err.replace("│", " ").split())
    assert done.out == ""


def test_sql_prints_a_table_json_or_csv(lab: Runner) -> None:
    statement = "SELECT operator, placement, 1.5 AS x, NULL AS none, '[b]' AS markup FROM leaderboard LIMIT 1"
    assert "[b]" in lab("sql", statement, "-d", "lab.db").out
    (row,) = json.loads(lab("sql", statement, "-d", "lab.db", "--json").out)
    assert row == {"operator": "quantized", "placement": "edge", "x": 1.5, "none": None, "markup": "[b]"}
    assert lab("sql", statement, "-d", "lab.db", "--csv").out.splitlines()[1] == "quantized,edge,1.5,,[b]"
    long = lab("sql", "SELECT a.id FROM sample a, sample b", "-d", "lab.db")
    assert "1000 of 129600 rows are shown" in long.err


def test_compare_tells_what_changed_and_what_did_not(lab: Runner, tmp_path: Path) -> None:
    slower = PHONE.replace("net,quantized,edge,0.jpg,0,0.1", "net,quantized,edge,0.jpg,0,0.9")
    (tmp_path / "slower.csv").write_text(slower.replace("quantized,edge", "quantized,cloud"))
    lab("import", "slower.csv", "-d", "b.db", "--environment", "phone")
    done = lab("compare", "lab.db", "b.db")
    assert "net · the same environment" in done.out
    assert "3 same, 1 only in A, 1 only in B; accuracy differs in 0. p90 against A" in done.out
    (pairing,) = json.loads(lab("compare", "lab.db", "b.db", "--json").out)
    assert {strategy["change"] for strategy in pairing["strategies"]} == {"same", "only in A", "only in B"}
    assert pairing["strategies"][0]["latency"][1]["ratio"] == 1.0


@pytest.mark.parametrize("content", ["net,quantized\n", "", None])
def test_compare_of_what_is_no_database_names_its_own_arguments(
    lab: Runner, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "other").write_text(content)
    done = lab("compare", "lab.db", "other")
    assert done.code == 1 and "runner compare A B" in done.err and "--database" not in done.err


@pytest.mark.parametrize("command", ["export", "import", "sql", "compare"])
def test_help_has_an_example(runner: Runner, command: str) -> None:
    done = runner(command, "--help")
    assert done.code == 0
    assert f"Example: runner {command} " in done.out
