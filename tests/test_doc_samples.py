"""README and docs show what their commands print; `make samples` renews them."""

import gzip
import json
from pathlib import Path

import pytest

from tests.doc_samples import PICTURE, README, SQL, Databases, leaderboard_picture, make_databases, readme, sql_page
from tests.doc_samples import without_age as ageless
from tests.runner.commands.conftest import _exported, piece


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Databases:
    """Import the one subject of the embedded evidence that the samples are of."""
    directory = tmp_path_factory.mktemp("samples")
    rows = [row for row in _exported()["strategies"] if row["subject"] == "fashion-resnet"]
    names = [f"{row['operator']}@{row['placement']}" for row in rows]
    # Under the name that is printed, because tables say where evidence comes from.
    evidence = directory / "embedded-evidence.json.gz"
    evidence.write_bytes(gzip.compress(json.dumps(piece("fashion-resnet", names)).encode()))
    return make_databases(directory, evidence=evidence)


def test_the_readme_shows_the_answer_that_is_printed(databases: Databases) -> None:
    text = README.read_text(encoding="utf-8")
    assert ageless(readme(text, databases)) == ageless(text)


def test_a_stale_sample_is_renewed(databases: Databases) -> None:
    text = README.read_text(encoding="utf-8")
    stale = text.replace("all budgets hold", "all budgets held")
    assert stale != text and ageless(readme(stale, databases)) == ageless(text)


def test_the_picture_shows_the_leaderboard_that_is_printed(databases: Databases) -> None:
    assert leaderboard_picture("", databases) == PICTURE.read_text(encoding="utf-8")


def test_the_page_of_queries_is_renewed_as_it_is(databases: Databases) -> None:
    text = SQL.read_text(encoding="utf-8")
    assert sql_page(text, databases) == text


def test_every_frame_is_closed_and_fits_the_page() -> None:
    for page in (README, *sorted(Path(README.parent / "docs").glob("*.md"))):
        frame: int | None = None
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith(("╭", "┏")):
                frame = len(line)
                assert line.endswith(("╮", "┓")) and frame <= 100, (page.name, line)
            elif frame is not None and line.startswith(("│", "┃", "┡", "╰", "└")):
                assert len(line) == frame and line.endswith(("│", "┃", "┩", "╯", "┘")), (page.name, line)
            else:
                frame = None
