"""Answers to a fixed set of questions are those of before; `python -m tests.recommender.test_same_answers` renews them.

And they are the same to the last bit whatever was asked before, although much is kept from question to question.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import date
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from catalog.evidence.database import open_database
from catalog.exchange import import_files
from catalog.statistics import log_estimate
from recommender.answer.respond import answer_json, respond
from recommender.evidence.model import Evidence
from recommender.evidence.snapshots import Snapshots
from recommender.schemas import RecommendRequest
from tests.recommender.test_example import EVIDENCE, ROOT, assert_alike

ANSWERS = ROOT / "tests" / "data" / "example-answers.json"
DAY = date(2026, 12, 1)
# Around the latencies of the example, which are between 5 and 41 ms.
_LIMITS_S = (None, 0.004, 0.0061, 0.0088, 0.0125, 0.02, 0.0405, 0.3)
_ACCURACIES: tuple[Mapping[str, object], ...] = (
    {},
    {"max_accuracy_drop_pp": 1.0},
    {"max_accuracy_drop_pp": 0.05, "min_accuracy_pct": 80.0},
    {"min_accuracy_pct": 99.5},
)
_OTHERS: tuple[Mapping[str, object], ...] = (
    {},
    {"latency_percentile": 50.0, "objective": "size", "confidence": 0.8},
    {"forbid_tiers": ["mobile"], "version": 1, "equivalent_within": 0.3},
    {"max_sent_bytes": 1.0, "objective": "cpu", "cost_of_breaking": 3.0, "detail": "short"},
)


def questions() -> list[dict[str, Any]]:
    """Return questions that have a recommendation and that have none, with and without relaxations."""
    kinds = list(product(_LIMITS_S, _ACCURACIES, _OTHERS))
    # Every second one: each pair of limits, accuracies and other fields occurs.
    return [
        {"subject": "fashion-resnet", **({} if limit is None else {"max_latency_s": limit}), **accuracy, **others}
        for limit, accuracy, others in kinds[::2] + kinds[1::6]
    ]


@contextmanager
def evidence_of(path: Path) -> Iterator[Evidence]:
    with closing(Snapshots(str(path))) as snapshots:
        yield snapshots.current()


def answer(evidence: Evidence, question: Mapping[str, Any]) -> str:
    return respond(evidence, RecommendRequest.model_validate(question), on=DAY).model_dump_json()


def gist(answered: str) -> list[Any]:
    """Return what an answer decides, and its figures."""
    read = json.loads(answered)
    best, proven = read["recommendation"], read["proven"]
    relaxed = [read["relaxation"], *read["other_relaxations"]] if read["relaxation"] else []
    return [
        read["status"],
        read["probability"],
        None if best is None else [best["id"], best["joint_confidence"]],
        None if proven is None else [proven["id"], proven["joint_confidence"]],
        [[change["field"], change["to_value"], change["operator"], change["placement"]] for change in relaxed],
        [[other["id"], other["ratio_high"]] for other in read["alternatives"]],
        [[other["id"], other["kind"], other["probability"]] for other in read["undecided"]],
        [[other["id"], *(own["bound"] for own in other["shortfalls"])] for other in read["near_misses"]],
    ]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return imported(tmp_path_factory.mktemp("example"))


def imported(directory: Path) -> Path:
    path = directory / "example.db"
    with open_database(path, create=True) as database:
        import_files(database, [EVIDENCE])
    return path


def test_answers_are_those_of_before(example: Path) -> None:
    said = json.loads(ANSWERS.read_text(encoding="utf-8"))
    with evidence_of(example) as evidence:
        assert [question for question, _ in said] == questions()
        for question, expected in said:
            assert_alike(gist(answer(evidence, question)), expected)


def test_an_answer_is_the_same_whatever_was_asked_before(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tables that are made of what is asked often differ from what they stand for in the ninth digit.
    monkeypatch.setattr(log_estimate, "OFTEN", 10**9)
    with evidence_of(example) as first, evidence_of(example) as second:
        forward = [answer(first, question) for question in questions()]
        backward = [answer(second, question) for question in reversed(questions())]
        assert forward == backward[::-1]
        # Once more, with all that is kept by now.
        assert forward == [answer(first, question) for question in questions()]


def test_an_encoded_answer_is_that_of_its_models(example: Path) -> None:
    """So the published schema, which is that of the models, holds for what is sent."""
    places: set[str] = set()
    with evidence_of(example) as evidence:
        for question in questions():
            request = RecommendRequest.model_validate(question)
            sent = answer_json(evidence, request, on=DAY).decode()
            assert sent == respond(evidence, request, on=DAY).model_dump_json()
            places |= {name for name, value in json.loads(sent).items() if value}
    assert places >= {"recommendation", "proven", "alternatives", "near_misses", "undecided", "excluded", "relaxation"}


if __name__ == "__main__":
    with TemporaryDirectory() as made, evidence_of(imported(Path(made))) as evidence:
        lines = [json.dumps([question, gist(answer(evidence, question))]) for question in questions()]
    ANSWERS.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
