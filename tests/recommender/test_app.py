"""Questions and refusals over the real application and a real database."""

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from recommender.errors import FILL_COMMAND
from recommender.evidence.snapshots import Snapshots
from recommender.http import questions
from recommender.http.evidence import snapshots
from recommender.ranking import candidates
from recommender.schemas import RecommendRequest


def ask(client: Any, **question: Any) -> dict[str, Any]:
    response = client.post("/recommend", json={"subject": "net", **question})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def chosen(answer: dict[str, Any]) -> tuple[str, str] | None:
    best = answer["recommendation"]
    return (best["operator"], best["placement"]) if best else None


def problem(response: Any, status: int, kind: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["type"] == f"urn:problem-type:tierwise:{kind}"
    assert body["status"] == status and body["title"] and body["detail"]
    assert "Traceback" not in response.text
    return body


def test_feasible_question_names_strategy_evidence_and_next_best(client: Any, filled: object) -> None:
    answer = ask(client, max_latency_s=0.15, max_accuracy_drop_pp=1.0)
    assert chosen(answer) == ("quantized", "mobile")
    best = answer["recommendation"]
    assert best["latency"] == {
        "median_s": pytest.approx(0.08),
        "percentile": 90.0,
        "percentile_s": pytest.approx(0.08),
        "low_s": pytest.approx(0.08),
        "high_s": pytest.approx(0.08),
        "percentile_s_by_round": [pytest.approx(0.08)] * 3,
        "rounds": 3,
        "inputs": 30,
        "samples": 90,
        "predicted": False,
        "predicted_from": None,
    }
    assert best["accuracy"] == {
        "metric": "top1",
        "accuracy_pct": 89.5,
        "low_pct": pytest.approx(88.073, abs=5e-4),  # R: binom.test(1790, 2000)$conf.int
        "high_pct": pytest.approx(90.810, abs=5e-4),
        "drop_pp": 0.5,
        "drop_low_pp": pytest.approx(-0.0093, abs=5e-4),  # R: 100 * (qbeta(0.005, 10, 1991) - qbeta(0.98, 1, 2000))
        "drop_high_pp": pytest.approx(0.9394, abs=5e-4),  # R: 100 * qbeta(0.98, 11, 1990)
        "remark": None,
        "items": 2000,
    }
    assert best["verdicts"] == {"VALID": 3} and best["pareto"]
    assert best["artifact_sha256"] == {"whole.onnx": "ab" * 32}
    assert "1.25 times faster" in best["why"] and "identity on mobile" in best["why"] and "0.50 pp less" in best["why"]
    assert [alternative["latency_ratio"] for alternative in answer["alternatives"]] == [pytest.approx(1.25)]
    assert len(answer["near_misses"]) == 2
    assert answer["environment"]["key"] == "env-a" and answer["environment"]["complete"]
    assert answer["conditions"] == "unloaded, single stream, closed loop"
    assert answer["warnings"] == []


def test_infeasible_question_gets_near_misses_with_each_shortfall(client: Any, filled: object) -> None:
    answer = ask(client, max_latency_s=0.05, min_accuracy_pct=89.9)
    assert answer["recommendation"] is None
    first = answer["near_misses"][0]
    assert (first["operator"], first["placement"]) == ("quantized", "mobile")
    assert first["latency_over_s"] == pytest.approx(0.03)
    assert first["accuracy_short_pp"] == pytest.approx(0.4)
    assert first["drop_over_pp"] is None
    assert len(first["lacks"]) == 2 and "a measured p90 of 80 ms, 60 % over 50 ms" in first["lacks"][0]
    assert answer["near_misses"][1]["accuracy_short_pp"] is None
    assert "quantized on mobile" in answer["summary"]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ({}, ("quantized", "mobile")),
        ({"objective": "accuracy"}, ("identity", "mobile")),
        ({"max_accuracy_drop_pp": 0.2}, ("identity", "mobile")),
        ({"min_accuracy_pct": 88.4, "version": 1}, ("identity", "mobile")),
        ({"min_accuracy_pct": 88.4}, ("quantized", "mobile")),
        ({"max_latency_s": 0.09, "objective": "accuracy"}, ("quantized", "mobile")),
        ({"slo": "interactive"}, ("identity", "mobile")),
    ],
)
def test_each_budget_counts(client: Any, filled: object, question: Any, expected: tuple[str, str]) -> None:
    assert chosen(ask(client, **question)) == expected


