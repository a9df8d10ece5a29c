"""Cached files are used only while they are what they were made to be."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.workdir import seal, unseal


def sealed(root: Path, key: str, content: bytes = b"weights") -> Path:
    directory = root / key
    directory.mkdir()
    (directory / "model.onnx").write_bytes(content)
    seal(directory, key, ["model.onnx"], {"reason": None})
    return directory


def flipped(path: Path) -> None:
    """Change one byte; size and modification time stay."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def renamed_in_manifest(directory: Path, name: str) -> None:
    manifest = directory / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"model.onnx"', json.dumps(name)))


def link_to_the_same_bytes(directory: Path) -> None:
    elsewhere = directory.parent / "elsewhere.onnx"
    (directory / "model.onnx").rename(elsewhere)
    (directory / "model.onnx").symlink_to(elsewhere)


def longer(directory: Path) -> None:
    with (directory / "model.onnx").open("ab") as stream:
        stream.write(b"more")


def edited(directory: Path) -> None:
    manifest = directory / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"reason": null', '"reason": "refused"'))


def moved(directory: Path) -> None:
    other = sealed(directory.parent, "another", b"stranger")
    for name in ("model.onnx", "manifest.json"):
        shutil.copyfile(other / name, directory / name)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "was changed since it was made": lambda directory: flipped(directory / "model.onnx"),
    "changed since it was made": longer,
    "is not there as a file": lambda directory: (directory / "model.onnx").unlink(),
    "not there as a file": link_to_the_same_bytes,
    "its manifest was changed": edited,
    "made for the key another": moved,
    "manifest was changed": lambda directory: renamed_in_manifest(directory, "/etc/hostname"),
    "has no manifest.json": lambda directory: (directory / "manifest.json").unlink(),
    "cannot be read": lambda directory: (directory / "manifest.json").write_text("{"),
    "manifest cannot be read": lambda directory: (directory / "manifest.json").write_text("[" * 100_000),
    "is not a mapping": lambda directory: (directory / "manifest.json").write_text("[]"),
}


def test_what_did_not_change_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = sealed(tmp_path, "key")
    for _ in range(2):
        artifact = unseal(directory, "key")
        assert artifact is not None
        assert [file.file for file in artifact.files] == ["model.onnx"]
    assert unseal(tmp_path / "absent", "absent") is None
    assert not caplog.records


@pytest.mark.parametrize("reason", DAMAGES)
def test_what_changed_is_removed_and_said(reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = sealed(tmp_path, "key")
    assert unseal(directory, "key") is not None
    DAMAGES[reason](directory)
    with caplog.at_level(logging.WARNING):
        assert unseal(directory, "key") is None
    assert not directory.exists()
    (record,) = caplog.records
    assert reason in record.getMessage() and "removed and made again" in record.getMessage()


@pytest.mark.parametrize("name", ["/etc/hostname", "../other/model.onnx", "..", "a/../model.onnx", ""])
def test_a_manifest_names_no_file_outside(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse it even if it was sealed again."""
    directory = sealed(tmp_path, "key")
    sealed(tmp_path, "other")
    manifest = json.loads((directory / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["files"][0]["file"] = name
    manifest["sha256"] = _digest_of(manifest)
    (directory / "manifest.json").write_text(json.dumps(manifest))
    assert unseal(directory, "key") is None
    assert (tmp_path / "other" / "model.onnx").exists()


def _digest_of(manifest: dict[str, object]) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def test_the_files_of_a_key_are_those_that_belong_to_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = sealed(tmp_path, "key")
    assert unseal(directory, "key", names=["model.onnx"]) is not None
    assert unseal(directory, "key", names=["items.npz"]) is None
    assert not directory.exists()
    assert "does not list the files that belong to this key" in caplog.text


def test_a_directory_that_is_a_link_is_not_believed(tmp_path: Path) -> None:
    directory = sealed(tmp_path, "key")
    directory.rename(tmp_path / "real")
    directory.symlink_to(tmp_path / "real")
    assert unseal(directory, "key") is None
    assert not directory.is_symlink() and (tmp_path / "real").is_dir()


def test_an_old_file_is_hashed_again_only_after_a_change(tmp_path: Path) -> None:
    directory = sealed(tmp_path, "key")
    path = directory / "model.onnx"
    os.utime(path, ns=(0, 0))
    assert unseal(directory, "key") is not None
    flipped(path)
    assert path.stat().st_mtime_ns == 0
    assert unseal(directory, "key") is None
