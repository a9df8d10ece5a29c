"""The order of rows and of lists leaves no trace: every table, report, answer and export is the same, byte for byte."""

import contextlib
import io
import json
import random
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from catalog.evidence.database import open_database
from catalog.exchange import collect, document_bytes, import_files, rows_csv
from runner.cli import app, run
from runner.reports.html import gather_report, render_report
from tests.catalog.exchange import study_rows
from tests.catalog.exchange.study_rows import HEADER
from tests.conftest import PostgresServer

NOW = datetime(2026, 11, 29, tzinfo=UTC)
ACCURACY_HEADER = "subject,operator,placement,metric,value_pct"
# The study's subjects without one that has everything, which another has too.
SUBJECTS = ("a-net", "b-net", "d-net")
LACKING = ("a-net/partition@mobile-edge", "d-net/quantized@edge", "d-net/identity@cloud")
# What names the file itself: its bytes do differ.
SHA256 = re.compile(r"(?<=sha256\": \")[0-9a-f]{64}|(?<=sha256\":\")[0-9a-f]{64}|(?<=SHA-256 )[0-9a-f]{16}")
PAIRS = "sql SELECT * FROM pairwise ORDER BY subject, family, left_strategy, right_strategy --csv"
COMMANDS = (
    # Each analyses its subjects again: all of them with all digits, and one as text.
    ("rank", "--json"),
    ("rank", "--family", "all", "--csv"),
    ("rank", "--subject", "a-net"),
    ("rank", "--family", "all", "--subject", "d-net"),
    ("leaderboard",),
    ("leaderboard", "--json"),
    *(("recommend", subject, "--json") for subject in ("b-net", "d-net")),
    ("recommend", "a-net"),
    ("status",),
    ("sql", "SELECT * FROM pairwise ORDER BY subject, family, left_strategy, right_strategy", "--csv"),
)


def latency_rows(**options: Any) -> list[str]:
    return [row for row in study_rows.latency_rows(**options) if row.startswith(SUBJECTS)]


def accuracy_rows() -> list[str]:
    return [row for row in study_rows.accuracy_rows() if row.startswith(SUBJECTS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("order")
    with pytest.MonkeyPatch.context() as patched, contextlib.chdir(folder):
        patched.setenv("COLUMNS", "140")
        yield folder


def outputs(folder: Path, files: list[Path], template: Path, *, url: str | None = None) -> dict[str, str]:
    """Everything that is shown of the files, by what shows it; on a server where a URL is given."""
    database = url or shutil.copy(template, folder / "evidence.db")
    with open_database(database) as opened:
        import_files(opened, files, now=NOW)
        with opened.session() as session:
            document = collect(session)
        page = render_report(gather_report(opened), made_at=NOW)
    export = document_bytes(document).decode()
    for file in document.files:  # their keys are made of the SHA-256 of the bytes
        export = export.replace(file.key, f"key-of-{file.name}")
    shown = {"page": page, "export": export, "csv": rows_csv(document, "latencies")}
    shown["accuracy-csv"] = rows_csv(document, "accuracies")
    for arguments in COMMANDS:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert run(lambda arguments=arguments: app([*arguments, "-d", str(database)])) == 0  # type: ignore[misc]
        shown[" ".join(arguments)] = printed.getvalue()
    return {name: SHA256.sub("SHA", content) for name, content in shown.items()}


def written(folder: Path, latencies: list[str], accuracies: list[str]) -> list[Path]:
    files = [folder / "phone.csv", folder / "phone-accuracy.csv"]
    files[0].write_text("\n".join([HEADER, *latencies]) + "\n")
    files[1].write_text("\n".join([ACCURACY_HEADER, *accuracies]) + "\n")
    return files


def by_name(rows: list[str], _: random.Random) -> list[str]:
    return sorted(rows)


def shuffled(rows: list[str], rng: random.Random) -> list[str]:
    return rng.sample(rows, len(rows))


@pytest.fixture(scope="module")
def expected(folder: Path, sqlite_template: Path) -> dict[str, str]:
    files = written(folder, latency_rows(lacking=LACKING), accuracy_rows())
    return outputs(folder, files, sqlite_template)


def test_the_order_of_rows_leaves_no_trace(expected: dict[str, str], folder: Path, sqlite_template: Path) -> None:
    rows, accuracies = latency_rows(lacking=LACKING), accuracy_rows()
    shown = outputs(folder, written(folder, rows[::-1], accuracies[::-1]), sqlite_template)
    assert [name for name in expected if shown[name] != expected[name]] == []


@pytest.mark.postgres
def test_a_server_shows_the_same_to_the_last_digit(
    expected: dict[str, str], folder: Path, sqlite_template: Path, postgres: PostgresServer
) -> None:
    """Also of shuffled rows, and on one that sorts as a language does: `_` and capitals count for less than letters."""
    name, rng = postgres.create_sorted("en-US"), random.Random(3)
    try:
        files = written(folder, shuffled(latency_rows(lacking=LACKING), rng), shuffled(accuracy_rows(), rng))
        shown = outputs(folder, files, sqlite_template, url=postgres.url_of(name))
    finally:
        postgres.drop(name)
    # A column of truth values: SQLite has no other kind of them than numbers.
    shown[PAIRS] = shown[PAIRS].replace(",True,", ",1,").replace(",False,", ",0,")
    assert [name for name in expected if shown[name] != expected[name]] == []


def test_the_order_of_lists_in_a_document_leaves_no_trace(
    expected: dict[str, str], folder: Path, sqlite_template: Path
) -> None:
    document: dict[str, Any] = json.loads(expected["export"].replace('"SHA"', f'"{"0" * 64}"'))
    ways = []
    for seed in (None, 4):
        rng = random.Random(seed)
        lists = {
            name: value if seed is None else rng.sample(value, len(value))
            for name, value in document.items()
            if isinstance(value, list)
        }
        # Subjects are shown in the order of their declaration.
        lists["strategies"].sort(key=lambda entry: entry["subject"])
        file = folder / "document.json"
        file.write_text(json.dumps(document | lists))
        ways.append(outputs(folder, [file], sqlite_template))
    declared, mixed = ways
    assert [name for name in declared if mixed[name] != declared[name]] == []


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_any_permutation_stores_the_same(tmp_path: Path, sqlite_template: Path, rng: random.Random) -> None:
    stored = []
    for arrange in (by_name, shuffled):
        rows = arrange(latency_rows(rounds=1, inputs=2), rng)
        shutil.copy(sqlite_template, tmp_path / "any.db")
        with open_database(tmp_path / "any.db") as opened:
            import_files(opened, written(tmp_path, rows, arrange(accuracy_rows(), rng)), now=NOW)
            with opened.session() as session:
                tables = ("environment", "strategy", "measurement", "sample", "accuracy")
                stored.append([session.execute(text(f"SELECT * FROM {table}")).all() for table in tables])
        (tmp_path / "any.db").unlink()
    assert stored[0] == stored[1]


def test_a_subject_that_is_not_in_an_average_is_named(expected: dict[str, str]) -> None:
    page = re.sub(r"\s+", " ", expected["page"])
    assert "without d-net (quantized@edge not measured)" in page
    assert "without d-net (identity@cloud not measured)" in page
    assert "without a-net (partition@mobile-edge not declared)" in page