def test_slo_is_shown_as_the_budgets_it_stands_for(client: Any, filled: object) -> None:
    assert ask(client, slo="interactive")["budgets"] == {
        "slo": "interactive",
        "latency": [{"percentile": 90.0, "max_s": 0.15}],
        "min_accuracy_pct": None,
        "max_accuracy_drop_pp": 0.2,
        "objective": "latency",
        "confidence": 0.95,
        "equivalent_within": 0.05,
        "cost_of_breaking": 0.6931,
    }


def test_a_share_as_percentile_is_refused_with_what_to_write(client: Any, filled: object) -> None:
    refused = client.post("/recommend", json={"subject": "net", "latency_percentile": 0.9})
    assert refused.status_code == 422
    assert "write 90 for p90" in refused.text
    assert "write 90 for p90" in client.get("/leaderboard", params={"subject": "net", "percentile": 0.9}).text


def test_percentile_beyond_the_inputs_is_undecided_with_what_to_measure(client: Any, filled: object) -> None:
    answer = ask(client, max_latency_s=0.15, latency_percentile=99)
    best = answer["recommendation"]
    assert (answer["status"], best["status"], best["probability"], answer["proven"]) == ("estimated",) * 2 + (None,) * 2
    assert "at least 299 inputs" in best["reason"] and "299" in answer["to_do"]["words"]
    assert ask(client, max_latency_s=0.15, latency_percentile=99, version=1)["recommendation"] is None
    assert {undecided["kind"] for undecided in answer["undecided"]} == {"too_thin"}
    assert "299" in answer["undecided"][0]["to_do"]
    assert len(answer["considered"]) == 4


def test_one_round_alone_is_said_to_describe_only(client: Any, writer: Any) -> None:
    environment = writer.environment()
    writer.declare(environment, "identity", "mobile")
    writer.measure(environment, "identity", "mobile", 0.1)
    answer = ask(client, max_latency_s=0.2)
    assert answer["recommendation"]["status"] == "estimated" and "one round" in answer["recommendation"]["reason"]
    command = "runner recommend net --max-latency 200ms --measure 10m"
    assert answer["to_do"]["command"] == command and command in answer["summary"]
    assert ask(client, max_latency_s=0.2, version=1)["undecided"][0]["kind"] == "one_round"
    assert any("one round" in warning for warning in answer["warnings"])
    assert any("fewer rounds than declared" in warning for warning in answer["warnings"])


def test_unknown_accuracy_is_undecided_when_accuracy_is_asked(client: Any, writer: Any) -> None:
    writer.strategy(writer.environment(), "identity", "mobile", 0.1)
    answer = ask(client, min_accuracy_pct=50)
    assert answer["recommendation"] is None
    assert answer["undecided"][0]["kind"] == "accuracy_missing"


def test_declared_without_evidence_is_not_considered_and_says_the_command(client: Any, filled: Any) -> None:
    filled.declare(1, "early_exit", "cloud")
    filled.declare(1, "partition", "mobile-edge", refused="no balanced cut")
    answer = ask(client)
    missing, refused = answer["not_considered"]
    assert (missing["operator"], missing["reason"], missing["command"]) == (
        "early_exit",
        "not measured yet",
        FILL_COMMAND,
    )
    assert (refused["operator"], refused["reason"], refused["command"]) == ("partition", "no balanced cut", None)
    assert (missing["could_change_answer"], refused["could_change_answer"]) == (True, False)
    assert not answer["environment"]["complete"]


