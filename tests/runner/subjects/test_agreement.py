"""Of very many pictures without labels a part is judged, always the same one, and what takes long is said."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from catalog.declaration.schema import SubjectSpec
from runner.measuring import fill
from runner.subjects import agreement, own_model
from runner.subjects.dataset import Subject, WatchedDataset, judged_in_words
from runner.subjects.declared import resolve_declared
from tests.hostile.door import typed
from tests.hostile.project import FILL, IMAGES, copy_project, edit

# As many as calibrate, of twelve.
CALIBRATING = 1


def project(folder: Path, dataset: str) -> Path:
    """Copy the project with a dataset that has no labels."""
    copy_project(folder)
    with np.load(folder / "data.npz") as data:
        np.savez(folder / "data.npz", x=data["x"])
    edit(folder, IMAGES, f"any\n    dataset: {dataset}")
    return folder


def unlabelled(folder: Path, dataset: dict[str, str]) -> Subject:
    spec = SubjectSpec.model_validate({"model": "./my.onnx", "task": "any", "dataset": dataset})
    return resolve_declared("mine", spec, base=folder, built=folder / "kept")


def judge_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge four items at most."""
    monkeypatch.setattr(agreement, "MOST_JUDGED", 4)
    monkeypatch.setattr(own_model, "MOST_JUDGED", 4)


def note(seen: list[tuple[int, int]], written: int, total: int) -> None:
    seen.append((written, total))


@pytest.mark.parametrize("dataset", [{"images": "images"}, {"tensors": "data.npz"}])
def test_of_many_items_a_part_is_judged_always_the_same(
    dataset: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project(tmp_path, "{images: images}")
    every = unlabelled(folder, dataset)
    assert every.dataset.item_count() == 12 - CALIBRATING and judged_in_words(every) is None
    judge_four(monkeypatch)
    first, second = unlabelled(folder, dataset), unlabelled(folder, dataset)
    assert first.dataset.item_count() == 4
    assert first.dataset.inputs_fingerprint() == every.dataset.inputs_fingerprint()
    words = judged_in_words(first)
    assert words is not None and words.startswith("11 ") and "judged on 4 of them, always the same ones" in words
    contents = []
    for number, subject in enumerate((first, second)):
        assert isinstance(subject.dataset, WatchedDataset)
        seen: list[tuple[int, int]] = []
        path = folder / f"{number}.npz"
        assert subject.dataset.write_watched_items(path, partial(note, seen)) == 4
        assert seen == [(0, 4), (1, 4), (2, 4), (3, 4)]
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] and first.dataset.fingerprint() == second.dataset.fingerprint()


def test_validate_and_a_fill_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge_four(monkeypatch)
    monkeypatch.setattr(fill, "_MANY_ITEMS", 4)
    folder = project(tmp_path, "{images: images}")
    said = typed(folder, ("validate",))
    assert said.code == 0 and "mine: 11 pictures have no labels" in said.out
    said = typed(folder, FILL)
    assert said.code == 0 and "first, identity answers for 4 items without labels" in said.err, said
