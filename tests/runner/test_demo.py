"""The two questions of the demo, asked of the real service over committed evidence."""

import json
from pathlib import Path

import pytest

from catalog.evidence.database import open_database
from catalog.exchange import import_files
from recommender import examples
from recommender.schemas import RecommendResponse
from recommender.schemas.answer import ToDoOut
from runner import demo

EVIDENCE = Path(__file__).parents[2] / "docs" / "example-evidence.json.gz"


def test_one_question_is_met_and_fits_the_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERWISE_WORKDIR", str(tmp_path / "work"))
    path = tmp_path / "demo.db"
    with open_database(path, create=True) as database:
        import_files(database, [EVIDENCE])
    with demo._recommender(str(path)) as url:
        subject = json.loads(demo.httpx.get(f"{url}/subjects").text)["subjects"][0]["subject"]
        fastest_s = demo._fastest_s(url, subject)
        question, answer = demo._ask(url, subject, {"max_latency_s": demo._FACTOR * fastest_s})
        assert answer.recommendation is not None and answer.status in ("proven", "likely")
        assert answer.recommendation.latency.percentile_s <= question["max_latency_s"]
        _, refused = demo._ask(url, subject, {"max_latency_s": fastest_s / 100})
        assert refused.status == "infeasible" and refused.recommendation is None and refused.near_misses


def test_what_would_make_the_answer_sure_is_run_and_the_question_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = RecommendResponse.model_validate(examples.answer())
    to_do = ToDoOut(command="runner fill-catalog --rounds 4 --only net:identity:edge", minutes=0.2, words="")
    likely = before.model_copy(update={"status": "likely", "to_do": to_do})
    newer = before.model_copy(update={"age": before.age.model_copy(update={"newest_at": "2099-01-01T00:00:00+00:00"})})
    ran: list[list[str]] = []
    shown: list[RecommendResponse] = []
    answers = iter([likely, newer])
    monkeypatch.setattr(demo, "app", ran.append)
    monkeypatch.setattr(demo, "run", lambda command: command())
    monkeypatch.setattr(demo, "_ask", lambda url, subject, budgets: ({}, next(answers)))
    monkeypatch.setattr(demo, "_show", lambda kind, question, answer: shown.append(answer))
    demo._make_sure("http://127.0.0.1:1", {}, likely)
    assert ran == [["fill-catalog", "--rounds", "4", "--only", "net:identity:edge"]]
    assert shown == [newer]
    demo._make_sure(
        "http://127.0.0.1:1", {}, likely.model_copy(update={"to_do": to_do.model_copy(update={"minutes": 30.0})})
    )
    assert len(ran) == 1, "half an hour is more than a demo takes"