def test_invalid_rounds_do_not_count_and_doubtful_ones_are_told(client: Any, writer: Any) -> None:
    environment = writer.environment()
    writer.declare(environment, "identity", "mobile", rounds=2)
    writer.measure(environment, "identity", "mobile", 0.1, number=0)
    writer.measure(environment, "identity", "mobile", 0.2, number=1, verdict="DOUBTFUL")
    writer.measure(environment, "identity", "mobile", 9.0, number=2, verdict="INVALID")
    answer = ask(client)
    assert answer["recommendation"]["latency"]["percentile_s_by_round"] == pytest.approx([0.1, 0.2])
    assert any("round 1 is marked doubtful" in warning for warning in answer["warnings"])


def test_environments_are_never_mixed(client: Any, filled: Any) -> None:
    other = filled.environment("env-b", launcher="process", scale="1/8")
    filled.declare_as_in(1, other)
    for placement in ("mobile", "edge"):
        for number in range(3):
            filled.measure(other, "identity", placement, 0.001, number=number, day=3)
            filled.measure(other, "quantized", placement, 0.002, number=number, day=3)
    filled.judge(other, "identity", 90.0)
    partial = ask(client)  # newer, but an accuracy is missing: not complete
    assert partial["environment"]["key"] == "env-a"
    assert partial["recommendation"]["latency"]["percentile_s"] == pytest.approx(0.08)
    filled.judge(other, "quantized", 90.0)
    newest = ask(client)
    assert newest["environment"]["key"] == "env-b" and len(newest["considered"]) == 4
    assert newest["recommendation"]["latency"]["percentile_s"] == pytest.approx(0.001)
    assert any("emulated at 1/8" in warning for warning in newest["warnings"])
    assert ask(client, environment="env-a")["environment"]["key"] == "env-a"
    unknown = client.post("/recommend", json={"subject": "net", "environment": "env-c"})
    body = problem(unknown, 404, "unknown-environment")
    assert body["known"] == ["env-a", "env-b"]


def test_new_evidence_is_seen_by_the_next_question(client: Any, filled: Any) -> None:
    assert chosen(ask(client)) == ("quantized", "mobile")
    filled.strategy(1, "early_exit", "mobile", 0.01)
    filled.judge(1, "early_exit", 85.0)
    assert chosen(ask(client)) == ("early_exit", "mobile")


def test_answers_stay_whole_while_a_writer_adds_rounds(client: Any, filled: Any) -> None:
    """A torn read would see a round without all of its samples, or an older count after a newer one."""

    def write() -> None:
        for number in range(3, 15):
            filled.measure(1, "quantized", "mobile", 0.08, number=number)

    seen = []
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not writing.done():
            latency = ask(client)["recommendation"]["latency"]
            assert latency["samples"] == 30 * latency["rounds"]
            seen.append(latency["rounds"])
        writing.result()
    assert seen == sorted(seen)
    assert ask(client)["recommendation"]["latency"]["rounds"] == 15


def test_replaced_database_is_opened_anew(client: Any, filled: Any, path: Path, tmp_path: Path) -> None:
    ask(client)
    filled.database.close()
    aside = tmp_path / "aside.db"
    path.rename(aside)
    problem(client.get("/readyz"), 503, "database-missing")
    aside.rename(path)
    assert client.get("/healthz").json()["status"] == "ok"


def test_unchanged_evidence_is_not_read_again(filled: object, path: Path) -> None:
    snapshots = Snapshots(str(path))
    assert snapshots.current() is snapshots.current()
    snapshots.close()


def test_strategies_subjects_and_health(client: Any, filled: Any) -> None:
    filled.declare(1, "early_exit", "cloud")
    rows = client.get("/strategies", params={"subject": "net"}).json()["strategies"]
    assert len(rows) == 5
    assert {row["status"] for row in rows} == {"complete", "missing"}
    assert [row["latency"] is None for row in rows].count(True) == 1
    subjects = client.get("/subjects").json()
    assert subjects["slos"] == ["interactive"]
    assert subjects["subjects"][0]["measured"] == 4 and subjects["subjects"][0]["strategies"] == 5
    assert client.get("/readyz").json()["subjects"] == 1


