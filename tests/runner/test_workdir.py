"""Files that are there whole or not at all, whichever process is killed and however many make the same."""

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from runner.workdir import OWNER_FILE, TUNNEL_PREFIX, Owner, scratch, settle, sweep, temporary

KILLED = """
import os, signal, sys
from pathlib import Path
from runner.workdir import scratch
with scratch(Path(sys.argv[1])) as directory:
    (directory / "half.onnx").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_runner_was_making_is_swept_and_what_a_live_one_makes_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other programs leave things in the system's own directory.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "artifacts")], check=False)
    (left,) = (tmp_path / "artifacts").iterdir()
    assert (left / "half.onnx").read_bytes() == b"half"
    with scratch(tmp_path / "inputs") as living:
        assert sweep(tmp_path) == 1
        assert living.is_dir() and not left.exists()
    assert sweep(tmp_path) == 0
    assert not list((tmp_path / "inputs").iterdir())


KILLED_IN_A_TRIAL = """
import os, signal
from runner.workdir import temporary
with temporary() as directory:
    (directory / "model.onnx").write_bytes(b"model")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_killed_trials_left_among_temporary_files_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", KILLED_IN_A_TRIAL], env=environment, check=False)
    (left,) = tmp_path.glob("tierwise-trial-*")
    assert left.stat().st_mode & 0o077 == 0
    (tmp_path / "tierwise-trial-of another program").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"{left.name[:-8]}aaaaaaaa").symlink_to(tmp_path / "elsewhere")
    with temporary() as living:
        assert sweep(tmp_path / "workdir") == 1
        assert living.is_dir() and not left.exists()
    assert (tmp_path / "elsewhere").is_dir() and (tmp_path / "tierwise-trial-of another program").is_dir()


def test_the_tunnel_of_a_dead_runner_is_swept_where_its_owner_is_known_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    here = Owner.current()
    dead, elsewhere = replace(here, start="another"), replace(here, host="far.1", start="1")
    owners = {"dead": dead, "living": here, "elsewhere": elsewhere}
    for name in (*owners, "open", "unknown"):
        (tmp_path / f"{TUNNEL_PREFIX}{name}").mkdir(mode=0o700)
    for name, owner in (*owners.items(), ("open", dead)):
        file = tmp_path / f"{TUNNEL_PREFIX}{name}" / OWNER_FILE
        file.touch(mode=0o600)
        file.write_text(str(owner))
    # What others may have written is not believed, and a link is not followed.
    (tmp_path / f"{TUNNEL_PREFIX}open" / OWNER_FILE).chmod(0o666)
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / OWNER_FILE).touch(mode=0o600)
    (tmp_path / "target" / OWNER_FILE).write_text(str(dead))
    (tmp_path / f"{TUNNEL_PREFIX}link").symlink_to(tmp_path / "target")
    assert sweep(tmp_path / "workdir") == 1
    left = {path.name.removeprefix(TUNNEL_PREFIX) for path in tmp_path.iterdir()}
    assert left == {"living", "elsewhere", "open", "unknown", "link", "target"}


def test_the_first_directory_in_a_place_stays(tmp_path: Path) -> None:
    for content in ("first", "second"):
        with scratch(tmp_path) as directory:
            (directory / "made").mkdir()
            (directory / "made" / "file").write_text(content)
            settle(directory / "made", tmp_path / "deep" / "place")
    assert (tmp_path / "deep" / "place" / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_what_cannot_be_moved_is_told(tmp_path: Path) -> None:
    with scratch(tmp_path) as directory, pytest.raises(FileNotFoundError):
        settle(directory / "never made", tmp_path / "place")
