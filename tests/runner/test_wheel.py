"""The built wheel: every file of the packages is in it, and from it alone the main job starts in an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("catalog", "migrations", "recommender", "runner", "tierserver")
# Training and exporting come with the extra `torch`; they are in the wheel like everything else.
_BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy of the sources with the installed tools: neither network nor traces in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in _BUILT_FROM:
        shutil.copyfile(REPOSITORY / name, source / name)
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    # As pip does it, which takes twice as long.
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("tierwise-*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: Path) -> Path:
    """Return what an installation contains."""
    target = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as content:
        content.extractall(target)
    return target


def test_every_file_of_the_packages_is_in_it(wheel: Path) -> None:
    kept = {
        str(path.relative_to(REPOSITORY))
        for name in PACKAGES
        for path in (REPOSITORY / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as content:
        packed = {name for name in content.namelist() if ".dist-info/" not in name}
    assert packed == kept
    for needed in (
        "runner/subjects/builtin/fashion-resnet.onnx",
        "migrations/versions/0001_first.py",
        "runner/image/Dockerfile",
        "recommender/page/index.html",
    ):
        assert needed in packed


def run_from(unpacked: Path, folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run a Python that sees the wheel's content and the dependencies, but nothing of the repository."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("TIERWISE_", "PYTHON"))}
    guard = f"import runner, sys; assert runner.__file__.startswith({str(unpacked)!r}), runner.__file__; "
    return subprocess.run(
        [sys.executable, "-P", "-c", guard + code],
        cwd=folder,
        env=settings | {"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )


def runner(*arguments: str) -> str:
    """Run the command's entry point as its script does."""
    return f"from runner.cli import main; sys.argv = {['runner', *arguments]!r}; main()"


def test_from_it_alone_an_empty_folder_is_planned_and_asked(unpacked: Path, tmp_path: Path) -> None:
    """Use subjects, migrations and the page without the repository: a fill would measure what the plan lists."""
    written = run_from(unpacked, tmp_path, runner("init"))
    assert written.returncode == 0, written.stderr
    planned = run_from(unpacked, tmp_path, runner("plan", "--launcher", "process", "--json"))
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert len(plan["missing_rounds"]) == 3 * 18 and plan["unready"] == {}
    served = run_from(
        unpacked,
        tmp_path,
        "from starlette.testclient import TestClient; from recommender.app import create_app; "
        "client = TestClient(create_app(), base_url='http://127.0.0.1'); "
        "print(client.get('/').status_code, client.get('/healthz').status_code); "
        "from catalog.evidence.database import open_database; open_database('tierwise.db', create=True).close()",
    )
    assert served.stdout.split()[:1] == ["200"] and served.returncode == 0, served.stderr
    assert {path.name for path in tmp_path.iterdir()} >= {"strategies.yaml", "strategies.schema.json", "tierwise.db"}


def test_the_tier_image_is_made_of_what_the_wheel_holds(unpacked: Path, tmp_path: Path) -> None:
    """Compare the tier server's sources, as a tier gets them, and the recipe's packages."""
    code = (
        "from importlib.util import find_spec; from pathlib import Path; "
        "from runner.image import builder; here = Path(builder.__file__).parent; "
        "print(find_spec('tierserver').origin); print((here / 'tier-requirements.txt').read_text())"
    )
    done = run_from(unpacked, tmp_path, code)
    assert done.returncode == 0, done.stderr
    origin, *packages = done.stdout.splitlines()
    assert origin.startswith(str(unpacked)) and any(line.startswith("onnxruntime") for line in packages)