def test_unknown_subject_names_the_known_and_the_nearest(client: Any, filled: object) -> None:
    body = problem(client.post("/recommend", json={"subject": "nett"}), 404, "unknown-subject")
    assert (body["known"], body["nearest"]) == (["net"], "net")
    assert "Did you mean 'net'?" in body["detail"] and body["instance"] == "/recommend"
    problem(client.get("/strategies", params={"subject": "other"}), 404, "unknown-subject")


def test_unknown_slo_names_the_known(client: Any, filled: object) -> None:
    body = problem(client.post("/recommend", json={"subject": "net", "slo": "interactiv"}), 404, "unknown-slo")
    assert (body["known"], body["nearest"]) == (["interactive"], "interactive")


@pytest.mark.parametrize(
    ("question", "field", "got", "allowed"),
    [
        ('{"subject": "net", "max_latency_s": -1}', "max_latency_s", "-1", "greater than or equal to 0.000000001"),
        ('{"subject": "net", "max_latency_s": NaN}', "max_latency_s", "NaN", "finite"),
        ('{"subject": "net", "max_latency_s": 1e999}', "max_latency_s", "Infinity", "finite"),
        ('{"subject": "net", "min_accuracy_pct": 101}', "min_accuracy_pct", "101", "less than or equal to 100"),
        ('{"subject": "net", "latency_percentile": "90"}', "latency_percentile", '"90"', "valid number"),
        ('{"subject": "net", "latenzy": 1}', "latenzy", "1", "no such field"),
        ('{"max_latency_s": 1}', "subject", "nothing", "required"),
        ('{"subject": "net", "slo": "a", "min_accuracy_pct": 1}', "(body)", "net", "send either 'slo'"),
        ('{"subject": "\\ud800"}', "subject", "ud800", "string"),
        ('{"subject": "net",', "(body)", "character", "JSON object"),
        ("[]", "(body)", "[]", "JSON object"),
        ("", "(body)", "nothing", "required"),
    ],
)
def test_refused_fields_say_what_was_got_and_what_is_allowed(
    client: Any, filled: object, question: str, field: str, got: str, allowed: str
) -> None:
    response = client.post("/recommend", content=question, headers={"content-type": "application/json"})
    refused = problem(response, 422, "invalid-request")["errors"][0]
    assert refused["field"] == field and got in refused["got"] and allowed in refused["allowed"]


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("/leaderboard?subject=net&percentil=50", "subject, percentile, environment"),
        ("/whatif?subject=net&link=a-b&bandwidth=1mbit", "subject, link, from, to, percentile, points, environment"),
        ("/subjects?subject=net", "none"),
        ("/strategies/net:identity:mobile?environmet=x", "environment"),
    ],
)
def test_parameters_that_nobody_knows_are_refused_with_the_allowed_ones(
    client: Any, filled: object, address: str, allowed: str
) -> None:
    body = problem(client.get(address), 422, "invalid-request")
    assert f"no such parameter; allowed: {allowed}, got " in body["detail"]
    # What watches a service may add its own.
    assert client.get("/healthz?x=1").status_code == 200


def test_a_question_takes_no_parameters_in_the_address_even_if_its_answer_is_known(client: Any, filled: object) -> None:
    ask(client, max_latency_s=0.15)
    again = client.post("/recommend?max_latency_s=0.001", json={"subject": "net", "max_latency_s": 0.15})
    assert "max_latency_s: no such parameter; allowed: none" in problem(again, 422, "invalid-request")["detail"]


