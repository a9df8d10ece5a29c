"""Small disks: real file systems of a few megabytes, which can be filled and set read-only."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Disk:
    """A mounted file system."""

    path: Path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def read_only(self) -> None:
        """Make a folder in which not even root can write."""
        _mount("-o", "remount,ro", str(self.path))

    def fill(self, leave_bytes: int) -> Path:
        """Take all space but this with one file, which is returned: without it the space is there again."""
        ballast = self.path / "ballast"
        ballast.write_bytes(b"\0" * max(0, _free_bytes(self.path) - leave_bytes))
        return ballast


@contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[Disk]:
    """Mount one while the block runs; skips the test where this user may not mount."""
    path.mkdir(exist_ok=True)
    try:
        _mount("-t", "tmpfs", "-o", f"size={size_bytes}", "tierwise-test", str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)


def _free_bytes(path: Path) -> int:
    usage = os.statvfs(path)
    return usage.f_bavail * usage.f_frsize
