"""Which files a command may name: any path where the launcher mounts them, or only those that a launch consists of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from tierserver.errors import CommandError


class Files(Protocol):
    """What turns the names in commands into paths."""

    def path(self, name: str) -> Path:
        """Return the path of a named file; raise CommandError for one that may not be named."""
        ...


class MountedFiles:
    """Files of a container or of this machine, named by their paths."""

    def path(self, name: str) -> Path:
        return Path(name)


class LaunchFiles:
    """Exactly the files of one launch: their names are keys of a table, and no name is ever taken for a path."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths

    @classmethod
    def read(cls, manifest: Path) -> LaunchFiles:
        """Read the table that the server wrote for this launch."""
        return cls({name: Path(path) for name, path in json.loads(manifest.read_text()).items()})

    def path(self, name: str) -> Path:
        try:
            return self._paths[name]
        except KeyError:
            raise CommandError(f"this launch has no file {name[:80]!r}; it has {len(self._paths)} others") from None
