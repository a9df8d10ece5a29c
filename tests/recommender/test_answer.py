"""What every answer carries, over the real application and a real database."""

import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from recommender.answer.respond import respond
from recommender.evidence.snapshots import Snapshots
from recommender.http.questions import AnswerCache
from recommender.schemas import RecommendRequest


def ask(client: Any, **question: Any) -> dict[str, Any]:
    response = client.post("/recommend", json={"subject": "net", **question})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def chosen(answer: dict[str, Any]) -> tuple[str, str] | None:
    best = answer["recommendation"]
    return (best["operator"], best["placement"]) if best else None


@pytest.fixture
def split(filled: Any) -> Any:
    """Store a partition over both tiers too, fastest of all; what tiers used is known for some."""
    filled.declare(1, "partition", "mobile-edge")
    for number in range(3):
        used = {"mobile": (60_000_000 + number, 0.06), "edge": (90_000_000, 0.3)}
        filled.measure(1, "partition", "mobile-edge", 0.01, number=number, used=used)
    filled.judge(1, "partition", 90.0)
    return filled


def test_every_strategy_of_an_answer_names_evidence_that_can_be_fetched(client: Any, split: Any) -> None:
    answer = ask(client, max_latency_s=0.15, max_accuracy_drop_pp=0.6)
    places = [answer["recommendation"], *answer["alternatives"], *answer["near_misses"], *answer["undecided"]]
    assert len(places) == 5
    for place in places:
        latency = client.get(f"/evidence/{place['latency_evidence_id']}").json()
        accuracy = client.get(f"/evidence/{place['accuracy_evidence_id']}").json()
        assert (latency["operator"], latency["placement"]) == (place["operator"], place["placement"])
        assert len(latency["rounds"]) == sum(place["verdicts"].values()) == 3
        assert accuracy["top1_pct"] == place["accuracy"]["accuracy_pct"]
        assert place["accuracy"]["low_pct"] < place["accuracy"]["accuracy_pct"] < place["accuracy"]["high_pct"]
        assert place["artifact_sha256"] == {"whole.onnx": "ab" * 32}
        assert client.get(f"/strategies/{place['id']}").json()["latency_evidence_id"] == place["latency_evidence_id"]


def test_pareto_membership_is_among_the_considered(client: Any, filled: Any) -> None:
    answer = ask(client)
    on_front = {
        (strategy["operator"], strategy["placement"])
        for strategy in (answer["recommendation"], *answer["alternatives"])
        if strategy["pareto"]
    }
    assert on_front == {("quantized", "mobile"), ("identity", "mobile")}
    assert ask(client, allow_tiers=["edge"])["recommendation"]["pareto"]


_SUMMARISED: list[Any] = [
    {},
    {"max_latency_s": 0.15},
    {"max_latency_s": 0.05, "min_accuracy_pct": 89.9},
    {"max_latency_s": 0.15, "latency_percentile": 99.9},
    {"allow_tiers": ["edge"], "forbid_tiers": ["edge"]},
    {"keep_raw_input_on": "mobile", "forbid_tiers": ["mobile"], "forbid_operators": ["identity", "quantized"]},
    {"objective": "cpu"},
    {"objective": "size", "max_accuracy_drop_pp": 0.2},
]


def test_the_summary_is_a_few_sentences(client: Any, filled: object) -> None:
    for question in _SUMMARISED:
        said = ask(client, **question)["summary"]
        assert 2 <= len(re.findall(r"\.(?= [A-Z]|$)", said)) <= 5, said
        assert said[0].isupper() and said.endswith(".") and ".." not in said


def test_excluded_strategies_are_listed_with_reasons(client: Any, split: Any) -> None:
    answer = ask(client, max_memory_bytes={"mobile": 50_000_000}, forbid_tiers=["edge"])
    assert answer["recommendation"] is None and answer["considered"] == []
    excluded_by_name = {(excluded["operator"], excluded["placement"]): excluded for excluded in answer["excluded"]}
    assert len(excluded_by_name) == 5
    broken = excluded_by_name["partition", "mobile-edge"]["breaches"]
    assert {"constraint": "max_memory_bytes", "name": "mobile", "limit": 5e7, "got": 60_000_002.0} in broken
    assert "57.22 MiB, is over the limit of 47.68 MiB" in excluded_by_name["partition", "mobile-edge"]["reason"]
    assert excluded_by_name["identity", "mobile"]["breaches"][0]["got"] is None
    assert "not known" in excluded_by_name["identity", "mobile"]["reason"]
    assert answer["constraints"]["forbid_tiers"] == ["edge"] and answer["constraints"]["allow_tiers"] is None


