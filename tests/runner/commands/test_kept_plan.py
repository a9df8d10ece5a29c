"""Keys are used again only while everything that they are computed from is unchanged."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from runner.commands import kept_plan
from runner.commands.kept_plan import DeclaredSubject, KeptPlan, OwnData, PlanMemory, StrategyKeys
from runner.commands.prepared_question import find_subject
from tests.catalog_of_one import CATALOG, declare

STRATEGIES = (StrategyKeys("identity", "edge", ("edge",), True, False, "a", "b", "c"),)
CATALOG_FILE = Path("strategies.yaml")
Memory = Callable[..., PlanMemory]


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Return the memory of the only subject of a catalog, whose folder of pictures nothing reads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kept_plan, "_SETTLED_NS", 0)
    declare(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/0.jpg").touch()
    subject = {"model": "./table.onnx", "task": "any", "dataset": {"images": "photos"}}
    (tmp_path / "strategies.yaml").write_text(
        yaml.safe_dump(CATALOG | {"subjects": {"table": subject}}, sort_keys=False)
    )
    return lambda launcher="process": PlanMemory("table", CATALOG_FILE, launcher=launcher, scale="1")


def declared() -> DeclaredSubject:
    """Return what the catalog says of its subject now."""
    return find_subject("table", CATALOG_FILE, OwnData()).declared


def plan() -> KeptPlan:
    return KeptPlan("environment", STRATEGIES, ("d",), declared())


def keep(memory: PlanMemory, *, weights: tuple[Path, ...] = (), launcher: str = "process") -> None:
    memory.keep(plan(), state=memory.state(declared()), weights=weights, launcher=launcher)


def test_what_was_kept_is_found(memory: Memory) -> None:
    assert memory().find() is None
    keep(memory())
    assert memory().find() == plan()


def test_another_catalog_is_noticed_even_where_it_declares_the_same(memory: Memory) -> None:
    keep(memory())
    CATALOG_FILE.write_text(f"# Another comment.\n{CATALOG_FILE.read_text()}")
    assert memory().find() is None


def test_a_catalog_that_changes_while_keys_are_computed_is_noticed(memory: Memory) -> None:
    kept = plan()
    CATALOG_FILE.write_text(f"# Another comment.\n{CATALOG_FILE.read_text()}")
    memory().keep(kept, state=memory().state(kept.subject), weights=(), launcher="process")
    assert memory().find() is None


def test_another_picture_is_noticed(memory: Memory, tmp_path: Path) -> None:
    keep(memory())
    (tmp_path / "photos/1.jpg").touch()
    assert memory().find() is None


def test_another_file_with_weights_is_noticed(memory: Memory, tmp_path: Path) -> None:
    (tmp_path / "table.data").write_bytes(b"1")
    keep(memory(), weights=(tmp_path / "table.data",))
    assert memory().find() == plan()
    (tmp_path / "table.data").write_bytes(b"2")
    assert memory().find() is None


def test_a_folder_behind_a_link_is_never_taken_for_unchanged(memory: Memory, tmp_path: Path) -> None:
    (tmp_path / "photos/more").symlink_to(tmp_path)
    assert memory().state(declared()) is None


def test_a_file_that_has_just_been_changed_is_never_taken_for_unchanged(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_plan, "_SETTLED_NS", 10**12)
    assert memory().state(declared()) is None


def test_a_change_while_keys_are_computed_is_noticed(memory: Memory, tmp_path: Path) -> None:
    state = memory().state(declared())
    (tmp_path / "photos/0.jpg").write_bytes(b"other")
    memory().keep(plan(), state=state, weights=(), launcher="process")
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
    assert memory("auto").find() == plan() and memory("process").find() is None
    socket.rename(tmp_path / "former")
    socket.touch()
    assert memory("auto").find() is None
    # What an engine elsewhere runs on cannot be told without asking it.
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert memory("docker").state(declared()) is None


@pytest.mark.parametrize("changed", ["machine_facts", "versions", "_programs"])
def test_another_machine_or_program_is_noticed(memory: Memory, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    keep(memory())
    monkeypatch.setattr(kept_plan, changed, lambda: {"another": "one"})
    assert memory().find() is None


def test_keys_that_cannot_be_read_are_absent(memory: Memory, tmp_path: Path) -> None:
    keep(memory())
    (file,) = (tmp_path / ".tierwise/planned").iterdir()
    for content in (b"{", b"[]", b"{}", b'{"state": 1}', b'{"subject": {"name": 1}}', b"\xff"):
        file.write_bytes(content)
        assert memory().find() is None
    keep(memory())
    assert memory().find() == plan()
