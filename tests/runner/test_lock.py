"""One fill per database."""

import os
from pathlib import Path

import pytest

from runner.errors import RunnerError
from runner.lock import FillLock


def test_a_second_fill_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    with FillLock(tmp_path, "a.db"), pytest.raises(RunnerError, match=str(os.getpid())), FillLock(tmp_path, "a.db"):
        pass


def test_another_database_is_free_and_so_is_the_same_one_afterwards(tmp_path: Path) -> None:
    with FillLock(tmp_path, "a.db"), FillLock(tmp_path, "b.db"):
        pass
    with FillLock(tmp_path, "a.db") as lock:
        assert lock is not None