def test_raw_input_may_be_kept_where_it_arises(client: Any, split: Any) -> None:
    answer = ask(client, keep_raw_input_on="mobile")
    assert chosen(answer) == ("partition", "mobile-edge")
    assert {excluded["placement"] for excluded in answer["excluded"]} == {"edge"}
    assert ask(client)["constraints"] is None


def test_what_tiers_used_is_told_and_decides_the_objective_cpu(client: Any, split: Any) -> None:
    best = ask(client, objective="cpu")["recommendation"]
    assert best["operator"] == "partition"
    assert best["resources"]["memory_bytes"] == {"mobile": 60_000_002, "edge": 90_000_000}
    assert best["resources"]["cpu_s"] == {"mobile": pytest.approx(0.002), "edge": pytest.approx(0.01)}
    warned = ask(client, objective="cpu", forbid_operators=["partition"])["warnings"]
    assert any("CPU" in warning and "not recorded" in warning for warning in warned)


_UNKNOWN: list[Any] = [
    ({"allow_tiers": ["edgy"]}, "unknown-tier", ["edge", "mobile"]),
    ({"max_memory_bytes": {"clowd": 1}}, "unknown-tier", ["edge", "mobile"]),
    ({"keep_raw_input_on": "phone"}, "unknown-tier", ["edge", "mobile"]),
    ({"forbid_operators": ["quantised"]}, "unknown-operator", ["identity", "quantized"]),
    ({"host": "elsewhere"}, "unknown-host", ["h"]),
    ({"scale": "1/3"}, "unknown-scale", ["1"]),
    ({"launcher": "podman"}, "unknown-launcher", ["docker"]),
]


def test_unknown_names_are_problems_that_name_what_exists(client: Any, filled: object) -> None:
    for question, slug, existing in _UNKNOWN:
        response = client.post("/recommend", json={"subject": "net", **question})
        body = response.json()
        assert (response.status_code, body["type"]) == (404, f"urn:problem-type:tierwise:{slug}")
        assert body["known"] == existing


def test_an_environment_is_chosen_by_what_it_is_like_and_says_why(client: Any, filled: Any) -> None:
    for key, launcher, host in (("env-b", "process", "h"), ("env-c", "docker", "g")):
        other = filled.environment(key, launcher=launcher, host=host)
        filled.declare_as_in(1, other)
        filled.measure(other, "identity", "mobile", 0.001, day=5)
    default = ask(client)
    assert default["environment"]["key"] == "env-a"
    assert default["environment_choice"] == {"why": "the newest complete one", "others": 2}
    assert any("2 other environments with evidence were left out" in warning for warning in default["warnings"])
    process = ask(client, launcher="process")
    assert process["environment"]["key"] == "env-b" and any(
        "process launcher" in warning for warning in process["warnings"]
    )
    assert process["environment_choice"] == {"why": "the only one with launcher process", "others": 2}
    assert ask(client, host="g", scale="1")["environment"]["key"] == "env-c"
    assert ask(client, environment="env-b")["environment_choice"]["why"] == "asked for by its key"
    none = client.post("/recommend", json={"subject": "net", "host": "g", "launcher": "process"})
    assert none.status_code == 404
    assert none.json()["known"] == [
        f"host {host}, scale 1, launcher {launcher}"
        for host, launcher in (("g", "docker"), ("h", "docker"), ("h", "process"))
    ]


def test_near_and_undecided_say_how_far_each_budget_is(client: Any, writer: Any) -> None:
    environment = writer.environment()
    writer.declare(environment, "identity", "mobile")
    for number, latency_s in enumerate((0.09, 0.1, 0.11)):
        writer.measure(environment, "identity", "mobile", latency_s, number=number)
    writer.judge(environment, "identity", 90.0)
    answer = ask(client, version=1, max_latency_s=0.105, min_accuracy_pct=80)
    (unproven,) = answer["undecided"]
    assert answer["recommendation"] is None and answer["version"] == 1
    latency, accuracy = unproven["shortfalls"]
    assert (latency["budget"], latency["percentile"], latency["limit"]) == ("max_latency_s", 90.0, 0.105)
    assert latency["over"] < 0 < latency["bound_over"]
    assert latency["bound_over"] == pytest.approx(latency["bound"] - 0.105)
    assert accuracy["over"] == pytest.approx(-10) and accuracy["bound_over"] < 0
    (missed,) = ask(client, max_latency_s=0.05)["near_misses"]
    assert missed["shortfalls"][0]["over"] == pytest.approx(missed["latency_over_s"])


