"""The resources to read, over the real application and a real database."""

from typing import Any

import pytest

from recommender.errors import FILL_COMMAND
from recommender.ranking import pareto_front

pytestmark = pytest.mark.both_databases


def test_leaderboard_is_in_order_with_the_front_marked(client: Any, filled: object) -> None:
    body = client.get("/leaderboard", params={"subject": "net"}).json()
    assert [row["id"] for row in body["strategies"]] == [
        "net:quantized:mobile",
        "net:identity:mobile",
        "net:quantized:edge",
        "net:identity:edge",
    ]
    assert [row["rank"] for row in body["strategies"]] == [1, 2, 3, 4]
    assert [row["pareto"] for row in body["strategies"]] == [True, True, False, False]
    assert body["percentile"] == 90 and body["environment"]["key"] == "env-a"


def test_pareto_holds_the_front_alone(client: Any, filled: object) -> None:
    body = client.get("/pareto", params={"subject": "net", "percentile": 50}).json()
    assert [row["id"] for row in body["strategies"]] == ["net:quantized:mobile", "net:identity:mobile"]
    assert body["percentile"] == 50


def test_strategies_without_accuracy_are_named_apart(client: Any, writer: Any) -> None:
    writer.strategy(writer.environment(), "identity", "mobile", 0.1)
    body = client.get("/pareto", params={"subject": "net"}).json()
    assert body["strategies"] == [] and body["without_accuracy"] == ["net:identity:mobile"]


def test_front_keeps_equal_points_and_drops_dominated_ones() -> None:
    points = [(2.0, 90.0), (1.0, 80.0), (1.0, 70.0), (2.0, 90.0), (3.0, 90.0), (0.1, None)]
    assert pareto_front(points) == {0, 1, 3}
    assert pareto_front([]) == frozenset()


def test_percentiles_outside_their_range_are_refused(client: Any, filled: object) -> None:
    for percentile in ("0", "100", "nan", "inf", "x"):
        response = client.get("/leaderboard", params={"subject": "net", "percentile": percentile})
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "percentile"


def test_strategy_leads_to_its_evidence(client: Any, filled: object) -> None:
    body = client.get("/strategies/net:quantized:edge").json()
    assert body["strategy"]["status"] == "complete" and body["artifact_sha256"] == {"whole.onnx": "ab" * 32}
    latency = client.get(f"/evidence/{body['latency_evidence_id']}").json()
    assert latency["kind"] == "latency" and [one_round["round"] for one_round in latency["rounds"]] == [0, 1, 2]
    assert latency["rounds"][0]["samples"] == 30 and latency["rounds"][0]["max_s"] == pytest.approx(0.16)
    accuracy = client.get(f"/evidence/{body['accuracy_evidence_id']}").json()
    assert accuracy["kind"] == "accuracy" and accuracy["top1_pct"] == 89.5 and accuracy["environment"] == "env-a"


def test_strategy_without_evidence_has_no_evidence_ids(client: Any, filled: Any) -> None:
    filled.declare(1, "early_exit", "cloud")
    body = client.get("/strategies/net:early_exit:cloud").json()
    assert body["latency_evidence_id"] is None and body["accuracy_evidence_id"] is None
    assert body["strategy"]["status"] == "missing"


def test_unknown_strategy_names_the_nearest(client: Any, filled: object) -> None:
    response = client.get("/strategies/net:quantised:edge")
    assert response.status_code == 404 and response.json()["nearest"] == "net:quantized:edge"
    for strange in ("nonsense", "net", "net:a:b:c", "%00"):
        assert client.get(f"/strategies/{strange}").json()["type"].endswith("unknown-strategy")


def test_unknown_evidence_says_where_ids_are(client: Any, filled: object) -> None:
    response = client.get("/evidence/nonsense")
    assert response.status_code == 404
    assert "GET /strategies/{id}" in response.json()["detail"]


