"""Which answers are given where the question arrives, and that they are the same ones."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recommender.errors import UnknownSubject
from recommender.evidence import snapshots
from recommender.evidence.loading import load
from recommender.evidence.snapshots import Snapshots
from recommender.http.questions import AnswerCache
from recommender.schemas import RecommendRequest


@pytest.fixture
def opened(path: Path, filled: Any) -> Iterator[Snapshots]:
    database = Snapshots(str(path))
    yield database
    database.close()


def question(max_latency_s: float, **more: Any) -> RecommendRequest:
    return RecommendRequest(subject="net", max_latency_s=max_latency_s, **more)


def test_what_was_never_asked_before_is_not_answered_at_once(opened: Snapshots) -> None:
    answers = AnswerCache(opened, quick_s=60)
    assert answers.at_once(question(0.2)) is None
    first = answers.json_for(question(0.2))
    assert answers.at_once(question(0.2)) is first
    assert answers.at_once(question(0.2, latency_percentile=50)) is None


def test_other_figures_are_answered_at_once_with_the_same_answer(opened: Snapshots) -> None:
    answers = AnswerCache(opened, quick_s=60)
    answers.json_for(question(0.2))
    assert answers.at_once(question(0.3)) == AnswerCache(opened).json_for(question(0.3))


def test_what_took_long_is_not_answered_at_once(opened: Snapshots) -> None:
    answers = AnswerCache(opened, quick_s=0)
    answers.json_for(question(0.2))
    assert answers.at_once(question(0.3)) is None


def test_new_evidence_is_read_elsewhere_and_then_answers(opened: Snapshots, filled: Any) -> None:
    answers = AnswerCache(opened, quick_s=60)
    before = answers.json_for(question(0.2))
    filled.strategy(1, "early_exit", "mobile", 0.001)
    assert answers.at_once(question(0.2)) is None
    after = answers.json_for(question(0.2))
    assert b"early_exit" in after and b"early_exit" not in before
    assert answers.at_once(question(0.2)) is after


@pytest.fixture
def slow_load(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Announce that reading began, and continue only when released."""
    reading, go_on = threading.Event(), threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        reading.set()
        assert go_on.wait(timeout=30)
        return load(*arguments, **options)

    monkeypatch.setattr(snapshots, "load", slow)
    return reading, go_on


def test_who_asks_during_a_refresh_gets_what_was_known_before(
    opened: Snapshots, filled: Any, request: pytest.FixtureRequest
) -> None:
    answers = AnswerCache(opened, quick_s=60)
    before = answers.json_for(question(0.2))
    reading, go_on = request.getfixturevalue("slow_load")
    filled.strategy(1, "early_exit", "mobile", 0.001)
    first: list[bytes] = []
    refreshing = threading.Thread(target=lambda: first.append(answers.json_for(question(0.2))))
    refreshing.start()
    assert reading.wait(timeout=30)
    assert answers.at_once(question(0.2)) is before and answers.json_for(question(0.2)) is before
    go_on.set()
    refreshing.join(timeout=30)
    assert b"early_exit" in first[0] and answers.at_once(question(0.2)) is first[0]


def test_no_question_waits_longer_for_new_evidence_than_the_limit(
    opened: Snapshots, filled: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = AnswerCache(opened, quick_s=60)
    before = answers.json_for(question(0.2))
    _, go_on = request.getfixturevalue("slow_load")
    monkeypatch.setattr(snapshots, "_PATIENCE_S", 0.01)
    filled.strategy(1, "early_exit", "mobile", 0.001)
    assert answers.json_for(question(0.2)) is before
    go_on.set()
    opened.close()
    assert b"early_exit" in answers.json_for(question(0.2))


def test_a_database_that_went_away_is_told_by_the_slow_way(opened: Snapshots, path: Path) -> None:
    answers = AnswerCache(opened, quick_s=60)
    answers.json_for(question(0.2))
    path.unlink()
    assert answers.at_once(question(0.2)) is None


def test_a_question_without_an_answer_is_never_kept(opened: Snapshots) -> None:
    answers = AnswerCache(opened, quick_s=60)
    for _ in range(2):
        unknown = RecommendRequest(subject="nets")
        assert answers.at_once(unknown) is None
        with pytest.raises(UnknownSubject):
            answers.json_for(unknown)


def test_a_refresh_keeps_what_did_not_change(opened: Snapshots, filled: Any) -> None:
    before = {candidate.operator: candidate for candidate in opened.current().select("net").candidates}
    filled.strategy(1, "early_exit", "mobile", 0.001)
    after = {candidate.operator: candidate for candidate in opened.current().select("net").candidates}
    assert set(after) - set(before) == {"early_exit"}
    assert all(after[name] is candidate for name, candidate in before.items())


def test_a_refresh_takes_what_changed(opened: Snapshots, filled: Any) -> None:
    before = {candidate.operator: candidate for candidate in opened.current().select("net").candidates}
    changed = next(iter(before))
    filled.measure(1, changed, before[changed].placement, 0.001, number=before[changed].rounds)
    after = {candidate.operator: candidate for candidate in opened.current().select("net").candidates}
    assert after[changed] is not before[changed] and after[changed].rounds == before[changed].rounds + 1


JSON = {"content-type": "application/json"}
# FastAPI reads it as JSON, and `QuickAnswers` leaves it to FastAPI.
ROUTED = {"content-type": "application/x+json"}


def test_an_answer_before_the_route_is_that_of_the_route(client: Any, filled: object) -> None:
    bodies = [json.dumps({"subject": "net", "max_latency_s": limit}).encode() for limit in (0.2, 0.2, 0.3)]
    routed, first, second, other = (
        client.post("/recommend", content=body, headers=headers)
        for body, headers in zip([bodies[0], *bodies], [ROUTED, *[JSON] * 3], strict=True)
    )
    assert routed.content == first.content == second.content != other.content
    assert routed.headers.items() == first.headers.items() == second.headers.items()
    assert 'tierwise_requests_total{method="POST",route="/recommend",status="200"} 4.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b'{"subject": "net", "subject": "other"}',
        b'{"subject": "other", "subject": "net"}',
        b'{"subject": "net", "version": 2.0}',
        b'{"subject": "net", "version": true}',
        b'{"subject": "net", "max_latency_s": "0.2"}',
        b'{"subject": "net", "max_latency_s": 1}',
        b'{"subject": "net", "max_latency_s": NaN}',
        b'{"subject": "net", "max_latency_s": 1e999}',
        b'{"subject": "net", "max_latency_s": ' + b"1" * 5000 + b"}",
        b'{"subject": "net", "max_latency_s": 0.1000000000000000055511151231257827021181583404541015625}',
        b'{"subject": "net", "max_memory_bytes": {"edge": 1e9, "edge": 2e9}}',
        b'{"subject": "net", "forbid_tiers": "edge"}',
        b'{"subject": "net", "unknown": 1}',
        b'{"subject": "n\\u0065t"}',
        b'{"subject": "\\ud800"}',
        b'{"subject": "n\x01et"}',
        '{"subject": "net"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"subject": "net"}',
        b'{"subject": "\xff"}',
    ],
)
def test_whatever_the_body_is_the_response_is_that_of_the_route(client: Any, filled: object, body: bytes) -> None:
    # No question is answered before the route until one of its shape was quick.
    for limit_s in (0.2, 0.3, 0.4):
        assert client.post("/recommend", json={"subject": "net", "max_latency_s": limit_s}).status_code == 200
    quick, routed = (client.post("/recommend", content=body, headers=headers) for headers in (JSON, ROUTED))
    assert (quick.status_code, quick.content) == (routed.status_code, routed.content)