def test_bodies_that_break_parsers_are_refused(client: Any, filled: object) -> None:
    for body in (b"[" * 30_000, b'{"subject": "net", "max_latency_s": ' + b"9" * 5000 + b"}", b"\xff\xfe", b"\x00"):
        response = client.post("/recommend", content=body, headers={"content-type": "application/json"})
        assert response.status_code in (400, 422), response.text
        assert response.headers["content-type"] == "application/problem+json"


def test_question_without_json_content_type_is_told(client: Any, filled: object) -> None:
    response = client.post("/recommend", content=b'{"subject": "net"}', headers={"content-type": "text/plain"})
    assert "application/json" in problem(response, 422, "invalid-request")["detail"]


def test_large_bodies_are_refused_declared_or_streamed(client: Any, filled: object) -> None:
    problem(client.post("/recommend", content=b" " * (64 * 1024 + 1)), 413, "body-too-large")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(65):
            yield b" " * 1024

    problem(client.post("/recommend", content=pieces()), 413, "body-too-large")
    fits = b'{"subject": "net"}' + b" " * (64 * 1024 - 18)
    assert client.post("/recommend", content=fits, headers={"content-type": "application/json"}).status_code == 200


def test_missing_database_says_the_command(client: Any) -> None:
    for response in (client.post("/recommend", json={"subject": "net"}), client.get("/readyz")):
        assert "runner fill-catalog" in problem(response, 503, "database-missing")["detail"]
        assert response.headers["retry-after"]


def test_empty_database_says_the_command(client: Any, writer: object) -> None:
    response = client.post("/recommend", json={"subject": "net"})
    assert "runner fill-catalog" in problem(response, 503, "no-evidence")["detail"]


def test_file_without_tables_says_the_command(client: Any, path: Path) -> None:
    path.touch()
    assert "runner fill-catalog" in problem(client.get("/subjects"), 503, "database-missing")["detail"]


def test_file_that_is_no_database_is_told(client: Any, path: Path) -> None:
    path.write_text("this is not a database, and long enough to be read as one" * 100)
    problem(client.get("/subjects"), 503, "evidence-unavailable")


def test_database_from_the_future_is_told(client: Any, filled: Any) -> None:
    with filled.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'r9999'")
    assert "later version" in problem(client.get("/subjects"), 503, "database-version")["detail"]


def test_unexpected_errors_tell_nothing_of_the_inside(client: Any, filled: Any) -> None:
    def fail() -> None:
        raise ZeroDivisionError("the key of the inside is 4711")

    client._transport.app.dependency_overrides[snapshots] = fail
    response = client.get("/subjects")
    problem(response, 500, "internal-error")
    for inside in ("ZeroDivisionError", "4711", "test_app", "fail"):
        assert inside not in response.text and inside not in str(response.headers)


def test_unknown_paths_and_methods_are_problems_too(client: Any) -> None:
    missing, wrong = client.get("/nowhere"), client.request("DELETE", "/recommend")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert wrong.headers["allow"] == "POST"
    for response in (missing, wrong):
        assert response.headers["content-type"] == "application/problem+json"


def test_openapi_documents_examples_and_problems(client: Any) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/recommend"]["post"]
    assert {"200", "404", "413", "422", "500", "503"} <= set(operation["responses"])
    assert list(operation["responses"]["422"]["content"]) == ["application/problem+json"]
    assert document["components"]["schemas"]["RecommendRequest"]["examples"]


