"""What a user names is a regular file: devices never end, pipes wait, and names of any bytes are names."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.errors import SubjectError
from runner.subjects.folders import FolderDataset
from runner.subjects.layouts.own import Images, read_label_file
from tests.hostile.door import typed
from tests.hostile.project import FILL, IMAGES, copy_project, edit, with_masks, with_tensors


def bind_socket(path: Path) -> None:
    # The name of a socket is short.
    former = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(former)


ODD: dict[str, Callable[[Path], None]] = {
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "pipe": os.mkfifo,
    "socket": bind_socket,
    "folder": Path.mkdir,
}
PLACES: dict[str, tuple[Callable[[Path], None] | None, tuple[tuple[str, ...], ...]]] = {
    "my.onnx": (None, (("validate",), ("init", "--model", "my.onnx", "--data", "images"), ("operators", "my.onnx"))),
    "images/03.png": (None, (("validate",), FILL)),
    "labels.csv": (None, (("validate",), FILL)),
    "data.npz": (with_tensors, (("validate",), FILL)),
    "masks/03.png": (with_masks, (FILL,)),
    "strategies.yaml": (None, (("validate",), ("plan", "--launcher", "process"))),
    "rows.csv": (None, (("import", "rows.csv"),)),
    "settings": (None, (("--settings", "settings", "status"),)),
    "tierwise.db": (None, (("status",), FILL, ("import", "labels.csv"))),
    "numbers.npz": (None, (("apply", "static_ptq", "my.onnx", "-o", "made", "--calibration", "numbers.npz"),)),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("place", PLACES)
def test_no_command_reads_what_is_no_file(
    place: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERWISE_SETTINGS", "")  # whatever the command sets is taken back
    change, commands = PLACES[place]
    folder = copy_project(tmp_path)
    if change is not None:
        change(folder)
    (folder / place).unlink(missing_ok=True)
    ODD[kind](folder / place)
    for command in commands:
        said = typed(folder, command)
        # What is not there yet is valid, and named.
        assert said.code in (1, 2) or "not checked, because" in said.out, (command, said)
        assert "Traceback" not in said.err, (command, said)
        # A database is named as the file that its link leads to.
        assert any(name in said.out + said.err for name in (Path(place).name, "/dev/zero")), (command, said)


NOT_UTF8 = os.fsdecode(b"caf\xe9.png")


def test_a_picture_whose_name_is_not_utf8_is_refused_with_its_bytes(tmp_path: Path) -> None:
    folder = copy_project(tmp_path)
    (folder / "images/03.png").rename(folder / "images" / NOT_UTF8)
    with pytest.raises(SubjectError, match="is not UTF-8; rename it, or take it out"):
        FolderDataset(Images(folder / "images"), judged=False).input_ids()
    edit(folder, IMAGES, "any\n    dataset: {images: images}")
    # A plan leaves the subject out and goes on; a fill that leaves something out has failed.
    question = ("recommend", "mine", "--max-latency", "1s", "--measure", "10s", "--launcher", "process")
    for command, code in ((("plan", "--launcher", "process"), 0), (FILL, 1), (question, 1)):
        said = typed(folder, command)
        assert said.code == code and "caf\\xe9.png" in said.out + said.err, (command, said)


def test_a_project_in_a_folder_whose_name_is_not_utf8_says_so(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    folder = copy_project(tmp_path / os.fsdecode(b"caf\xe9"))
    (folder / "tierwise.db").unlink()
    for command in (("validate",), ("plan", "--launcher", "process"), FILL, ("operators", "my.onnx")):
        said = typed(folder, command)
        assert said.code in (0, 1) and "Traceback" not in said.err, (command, said)
        assert said.code == 0 or "UTF-8" in said.err, (command, said)
    assert typed(folder, ("init", "--model", "my.onnx", "-o", "new.yaml")).code in (0, 1)


def test_a_file_of_evidence_may_have_any_name(tmp_path: Path) -> None:
    folder = copy_project(tmp_path)
    assert typed(folder, ("export", "--output", "all.json")).code == 0
    (folder / "all.json").rename(folder / os.fsdecode(b"all\xe9\x1b[31m.json"))
    said = typed(folder, ("import", os.fsdecode(b"all\xe9\x1b[31m.json"), "-d", "other.db"))
    assert said.code == 0 and "all\\xe9.json" in said.out, said
    said = typed(folder, ("status", "-d", "other.db"))
    assert said.code == 0, said
    assert typed(folder, ("export", "-d", "other.db", "--output", "again.json")).code == 0
    said = typed(folder, ("forget", "all\\xe9.json", "-d", "other.db"))
    assert said.code == 0, said


@pytest.mark.parametrize("label", ["9" * 5000, "²", "١٢٣٤٥٦٧٨٩٠", "-1", "1_0"])
def test_a_label_of_any_digits_is_one_message(label: str) -> None:
    with pytest.raises(SubjectError, match="line 1: got"):
        read_label_file(f"00.png,{label}\n".encode(), Path("labels.csv"), 3)
