"""A root directory for tiers made of this machine's own files, for engines that reach no registry.

The tree holds copies of the running interpreter and its standard library, of the distributions that a tier needs as
they are installed here, of `tc`, and of every shared library that those link to. Nothing is downloaded or installed.
"""

import hashlib
import io
import platform
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import MAGIC_NUMBER, cache_from_source
from pathlib import Path, PurePosixPath
from typing import IO

from runner.errors import LaunchError

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
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        top = relative.parts[0]
        if top in _UNWANTED_STDLIB or top.startswith("config-") or _is_unwanted(path):
            continue
        if path.is_file() and "__pycache__" not in relative.parts and "tests" not in relative.parts[:-1]:
            yield path, _STDLIB / relative.as_posix()


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