def test_liveness_and_other_routes_answer_while_slow_questions_compute(
    live: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than the server has threads."""
    computing, release = threading.Event(), threading.Event()
    respond = questions.respond.answer_json

    def slow(*arguments: Any, **options: Any) -> Any:
        computing.set()
        assert release.wait(timeout=60)
        return respond(*arguments, **options)

    monkeypatch.setattr(questions.respond, "answer_json", slow)
    bodies = [{"subject": "net", "max_latency_s": 0.2, "latency_percentile": 10 + number} for number in range(60)]
    with httpx.Client(base_url=live(), timeout=60) as client, ThreadPoolExecutor(len(bodies)) as senders:
        sent = [senders.submit(client.post, "/recommend", json=body) for body in bodies]
        try:
            assert computing.wait(timeout=60)
            for path in ("/healthz", "/subjects", "/metrics"):
                assert client.get(path, timeout=20).status_code == 200, path
        finally:
            release.set()
        assert {future.result().status_code for future in sent} == {200}


def test_a_batch_is_answered_as_its_questions_are_alone(client: Any, filled: Any) -> None:
    questions = [{"subject": "net", "max_latency_s": 0.2, "latency_percentile": percentile} for percentile in (50, 90)]
    batch = client.post("/recommend/batch", json={"questions": questions})
    assert batch.headers["content-type"] == "application/json"
    alone = [client.post("/recommend", json=question).json() for question in questions]
    assert batch.json() == {"answers": [{"answer": answer, "problem": None} for answer in alone]}


def test_a_batch_computes_the_percentiles_of_its_questions_together(
    client: Any, filled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[tuple[int, ...]] = []
    real = candidates.percentile_intervals

    def noted(samples: Any, percentiles: Sequence[float], **options: Any) -> Any:
        together.append(tuple(percentiles))
        return real(samples, percentiles, **options)

    monkeypatch.setattr(candidates, "percentile_intervals", noted)
    # A name that is not declared, in between, concerns its own question alone.
    questions: list[dict[str, object]] = [
        {"subject": "net", "max_latency_s": 0.2, "latency_percentile": 60 + number} for number in range(20)
    ]
    questions[1:1] = [{"subject": "net", "slo": "none"}, {"subject": "other"}]
    answers = client.post("/recommend/batch", json={"questions": questions}).json()["answers"]
    assert [answer["problem"] is None for answer in answers] == [True, False, False, *[True] * 19]
    taken = [percentiles for percentiles in together if set(percentiles) & set(range(60, 80))]
    measured = len(client.post("/recommend", json=questions[0]).json()["considered"])
    assert measured and taken == [tuple(range(60, 74))] * measured + [tuple(range(74, 80))] * measured


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latency_percentile", 1e-300),
        ("latency_percentile", 100.0),
        ("confidence", 1 - 2**-53),
        ("max_latency_s", 1e-300),
        ("max_latency_s", 1e308),
        ("max_sent_bytes", 5e-324),
        ("max_memory_bytes", {"edge": 1e300}),
        ("equivalent_within", -1e-300),
        ("cost_of_breaking", 10.000001),
    ],
)
def test_ranges_have_closed_edges(client: Any, filled: object, field: str, value: object) -> None:
    refused = client.post("/recommend", json={"subject": "net", field: value})
    assert refused.status_code == 422 and refused.json()["errors"][0]["field"].startswith(field)


def test_every_edge_of_a_range_is_answered(client: Any, filled: object) -> None:
    """The least and the largest value of every field, all of them at once and each with the usual others."""
    schema = RecommendRequest.model_json_schema()["properties"]
    edges: dict[str, list[float]] = {}
    for name, declared in schema.items():
        for form in declared.get("anyOf", [declared]):
            if form.get("type") == "number" and name != "latency_percentile":
                assert "exclusiveMinimum" not in form and "exclusiveMaximum" not in form, name
                edges[name] = [form["minimum"], form["maximum"]]
    edges["latency_percentile"] = [1.0, 100 - 2**-46]
    both = ("min_accuracy_pct", "max_accuracy_drop_pp")
    questions: list[dict[str, object]] = [{name: value} for name, values in edges.items() for value in values]
    questions += [{name: values[end] for name, values in edges.items()} for end in (0, 1)]
    questions += [
        {"objective": name, "max_latency_s": 1e-9, both[0]: 100} for name in ("accuracy", "size", "sent", "cpu")
    ]
    assert len(edges) == 8
    for question in questions:
        assert client.post("/recommend", json={"subject": "net", **question}).status_code == 200, question
