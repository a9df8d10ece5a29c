"""Which tier image is needed, and how it is built.

Two layers: `tierwise-base:HASH` holds the interpreter, the packages and `tc`; `tierwise-tier:HASH` adds the tier
server's sources. Tags are hashes of the content, so a changed source makes a new thin image in a second or two and
an unchanged one costs a look-up.

The base is a `Dockerfile` build from a Python image if that image is present or a registry has it, otherwise a
copy of the running interpreter (`runner.image.tree`), which needs no registry and no network.
"""

import hashlib
import io
import logging
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Protocol

from runner.errors import EngineUnavailableError, LaunchError
from runner.image.tree import TREE_SETTINGS, tree_hash, write_tree

logger = logging.getLogger(__name__)

DEFAULT_BASE = "python:3.11-slim"
LABELS = {"tierwise": "1"}
_HERE = Path(__file__).parent
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


class ImageEngine(Protocol):
    """The methods of a container engine that building an image needs."""

    @property
    def info(self) -> Mapping[str, Any]: ...

    def has_image(self, tag: str) -> bool: ...

    def can_pull(self, tag: str) -> str | None: ...

    def import_image(self, tree: IO[bytes], tag: str, changes: Sequence[str]) -> None: ...

    def build_image(
        self, context: bytes, tag: str, arguments: Mapping[str, str], labels: Mapping[str, str]
    ) -> None: ...


@dataclass(frozen=True)
class TierImage:
    """A tier image the engine has, and what its base is."""

    tag: str
    base: str


@dataclass(frozen=True)
class _BaseImage:
    tag: str
    origin: str


class ImageBuilder:
    """A builder of the tier image on one engine; `base_image` forces a Dockerfile build from that image."""

    def __init__(self, engine: ImageEngine, *, base_image: str | None = None) -> None:
        self._engine = engine
        self._base_image = base_image

    def ensure(self) -> TierImage:
        """Return the image for the present tier server; raise LaunchError if it cannot be built here."""
        base = self._base()
        sources = _tierserver_sources()
        recipe = (_HERE / "Dockerfile.tier").read_bytes()
        # Names are hashed beside contents: a module that only moved makes another image.
        tag = f"tierwise-tier:{_digest(base.tag.encode(), recipe, *sources.values(), *map(str.encode, sources))}"
        if not self._engine.has_image(tag):
            logger.info("building tier image %s", tag)
            context = _context({"Dockerfile": recipe, **sources})
            self._engine.build_image(context, tag, {"BASE": base.tag}, LABELS)
        return TierImage(tag, base.origin)

    def refusal(self) -> str | None:
        """Return why this engine cannot get a tier image, found without building; None if it can."""
        # The registry is asked last, and only if nothing local will do.
        if self._base_image is not None or self._present_base() is not None or self._tree_refusal() is None:
            return None
        unreachable = self._dockerfile_refusal()
        return None if unreachable is None else _neither(unreachable, self._tree_refusal())

    def _base(self) -> _BaseImage:
        if self._base_image is not None:
            return self._built(self._base_image)
        return self._present_base() or self._first_base()

    def _present_base(self) -> _BaseImage | None:
        """Return the one of the two bases that the engine has already."""
        # What is there already is used first, even if a registry answers: the environment stays the same.
        bases = [_dockerfile_base(DEFAULT_BASE)]
        if self._tree_refusal() is None:
            bases.append(_tree_base())
        return next((base for base in bases if self._engine.has_image(base.tag)), None)

    def _first_base(self) -> _BaseImage:
        """Build one of the two bases when the engine has neither."""
        tree_refusal = self._tree_refusal()
        unreachable = self._dockerfile_refusal()
        if unreachable is None:
            try:
                return self._built(DEFAULT_BASE)
            # Without an engine the other base would fail as well.
            except EngineUnavailableError:
                raise
            except LaunchError as error:
                if tree_refusal is not None:
                    raise
                logger.warning("%s; copying this Python installation instead", error)
        elif tree_refusal is not None:
            raise LaunchError(_neither(unreachable, tree_refusal))
        return self._imported()

    def _dockerfile_refusal(self) -> str | None:
        """Return why the Dockerfile's base image is not available; None if it is."""
        return None if self._engine.has_image(DEFAULT_BASE) else self._engine.can_pull(DEFAULT_BASE)

    def _tree_refusal(self) -> str | None:
        """Return why this machine's own files would not run on the engine's host; None if they do."""
        info = self._engine.info
        # A copied interpreter is machine code: it runs only on its own operating system and architecture.
        there = (str(info.get("OSType")).lower(), architecture(str(info.get("Architecture"))))
        here = (platform.system().lower(), architecture(platform.machine()))
        if there != here:
            return f"the engine runs {'/'.join(there)} and this machine is {'/'.join(here)}"
        try:
            tree_hash()
        except LaunchError as error:
            return str(error)
        return None

    def _built(self, image: str) -> _BaseImage:
        base = _dockerfile_base(image)
        if not self._engine.has_image(base.tag):
            logger.info("building %s from %s", base.tag, image)
            names = ("Dockerfile", "tier-requirements.txt")
            context = _context({name: (_HERE / name).read_bytes() for name in names})
            self._engine.build_image(context, base.tag, {"BASE": image}, LABELS)
        return base

    def _imported(self) -> _BaseImage:
        base = _tree_base()
        logger.info("building %s from this Python installation", base.tag)
        with write_tree() as tree:
            self._engine.import_image(tree, base.tag, [*TREE_SETTINGS, "LABEL tierwise=1"])
        return base


def _neither(unreachable: str, tree_refusal: str | None) -> str:
    return (
        f"cannot build the tier image: {unreachable}; and copying this Python installation into an image "
        f"is not possible either: {tree_refusal}. Load {DEFAULT_BASE} into the engine, or name a Python "
        "image that it has with TIERWISE_BASE_IMAGE."
    )


def _dockerfile_base(image: str) -> _BaseImage:
    recipe = (_HERE / "Dockerfile").read_bytes()
    packages = (_HERE / "tier-requirements.txt").read_bytes()
    return _BaseImage(f"tierwise-base:{_digest(recipe, packages, image.encode())}", image)


def _tree_base() -> _BaseImage:
    return _BaseImage(f"tierwise-base:tree-{tree_hash()}", f"a copy of Python {platform.python_version()}")


def _tierserver_sources() -> dict[str, bytes]:
    """Map the path in the build context to the content, for every module of the tier server."""
    spec = find_spec("tierserver")
    if spec is None or spec.origin is None:
        raise LaunchError("package `tierserver` is not installed beside `runner`; try: pip install -e .")
    package = Path(spec.origin).parent
    return {
        f"tierserver/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def _context(files: Mapping[str, bytes]) -> bytes:
    """Return a build context: a tar without times or owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def architecture(name: str) -> str:
    """Return the kernel's name of an architecture, which Docker names in another way."""
    return _ARCHITECTURES.get(name.lower(), name.lower())


def _digest(*contents: bytes) -> str:
    total = hashlib.sha256()
    for content in contents:
        # A hash of hashes, so that the same bytes divided differently have another digest.
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()[:16]
