"""Files of a user are regular files; files that nobody vouches for are small and this user's own."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.foreign import open_regular, own_directory, read_own, read_regular


def bind_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


ODD: dict[str, Callable[[Path], None]] = {
    "a named pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a socket": bind_socket,
}


@pytest.mark.parametrize("kind", ODD)
def test_what_may_never_end_is_not_opened(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    ODD[kind](Path("odd"))
    with pytest.raises(OSError, match=f"{kind}, and only regular files are read") as caught:
        open_regular(Path("odd"))
    assert caught.value.errno == errno.EINVAL and caught.value.filename == "odd"


def test_a_folder_and_a_missing_file_are_what_the_system_calls_them(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")


def test_a_regular_file_is_read_also_by_a_link_and_in_part(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link") == b"content"
    assert read_regular(tmp_path / "file", at_most=3) == b"con"


def test_only_small_files_of_this_user_are_believed(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.write_bytes(b"1234")
    assert read_own(path, at_most=4) == b"1234"
    assert read_own(path, at_most=3) is None
    path.chmod(0o666)
    assert read_own(path, at_most=4) is None
    (tmp_path / "link").symlink_to(path)
    assert read_own(tmp_path / "link", at_most=4) is None
    os.mkfifo(tmp_path / "pipe")
    assert [read_own(tmp_path / name, at_most=4) for name in ("pipe", "none", ".")] == [None] * 3


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_nothing_of_another_user_is_believed(tmp_path: Path) -> None:
    (tmp_path / "record").write_bytes(b"1")
    os.chown(tmp_path / "record", 12345, -1)
    assert read_own(tmp_path / "record", at_most=4) is None
    (tmp_path / "folder").mkdir(mode=0o700)
    os.chown(tmp_path / "folder", 12345, -1)
    with pytest.raises(PermissionError, match="not a directory of this user"):
        own_directory(tmp_path / "folder")


def test_a_directory_of_ones_own_is_closed_to_others(tmp_path: Path) -> None:
    made = own_directory(tmp_path / "own")
    assert made.stat().st_mode & 0o777 == 0o700 and own_directory(made) == made
    made.chmod(0o750)
    with pytest.raises(PermissionError, match="other users"):
        own_directory(made)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="not a directory of this user"):
        own_directory(tmp_path / "link")