def test_coverage_without_anything_missing_has_no_command(client: Any, filled: Any) -> None:
    assert client.get("/coverage").json()["coverage"][0]["command"] is None


def test_coverage_says_what_is_missing_and_the_command(client: Any, filled: Any) -> None:
    filled.declare(1, "early_exit", "cloud")
    filled.declare(1, "early_exit", "mobile", rounds=3)
    filled.measure(1, "early_exit", "mobile", 0.1)
    filled.declare(1, "partition", "mobile-edge", refused="no balanced cut")
    row = client.get("/coverage").json()["coverage"][0]
    assert (row["declared"], row["complete"], row["partial"], row["missing"], row["inapplicable"]) == (7, 4, 1, 1, 1)
    assert (row["rounds"], row["rounds_declared"]) == (13, 18)
    assert set(row["to_measure"]) == {"net:early_exit:cloud", "net:early_exit:mobile"}
    assert row["command"] == FILL_COMMAND


def test_slos_are_shown_in_base_units(client: Any, filled: object) -> None:
    assert client.get("/slos").json()["slos"] == [
        {
            "name": "interactive",
            "latency": [{"percentile": 90.0, "max_s": 0.15}],
            "min_accuracy_pct": None,
            "max_accuracy_drop_pp": 0.2,
        }
    ]


def test_batch_answers_in_order_and_a_problem_spoils_only_its_own(client: Any, filled: object) -> None:
    questions = [{"subject": "net", "objective": "accuracy"}, {"subject": "nett"}, {"subject": "net"}]
    answers = client.post("/recommend/batch", json={"questions": questions}).json()["answers"]
    assert [answer["answer"] and answer["answer"]["recommendation"]["operator"] for answer in answers] == [
        "identity",
        None,
        "quantized",
    ]
    assert answers[1]["problem"]["nearest"] == "net" and answers[1]["problem"]["status"] == 404
    assert answers[2]["answer"] == client.post("/recommend", json={"subject": "net"}).json()


def test_batches_have_a_size(client: Any, filled: object) -> None:
    for count in (0, 101):
        response = client.post("/recommend/batch", json={"questions": [{"subject": "net"}] * count})
        assert response.status_code == 422 and response.json()["errors"][0]["field"] == "questions"


def test_alive_without_evidence_but_not_ready(client: Any) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/readyz").status_code == 503


def test_metrics_count_by_route_and_tell_of_the_evidence(client: Any, filled: object) -> None:
    client.get("/strategies/net:identity:edge")
    client.get("/strategies/other")
    client.get("/nowhere/at/all")
    client.request("INVENTED", "/subjects")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    lines = response.text.splitlines()
    template = 'tierwise_requests_total{method="GET",route="/strategies/{strategy_id}"'
    assert f'{template},status="200"}} 1.0' in lines and f'{template},status="404"}} 1.0' in lines
    assert 'tierwise_requests_total{method="GET",route="(other)",status="404"} 1.0' in lines
    assert any('method="(other)"' in line for line in lines) and not any("INVENTED" in line for line in lines)
    assert "tierwise_ready 1.0" in lines
    assert 'tierwise_strategies{state="measured",subject="net"} 4.0' in lines


def test_metrics_are_there_when_the_evidence_is_not(client: Any) -> None:
    assert "tierwise_ready 0.0" in client.get("/metrics").text.splitlines()


def test_every_operation_is_documented(client: Any) -> None:
    document = client.get("/openapi.json").json()
    paths = "/recommend /recommend/batch /subjects /strategies /strategies/{strategy_id} /evidence/{evidence_id}"
    paths += " /leaderboard /pareto /coverage /slos /links /whatif /healthz /readyz /metrics"
    assert set(document["paths"]) == set(paths.split())
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["summary"] and operation["description"] and "503" in operation["responses"]
    assert document["components"]["schemas"]["BatchRequest"]["examples"]