def test_few_items_promise_no_drop_that_they_cannot_show(client: Any, writer: Any) -> None:
    environment = writer.environment()
    for operator, latency_s in (("identity", 0.1), ("quantized", 0.05)):
        writer.declare(environment, operator, "mobile")
        for number in range(3):
            writer.measure(environment, operator, "mobile", latency_s, number=number)
        writer.judge(environment, operator, 100.0, items=83)
    answer = ask(client, max_accuracy_drop_pp=0.01, version=1)
    best, (unproven,) = answer["recommendation"], answer["undecided"]
    assert best["operator"] == "identity" and best["joint_confidence"] == 1.0  # nothing to lose against itself
    assert (best["accuracy"]["drop_low_pp"], best["accuracy"]["drop_high_pp"]) == (0.0, 0.0)
    assert (unproven["operator"], unproven["kind"]) == ("quantized", "unproven")
    (drop,) = unproven["shortfalls"]
    assert (drop["estimate"], drop["items"]) == (0.0, 83) and 3.5 < drop["best_bound"] == drop["bound"] < 5
    assert f"83 items cannot show a drop below {drop['best_bound']:.1f} pp" in unproven["reason"]
    assert f"at least {drop['items_needed']} validation items" in unproven["to_do"]
    alone = ask(client, version=1, max_accuracy_drop_pp=0.01, forbid_operators=["identity"])
    assert alone["recommendation"] is None and "83 items cannot show a drop below 3." in alone["summary"]
    assert 3.5 < alone["relaxation"]["to_value"] < 4
    assert ask(client, max_accuracy_drop_pp=4, forbid_operators=["identity"])["status"] == "proven"
    floor = ask(client, min_accuracy_pct=99)["undecided"][0]
    assert "83 items cannot show an accuracy above 95.67 %" in floor["reason"]


_INFEASIBLE: list[Any] = [
    {"max_latency_s": 0.05},
    {"max_latency_s": 0.05, "min_accuracy_pct": 80},
    {"min_accuracy_pct": 95},
    {"max_accuracy_drop_pp": 0.1, "forbid_operators": ["identity", "partition"]},
    {"max_latency_s": 0.1, "forbid_tiers": ["mobile"]},
    {"max_memory_bytes": {"mobile": 1000}, "allow_tiers": ["mobile", "edge"], "allow_operators": ["partition"]},
    {"max_sent_bytes": 10, "allow_tiers": ["edge"]},
    {"max_model_bytes": {"edge": 2000}, "forbid_tiers": ["mobile"]},
]


def test_the_relaxed_question_over_http_gives_what_was_promised(client: Any, split: Any) -> None:
    for infeasible in _INFEASIBLE:
        question = dict(infeasible)
        if "allow_operators" not in question:
            question = {"forbid_operators": ["partition"], **question}
        question["version"] = 1
        answer = ask(client, **question)
        assert answer["recommendation"] is None
        for relaxed in (answer["relaxation"], *answer["other_relaxations"]):
            value = relaxed["to_value"]
            if relaxed["key"] is not None:
                value = {**question[relaxed["field"]], relaxed["key"]: value} if value is not None else None
            again = ask(client, **{**question, relaxed["field"]: value})
            assert chosen(again) == (relaxed["operator"], relaxed["placement"]), relaxed
            # In words: a reader need not know the fields of a question.
            assert relaxed["words"].startswith(("the ", "without the ")) and relaxed["field"] not in relaxed["words"]


_UNMEASURED: list[Any] = [
    ({}, True, "its latency is open"),
    ({"forbid_tiers": ["cloud"]}, False, "excluded by what is declared: it computes on cloud"),
    ({"keep_raw_input_on": "mobile"}, False, "raw input"),
    ({"max_model_bytes": {"cloud": 100}}, False, "over the limit of 100 B"),
    ({"max_memory_bytes": {"cloud": 100}}, True, "its latency is open"),
    ({"max_accuracy_drop_pp": 0.3}, False, "misses max_accuracy_drop_pp"),
    ({"min_accuracy_pct": 89.0}, False, "cannot promise min_accuracy_pct"),
    ({"min_accuracy_pct": 80.0}, True, "its latency is open"),
    ({"objective": "accuracy"}, False, "below the recommendation's"),
    ({"objective": "size"}, True, "its latency is open"),
]


def test_what_was_not_measured_says_whether_it_could_change_the_answer(client: Any, filled: Any) -> None:
    filled.declare(1, "quantized", "cloud")
    for question, could, because in _UNMEASURED:
        (missing,) = ask(client, **question)["not_considered"]
        assert (missing["could_change_answer"], missing["command"]) == (could, "runner fill-catalog")
        assert because in missing["because"]


