"""Which tier image is needed, and how it is built.

Two layers: `tierwise-base:HASH` holds the interpreter, the packages and `tc`; `tierwise-tier:HASH` adds the tier
server's sources. Tags are hashes of the content, so a changed source makes a new thin image in a second or two and
an unchanged one costs a look-up.

The base is a `Dockerfile` build from a Python image if that image is present or a registry has it, otherwise a root
directory made of this machine's own files, which needs no registry and no network. That tree holds copies of the
running interpreter and its standard library, of the distributions that a tier needs as they are installed here, of
`tc`, and of every shared library that those link to. Nothing is downloaded or installed.
"""

import hashlib
import io
import logging
import os
import platform
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import MAGIC_NUMBER, cache_from_source, find_spec
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from runner.errors import EngineUnavailableError, LaunchError

# ONNX Runtime imports numpy alone; its declared flatbuffers, packaging and protobuf serve its tools.
_DISTRIBUTIONS = ("numpy", "onnxruntime", "pillow", "uvicorn", "httptools", "uvloop", "click", "h11")
_ALTERNATIVES = {"onnxruntime": "onnxruntime-gpu"}
_UNWANTED_STDLIB = {"site-packages", "test", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data"}
_UNWANTED_PACKAGES = (
    "onnxruntime/quantization/",
    "onnxruntime/transformers/",
    "onnxruntime/tools/",
    "onnxruntime/datasets/",
)
_UNWANTED_SUFFIXES = {".a", ".c", ".h", ".hpp", ".o", ".pxd", ".pyi", ".pyx", ".exe"}
# glibc loads these by name to resolve hosts, so that no file links to them.
_RESOLVER = ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2")
# Raised when the same packages are laid out in another way.
_RECIPE_VERSION = 1

_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_HOME = PurePosixPath("/opt/python")
_STDLIB = _HOME / "lib" / _VERSION
_SITE = _STDLIB / "site-packages"
_LIBRARIES = PurePosixPath("/opt/lib")
_TC = PurePosixPath("/usr/sbin/tc")

TREE_SETTINGS = (
    f"ENV PATH={_HOME}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    f"ENV PYTHONHOME={_HOME}",
    f"ENV LD_LIBRARY_PATH={_LIBRARIES}",
)


def tree_hash() -> str:
    """Hash what determines the tree: versions of Python, the distributions and `tc`, and this recipe."""
    # MAGIC_NUMBER, because compiled modules of another one would be ignored and compiled at every start.
    facts = [str(_RECIPE_VERSION), sys.version, platform.machine(), MAGIC_NUMBER.hex(), *TREE_SETTINGS]
    facts += [f"{distribution.name}=={distribution.version}" for distribution in _distributions()]
    facts.append(subprocess.run([_find_tc(), "-V"], capture_output=True, text=True, check=False).stdout)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


@contextmanager
def write_tree() -> Iterator[IO[bytes]]:
    """Yield the tree as an open tar file."""
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            _Tree(tar).write()
        file.seek(0)
        yield file


class _Tree:
    """The tar under construction: files go where a tier expects them, and linked ones are remembered."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._directories: set[PurePosixPath] = {PurePosixPath("/")}
        self._linked: list[Path] = []

    def write(self) -> None:
        self._directory(PurePosixPath("/tmp"), mode=0o1777)
        for name in ("/proc", "/sys", "/dev", "/run"):
            self._directory(PurePosixPath(name))
        self._text("/etc/passwd", "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n")
        self._text("/etc/group", "root:x:0:\nnogroup:x:65534:\n")
        # Older glibc asks DNS first where this file is absent, and the engine writes the tiers' names into /etc/hosts.
        self._text("/etc/nsswitch.conf", "hosts: files dns\n")
        interpreter = Path(sys.executable).resolve()
        self._file(interpreter, _HOME / "bin" / _VERSION)
        for alias in ("python", "python3"):
            self._link(_HOME / "bin" / alias, _VERSION)
        self._file(Path(_find_tc()).resolve(), _TC)
        self._linked += [interpreter, Path(_find_tc())]
        for path, relative in (*_stdlib_files(), *_distribution_files()):
            self._module(path, relative)
        self._shared_libraries()

    def _module(self, path: Path, target: PurePosixPath) -> None:
        self._file(path, target)
        if path.suffix == ".py":
            self._bytecode(path, target)
        elif ".so" in path.suffixes:
            self._linked.append(path)

    def _bytecode(self, path: Path, target: PurePosixPath) -> None:
        """Add the compiled module: a tier cannot write it and would compile at every start."""
        cached = Path(cache_from_source(str(path)))
        inside = target.parent / "__pycache__" / cached.name
        if cached.is_file():
            self._file(cached, inside)
            return
        with tempfile.NamedTemporaryFile(suffix=".pyc") as compiled:
            try:
                mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
                py_compile.compile(
                    str(path), cfile=compiled.name, dfile=str(target), doraise=True, invalidation_mode=mode
                )
            except py_compile.PyCompileError:
                return  # templates that only look like modules
            self._file(Path(compiled.name), inside, mode=0o644)

    def _shared_libraries(self) -> None:
        """Add every library that the linked files need, in one directory, except those inside distributions."""
        needed = _ldd(self._linked)
        copied = {path.resolve() for path in self._linked}
        for name, path in sorted(needed.items()):
            if name.startswith("/"):
                self._file(path.resolve(), PurePosixPath(name))  # the loader: its path is fixed in every program
            elif path.resolve() not in copied:
                self._file(path.resolve(), _LIBRARIES / name)
        libc = next((path.parent for name, path in needed.items() if name.startswith("libc.so")), None)
        for name in _RESOLVER:
            if libc is not None and name not in needed and (libc / name).exists():
                self._file((libc / name).resolve(), _LIBRARIES / name)

    def _file(self, path: Path, target: PurePosixPath, *, mode: int | None = None) -> None:
        self._directory(target.parent)
        entry = self._tar.gettarinfo(str(path), arcname=str(target).lstrip("/"))
        # The installation may belong to a user of this machine, whose name says nothing inside the image.
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.type = tarfile.REGTYPE  # a second name of one file (hard link) is written as a file
        entry.size = path.stat().st_size
        entry.mode = mode if mode is not None else 0o755 if entry.mode & 0o100 else 0o644
        with path.open("rb") as content:
            self._tar.addfile(entry, content)

    def _text(self, target: str, content: str) -> None:
        self._directory(PurePosixPath(target).parent)
        entry = tarfile.TarInfo(target.lstrip("/"))
        entry.size, entry.mode = len(content), 0o644
        self._tar.addfile(entry, io.BytesIO(content.encode()))

    def _link(self, target: PurePosixPath, to: str) -> None:
        entry = tarfile.TarInfo(str(target).lstrip("/"))
        entry.type, entry.linkname = tarfile.SYMTYPE, to
        self._tar.addfile(entry)

    def _directory(self, target: PurePosixPath, *, mode: int = 0o755) -> None:
        if target in self._directories:
            return
        self._directory(target.parent)
        self._directories.add(target)
        entry = tarfile.TarInfo(str(target).lstrip("/"))
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        self._tar.addfile(entry)


def _stdlib_files() -> Iterable[tuple[Path, PurePosixPath]]:
    root = Path(sysconfig.get_path("stdlib"))
    for name, folders, files in os.walk(root):
        folder = Path(name)
        relative = folder.relative_to(root)
        # What is not wanted is not entered: site-packages alone may hold many times as many files as the rest.
        folders[:] = sorted(child for child in folders if _is_wanted_folder(relative / child))
        for path in map(folder.joinpath, sorted(files)):
            if not _is_unwanted(path) and path.is_file():
                yield path, _STDLIB / (relative / path.name).as_posix()


def _is_wanted_folder(relative: Path) -> bool:
    top = relative.parts[0]
    return not (top in _UNWANTED_STDLIB or top.startswith("config-") or relative.name in ("__pycache__", "tests"))


def _distributions() -> list[Distribution]:
    distributions = []
    for name in _DISTRIBUTIONS:
        try:
            distributions.append(distribution(name))
        except PackageNotFoundError as error:
            if name not in _ALTERNATIVES:
                raise LaunchError(f"distribution {name!r} is not installed here; try: pip install {name}") from error
            distributions.append(distribution(_ALTERNATIVES[name]))
    return distributions


def _distribution_files() -> Iterable[tuple[Path, PurePosixPath]]:
    for installed in _distributions():
        for file in installed.files or ():
            path = Path(str(installed.locate_file(file)))
            relative = file.as_posix()
            outside = ".." in file.parts or file.is_absolute()
            if outside or "tests" in file.parts or "__pycache__" in file.parts or _is_unwanted(path):
                continue
            if not relative.startswith(_UNWANTED_PACKAGES) and path.is_file():
                yield path, _SITE / relative


def _is_unwanted(path: Path) -> bool:
    return path.suffix in _UNWANTED_SUFFIXES


def _ldd(paths: Iterable[Path]) -> dict[str, Path]:
    """Map library names to files, for everything these files link to; the loader's name is its absolute path."""
    # All files in one call: ldd starts a shell and the loader each time.
    command = ["ldd", *map(str, paths)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    needed = {}
    for line in shown.splitlines():
        if match := re.match(r"\s+(\S+) => (/\S+) \(0x", line):
            needed[match[1]] = Path(match[2])
        elif match := re.match(r"\s+(/\S+) \(0x", line):
            needed[match[1]] = Path(match[1])
    return needed


def _find_tc() -> str:
    command = shutil.which("tc") or shutil.which("tc", path="/usr/sbin:/sbin")
    if command is None:
        raise LaunchError(
            "copying this machine's files into a tier image needs `tc`, which is not installed; "
            "try: apt-get install iproute2"
        )
    return command


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
