"""The wheel of the tier server, as a board gets it: installed into a clean environment, and served from there."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from runner.launchers.base import Mount, TierLimits
from runner.launchers.server_tier import connect

REPOSITORY = Path(__file__).parents[2]
# What would make the wheel heavy, or a compiler necessary on a board.
FOREIGN = ("docker", "fastapi", "onnx", "pydantic", "scipy", "sqlmodel", "uvloop")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy of the sources with the installed tools: neither network nor traces in the tree."""
    folder = tmp_path_factory.mktemp("tierserver-wheel")
    for name in ("packaging/tierserver", "tierserver"):
        ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    # The build backend itself: pip takes four times as long to do no more than call it.
    build = f"import setuptools.build_meta as backend; backend.build_wheel({str(folder)!r})"
    command, sources = [sys.executable, "-c", build], folder / "packaging/tierserver"
    done = subprocess.run(command, cwd=sources, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("tierwise_tierserver-*.whl")
    return built


def pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def python(wheel: Path) -> Path:
    """Return the interpreter of an environment that has the wheel and what it requires, and nothing else."""
    root = wheel.parent / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True)
    interpreter = root / "bin/python"
    pip("--python", str(interpreter), "install", "--no-deps", "--no-index", "--no-compile", str(wheel))
    (site,) = root.glob("lib/python*/site-packages")
    for name in required("tierwise-tierserver", [str(entry) for entry in declared()["dependencies"]]):
        # The packages are those of this environment: the test needs no network, and no copy of a hundred megabytes.
        package = distribution(name)
        for top in {file.parts[0] for file in package.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(str(package.locate_file(top)))
    return interpreter


def declared() -> dict[str, list[str]]:
    content = tomllib.loads((REPOSITORY / "packaging/tierserver/pyproject.toml").read_text())
    project: dict[str, list[str]] = content["project"]
    return project


def required(name: str, requirements: list[str]) -> Iterator[str]:
    """Yield the names of all packages that these requirements bring, each once."""
    waiting, seen = list(requirements), {name}
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name not in seen and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            seen.add(requirement.name)
            yield requirement.name
            waiting += distribution(requirement.name).requires or []


def test_it_is_pure_python_and_holds_the_tier_server_alone(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")  # so that it is the same on ARM
    with zipfile.ZipFile(wheel) as content:
        packed = {name for name in content.namelist() if ".dist-info/" not in name}
    assert packed == {f"tierserver/{path.name}" for path in (REPOSITORY / "tierserver").glob("*.py")}
    names = {Requirement(entry).name for entry in declared()["dependencies"]}
    assert names == {"httptools", "numpy", "onnxruntime", "pillow", "uvicorn"}
    whole = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert set(declared()["dependencies"]) <= set(whole["dependencies"]) and declared()["version"] == whole["version"]


def test_the_documented_command_serves_from_a_clean_environment(python: Path, tmp_path: Path) -> None:
    present = subprocess.run(
        [python, "-c", f"import importlib.util as u; print([n for n in {FOREIGN!r} if u.find_spec(n)])"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert present.stdout.strip() == "[]"
    command = [python, "-m", "tierserver", "--serve", "127.0.0.1:0", "--token-file", "token", "--cache", "cache"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert line.startswith(f"tierserver {declared()['version']} waits for a runner on 127.0.0.1, port "), line
            url = f"http://127.0.0.1:{line.split('port ')[1].split(' ')[0]}"
            server = connect(url, tier="mobile", token=(tmp_path / "token").read_text().strip())
            # A part, so that the engine and the reading of images are loaded there.
            mount = Mount("model", {"token": tmp_path / "token"}, "key", has_parts=True)
            with server.launch(TierLimits("mobile", 1.0, 256 << 20, 1), [mount]) as tier:
                assert tier.call({"cmd": "stats"}, deadline_s=20)["threads"] >= 1
        finally:
            process.kill()
