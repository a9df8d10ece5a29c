"""What is said of tests that ran in forked processes, one of which crashes, is what happened."""

import os
import re
import subprocess
import sys
from pathlib import Path

CONFTEST = """
from tests.side_by_side import SideBySide

def pytest_configure(config):
    config.pluginmanager.register(SideBySide(
        lambda item: 1 if item.path.name == "test_last.py" else 2, lambda item: item.path.name,
        lambda items: open("prepared", "x")))
"""
CRASH = """
import os, sys
import pytest

@pytest.fixture(scope="module", autouse=True)
def lines():
    yield
    open("torn_down", "x")

def test_before(): pass

def test_crash():
    os.write(2, b"captured")
    os.kill(os.getpid(), 9)

def test_after(): pass
"""
OTHERS = """
import os
import pytest

def test_failure():
    print("said before it")
    assert open("prepared").read() == "anything"

def test_skipped(): pytest.skip("for a reason")

@pytest.mark.timeout(0.2)
def test_endless():
    while True: pass

def test_folder(tmp_path_factory, request):
    assert tmp_path_factory.getbasetemp().name.startswith("process")
    open("pid", "w").write(str(os.getpid()))
"""
LAST = """
import os
from pathlib import Path

def test_alone():
    assert Path("torn_down").exists() and Path("pid").read_text() != str(os.getpid())
    assert not Path(f"/proc/{Path('pid').read_text()}").exists()
"""


def test_a_crash_fails_its_test_and_all_others_run(tmp_path: Path) -> None:
    files = {"conftest": CONFTEST, "test_crash": CRASH, "test_others": OTHERS, "test_last": LAST}
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = ["-v", "-rs", "-p", "no:hypothesispytest", "-p", "no:schemathesis", "--basetemp", str(tmp_path / "temp")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    outcomes = dict(re.findall(r"^test_\w+\.py::(\w+) (PASSED|FAILED|SKIPPED)", done.stdout, re.MULTILINE))
    assert outcomes == {
        "test_before": "PASSED",
        "test_crash": "FAILED",
        "test_after": "PASSED",
        "test_failure": "FAILED",
        "test_skipped": "SKIPPED",
        "test_endless": "FAILED",
        "test_folder": "PASSED",
        "test_alone": "PASSED",
    }
    assert re.search(r"3 failed, 4 passed, 1 skipped", done.stdout)
    assert "the process that ran this test ended with -9" in done.stdout
    assert all(text in done.stdout for text in ("said before it", "for a reason", "Timeout (>0.2s)"))
