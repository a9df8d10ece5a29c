"""The tier image: its pins, and how its base is chosen."""

import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from runner.errors import LaunchError
from runner.image import ImageBuilder
from runner.launchers.engine import Engine

ROOT = Path(__file__).parents[3]
PIN = re.compile(r"^([a-z0-9-]+)==([^\s;]+)(?: ; (?!python_full_version >).*)?$", re.MULTILINE)


class RecordingEngine:
    """An engine that has some images, reaches a registry or not, and remembers what it was told to make."""

    def __init__(self, *, machine: str, images: set[str], registry: bool) -> None:
        self.info: Mapping[str, Any] = {"OSType": "linux", "Architecture": machine}
        self.images = images
        self.made: list[tuple[str, str]] = []
        self._registry = registry

    def has_image(self, tag: str) -> bool:
        return tag in self.images

    def can_pull(self, tag: str) -> str | None:
        return None if self._registry else "no such host"

    def import_image(self, tree: IO[bytes], tag: str, changes: Sequence[str]) -> None:
        self.made.append(("import", tag))
        self.images.add(tag)

    def build_image(self, context: bytes, tag: str, arguments: Mapping[str, str], labels: Mapping[str, str]) -> None:
        self.made.append((arguments["BASE"], tag))
        self.images.add(tag)


def test_the_tiers_packages_are_those_of_the_lock() -> None:
    locked = dict(PIN.findall((ROOT / "requirements.lock").read_text()))
    pinned = dict(PIN.findall((ROOT / "runner/image/tier-requirements.txt").read_text()))
    assert {"numpy", "onnxruntime", "pillow", "uvicorn", "httptools", "uvloop"} <= set(pinned)
    assert pinned == {name: locked[name] for name in pinned}


def test_a_registry_or_a_present_python_image_means_a_dockerfile_build() -> None:
    for images, registry in ((set[str](), True), ({"python:3.11-slim"}, False)):
        engine = RecordingEngine(machine=platform.machine(), images=images, registry=registry)
        image = ImageBuilder(engine).ensure()
        (base, tier) = engine.made
        assert base[0] == "python:3.11-slim" and tier == (base[1], image.tag)


def test_a_base_image_that_was_asked_for_is_used() -> None:
    engine = RecordingEngine(machine="riscv64", images=set(), registry=False)
    assert ImageBuilder(engine, base_image="mirror/python:3.13").ensure().base == "mirror/python:3.13"
    assert engine.made[0][0] == "mirror/python:3.13"


def test_nothing_is_built_twice() -> None:
    engine = RecordingEngine(machine=platform.machine(), images=set(), registry=True)
    assert ImageBuilder(engine).ensure() == ImageBuilder(engine).ensure()
    assert len(engine.made) == 2


def test_without_a_registry_another_kind_of_machine_is_refused_with_what_to_do() -> None:
    engine = RecordingEngine(machine="riscv64", images=set(), registry=False)
    assert "engine runs linux/riscv64" in str(ImageBuilder(engine).refusal())
    with pytest.raises(LaunchError, match=r"no such host.*engine runs linux/riscv64.*TIERWISE_BASE_IMAGE"):
        ImageBuilder(engine).ensure()
    assert not engine.made


@pytest.mark.docker
def test_the_engine_has_the_image_once_it_was_ensured() -> None:
    engine = Engine.connect()
    image = ImageBuilder(engine).ensure()
    assert image.tag.startswith("tierwise-tier:") and engine.has_image(image.tag)
