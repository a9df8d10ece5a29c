"""The published example is true; `python tests/recommender/test_example.py` renews it."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from catalog.evidence.database import open_database
from catalog.exchange import import_files
from recommender import examples
from recommender.answer.respond import respond
from recommender.evidence.snapshots import Snapshots
from recommender.schemas import RecommendRequest, RecommendResponse

ROOT = Path(__file__).parents[2]
EVIDENCE = ROOT / "docs" / "example-evidence.json.gz"
ANSWER = ROOT / "recommender" / "examples" / "answer.json"
GUIDE = ROOT / "docs" / "recommend.md"


def true_answer(directory: Path) -> dict[str, Any]:
    path = directory / "example.db"
    with open_database(path, create=True) as database:
        import_files(database, [EVIDENCE])
    snapshots = Snapshots(str(path))
    answer = respond(snapshots.current(), RecommendRequest.model_validate(examples.QUESTION), on=date(2026, 12, 1))
    snapshots.close()
    return answer.model_dump(mode="json")


def assert_alike(actual: Any, expected: Any) -> None:
    """Assert equality but for the last digits of numbers."""
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key, value in expected.items():
            assert_alike(actual[key], value)
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_alike(one, other)
    else:
        assert actual == (pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else expected)


def test_the_published_answer_is_what_the_evidence_gives(tmp_path: Path) -> None:
    said = examples.answer()
    RecommendResponse.model_validate(said)
    assert_alike(true_answer(tmp_path), said)


def test_the_guide_shows_the_same_question_and_answer() -> None:
    blocks = [block.removeprefix("json\n") for block in GUIDE.read_text(encoding="utf-8").split("```")[1::2]]
    shown = [json.loads(block) for block in blocks if block.startswith("{")]
    assert shown == [examples.QUESTION, examples.answer()]


def test_the_guide_names_every_field_of_question_and_answer() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    missing = [
        name
        for model in (RecommendRequest, RecommendResponse)
        for name in model.model_fields
        if f"`{name}`" not in text
    ]
    assert not missing


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        renewed = json.dumps(true_answer(Path(made)), indent=1, ensure_ascii=False) + "\n"
    before = ANSWER.read_text(encoding="utf-8")
    ANSWER.write_text(renewed, encoding="utf-8")
    GUIDE.write_text(GUIDE.read_text(encoding="utf-8").replace(before, renewed), encoding="utf-8")