def test_warnings_name_doubts_drift_largest_inputs_and_slow_int8(client: Any, writer: Any) -> None:
    environment = writer.environment(scale="1/8")
    for operator, passes, speed in (("identity", [], 1.0), ("int8", ["static_ptq"], 1.5)):
        writer.declare(environment, operator, "edge", passes=passes)
        for number, latency_s in enumerate((0.1, 0.11, 0.12)):
            reason = "host load: 50 %, limit 40 %" if number else "drift: 21 %, limit 20 %"
            writer.measure(
                environment,
                operator,
                "edge",
                latency_s * speed,
                number=number,
                verdict="DOUBTFUL",
                reason=reason,
                inputs_select="largest",
            )
        writer.judge(environment, operator, 90.0)
    said = ask(client)["warnings"]
    assert (
        "6 of the 6 rounds of the considered strategies are DOUBTFUL, mostly for host load (4); "
        "`runner fill-catalog --redo doubtful --scale 1/8` measures them again"
    ) in said
    assert "identity on edge: p90 drifts between rounds, from 100 ms to 120 ms (20 %)" in said
    assert "int8 is slower than float here: int8 on edge takes 1.50 times the p90 of identity on edge" in said
    assert any("largest inputs" in warning for warning in said) and any(
        "emulated at 1/8" in warning for warning in said
    )


def test_int8_is_compared_with_float_in_the_same_rounds(client: Any, writer: Any) -> None:
    """Where a round of one is missing, the others keep their partners."""
    environment = writer.environment()
    for operator, passes, latencies in (
        ("identity", [], {1: 0.30, 2: 0.10, 3: 0.20, 4: 0.20}),
        ("int8", ["static_ptq"], {2: 0.15, 3: 0.30}),
    ):
        writer.declare(environment, operator, "edge", passes=passes)
        for number, latency_s in latencies.items():
            writer.measure(environment, operator, "edge", latency_s, number=number)
        writer.judge(environment, operator, 90.0)

    def warned() -> bool:
        return any("int8 is slower than float here" in warning for warning in ask(client)["warnings"])

    # Two rounds in common show nothing.
    assert not warned()
    writer.measure(environment, "int8", "edge", 0.30, number=4)
    assert warned()
    writer.measure(environment, "int8", "edge", 0.09, number=1)
    assert not warned()


def test_an_answer_tells_the_age_of_its_evidence_and_is_not_kept_beyond_its_day(path: Path, filled: Any) -> None:
    filled.strategy(1, "early_exit", "mobile", 0.01, day=5)
    snapshots = Snapshots(str(path))
    days = iter([date(2026, 1, 5), date(2026, 1, 5), date(2026, 1, 7)])
    answers = AnswerCache(snapshots, day=lambda: next(days))
    question = RecommendRequest(subject="net")
    first, second, third = (answers.json_for(question) for _ in range(3))
    age = respond(snapshots.current(), question, on=date(2026, 1, 5)).age
    snapshots.close()
    assert first is second and third != first
    assert b"measured between 3 days ago and today" in first and b"measured between 5 days ago and 2 days ago" in third
    assert (age.oldest_at, age.newest_at) == tuple(
        datetime(2026, 1, day, 10, tzinfo=UTC).isoformat(timespec="milliseconds") for day in (2, 5)
    )


def test_a_tier_that_only_relays_is_allowed_and_told(client: Any, filled: Any) -> None:
    filled.declare(1, "early_exit", "cloud")
    for number in range(3):
        used = {"mobile": (1, 0.1), "edge": (1, 0.1), "cloud": (1, 0.1)}
        filled.measure(1, "early_exit", "cloud", 0.001, number=number, used=used)
    filled.judge(1, "early_exit", 85.0)
    answer = ask(client, forbid_tiers=["edge"])
    assert chosen(answer) == ("early_exit", "cloud")
    assert any("reached through edge" in warning for warning in answer["warnings"])


_IMPOSSIBLE: list[Any] = [
    ({"allow_tiers": []}, "allow_tiers"),
    ({"allow_tiers": "edge"}, "allow_tiers"),
    ({"max_memory_bytes": {"edge": -1}}, "max_memory_bytes.edge"),
    ({"max_sent_bytes": 0}, "max_sent_bytes"),
    ({"environment": "env-a", "host": "h"}, "(body)"),
]


def test_impossible_constraints_are_refused(client: Any, filled: object) -> None:
    for question, field in _IMPOSSIBLE:
        response = client.post("/recommend", json={"subject": "net", **question})
        assert response.status_code == 422 and response.json()["errors"][0]["field"] == field
