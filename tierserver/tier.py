"""What one tier serves at the moment: its parts and its routes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tierserver.engine import file_sha256
from tierserver.errors import CommandError, EngineError, NotFound
from tierserver.messages import Digest, DigestResult, Load, LoadResult
from tierserver.pipeline import Part

GRAPH_SUFFIX = ".graph"


@dataclass(frozen=True)
class Serving:
    """Swapped whole, so that a request sees one state."""

    parts: Mapping[str, Part] = field(default_factory=dict)
    routes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """A part, or the bare graph of one."""

    part: Part
    bare: bool


def digest(command: Digest) -> DigestResult:
    """Hash the files that can be read."""
    digests: dict[str, str] = {}
    for path in command.paths:
        with suppress(EngineError):
            digests[path] = file_sha256(Path(path))
    return DigestResult(digests)


class Tier:
    """One tier by name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.serving = Serving()

    def load(self, command: Load) -> LoadResult:
        """Replace everything served; after a failure nothing is."""
        self.unload()
        parts: dict[str, Part] = {}
        digests: dict[str, str] = {}
        for spec in command.parts:
            if spec.name in parts or spec.name.endswith(GRAPH_SUFFIX) or not spec.name or "/" in spec.name:
                raise CommandError(
                    f"part name {spec.name!r}: must be unique, without '/', not ending in {GRAPH_SUFFIX}"
                )
            digests[spec.name] = file_sha256(Path(spec.path))
            parts[spec.name] = Part(spec, self.name)
        self.serving = Serving(parts, dict(command.routes))
        return LoadResult(
            {name: part.session.cold_start_s for name, part in parts.items()},
            digests,
            {name: part.session.provider_nodes for name, part in parts.items()},
        )

    def unload(self) -> None:
        for part in self.serving.parts.values():
            part.close()
        self.serving = Serving()

    def find(self, model: str) -> Target:
        name = model.removesuffix(GRAPH_SUFFIX)
        part = self.serving.parts.get(name)
        if part is None:
            raise NotFound(f"unknown model {model[:80]!r}; served: {', '.join(self.model_names()) or 'none'}")
        return Target(part, bare=name != model)

    def model_names(self) -> list[str]:
        return [name + suffix for name in self.serving.parts for suffix in ("", GRAPH_SUFFIX)]
