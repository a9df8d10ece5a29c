"""Keys are used again only while everything that they are computed from is unchanged."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from runner.commands import prepared_question
from runner.commands.prepared_question import KeptPlan, OwnData, PlanMemory, StrategyKeys, find_subject
from tests.catalog_of_one import CATALOG, declare

PLAN = KeptPlan("environment", (StrategyKeys("identity", "edge", ("edge",), True, False, "a", "b", "c"),), ("d",))
Memory = Callable[..., PlanMemory]


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Return the memory of the only subject of a catalog, whose folder of pictures nothing reads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prepared_question, "_SETTLED_NS", 0)
    declare(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/0.jpg").touch()
    subject = {"model": "./table.onnx", "task": "any", "dataset": {"images": "photos"}}
    (tmp_path / "strategies.yaml").write_text(
        yaml.safe_dump(CATALOG | {"subjects": {"table": subject}}, sort_keys=False)
    )
    return lambda launcher="process": PlanMemory(
        find_subject("table", Path("strategies.yaml"), OwnData()), launcher=launcher, scale="1"
    )


def keep(memory: PlanMemory, *, weights: tuple[Path, ...] = (), launcher: str = "process") -> None:
    memory.keep(PLAN, state=memory.state(), weights=weights, launcher=launcher)


def test_what_was_kept_is_found(memory: Memory) -> None:
    assert memory().find() is None
    keep(memory())
    assert memory().find() == PLAN


def test_another_picture_is_noticed(memory: Memory, tmp_path: Path) -> None:
    keep(memory())
    (tmp_path / "photos/1.jpg").touch()
    assert memory().find() is None


def test_another_file_with_weights_is_noticed(memory: Memory, tmp_path: Path) -> None:
    (tmp_path / "table.data").write_bytes(b"1")
    keep(memory(), weights=(tmp_path / "table.data",))
    assert memory().find() == PLAN
    (tmp_path / "table.data").write_bytes(b"2")
    assert memory().find() is None


def test_a_folder_behind_a_link_is_never_taken_for_unchanged(memory: Memory, tmp_path: Path) -> None:
    (tmp_path / "photos/more").symlink_to(tmp_path)
    assert memory().state() is None


def test_a_file_that_has_just_been_changed_is_never_taken_for_unchanged(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared_question, "_SETTLED_NS", 10**12)
    assert memory().state() is None


def test_a_change_while_keys_are_computed_is_noticed(memory: Memory, tmp_path: Path) -> None:
    state = memory().state()
    (tmp_path / "photos/0.jpg").write_bytes(b"other")
    memory().keep(PLAN, state=state, weights=(), launcher="process")
    assert memory().find() is None


def test_an_engine_that_was_started_again_is_noticed(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    socket.touch()
    keep(memory("auto"), launcher="process")
    assert memory("auto").find() is None, "an engine that did not answer may answer now"
    keep(memory("auto"), launcher="docker")
    assert memory("auto").find() == PLAN and memory("process").find() is None
    socket.rename(tmp_path / "former")
    socket.touch()
    assert memory("auto").find() is None
    # What an engine elsewhere runs on cannot be told without asking it.
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert memory("docker").state() is None


@pytest.mark.parametrize("changed", ["machine_facts", "versions", "_programs"])
def test_another_machine_or_program_is_noticed(memory: Memory, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    keep(memory())
    monkeypatch.setattr(prepared_question, changed, lambda: {"another": "one"})
    assert memory().find() is None


def test_keys_that_cannot_be_read_are_absent(memory: Memory, tmp_path: Path) -> None:
    keep(memory())
    (file,) = (tmp_path / ".tierwise/planned").iterdir()
    for content in (b"{", b"[]", b"{}", b'{"state": 1}', b"\xff"):
        file.write_bytes(content)
        assert memory().find() is None
    keep(memory())
    assert memory().find() == PLAN
