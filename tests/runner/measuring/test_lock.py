"""One fill per database."""

import os
from pathlib import Path

import pytest

from runner.errors import RunnerError
from runner.measuring.lock import FillLock


def test_a_second_fill_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    with FillLock(tmp_path, path), pytest.raises(RunnerError, match=str(os.getpid())), FillLock(tmp_path, path):
        pass


@pytest.mark.parametrize("spelling", ["{}/a.db", "{}/../{}/a.db", "sqlite:///{}/a.db", "{}/link.db"])
def test_it_is_the_same_database_from_any_directory_and_in_any_spelling(tmp_path: Path, spelling: str) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    other = spelling.replace("/../{}", f"/../{tmp_path.name}").format(tmp_path)
    with (
        FillLock(tmp_path / "one", str(tmp_path / "a.db")),
        pytest.raises(RunnerError, match="one at a time"),
        FillLock(tmp_path / "two", other),
    ):
        pass


def test_a_server_is_locked_in_the_working_directory(tmp_path: Path) -> None:
    url = "postgresql://host/tierwise"
    with FillLock(tmp_path, url), pytest.raises(RunnerError, match="is filling postgresql"), FillLock(tmp_path, url):
        pass


def test_another_database_is_free_and_so_is_the_same_one_afterwards(tmp_path: Path) -> None:
    first, second = str(tmp_path / "a.db"), str(tmp_path / "b.db")
    with FillLock(tmp_path, first), FillLock(tmp_path, second):
        assert [is_free(tmp_path, database) for database in (first, second)] == [False, False]
    assert [is_free(tmp_path, database) for database in (first, second)] == [True, True]


def is_free(workdir: Path, database: str) -> bool:
    """Return whether a fill of the database could start now."""
    try:
        with FillLock(workdir, database):
            return True
    except RunnerError:
        return False
