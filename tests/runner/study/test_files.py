"""The command that builds the study's files."""

import subprocess
import sys
from pathlib import Path

import pytest

from runner.study import has_torch


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "runner.study", "build", *arguments], capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.skipif(has_torch(), reason="torch is installed, so the export would start")
def test_without_torch_the_command_says_what_to_install(tmp_path: Path) -> None:
    done = command(str(tmp_path / "models"), "resnet")
    said = " ".join(done.stderr.split())
    assert done.returncode == 1 and "pip install 'tierwise[torch]'" in said and "wide_resnet101_2" in said
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("vgg",), "unknown subject 'vgg'; allowed: resnet, resnext, fcn, duc, fcn-dynamic"),
        (("--weights", "pretrained", "duc", "fcn"), "duc has no pretrained weights"),
    ],
)
def test_what_cannot_be_built_is_said_before_anything_is(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = command(str(tmp_path), *arguments)
    assert done.returncode == 1 and says in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = command(str(tmp_path / "file" / "models"), "duc")
    assert done.returncode == 1 and "cannot write" in done.stderr
