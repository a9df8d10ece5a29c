"""What an answer says of a strategy whose answers were not judged, or are worse."""

from typing import Any

import pytest

from catalog.artifact_details import Agreement, OutputDistance
from tests.recommender.test_answer import ask, chosen

FAR = OutputDistance(32, "calibration", 0.8, 0.6, True, Agreement(11, 32, 0.186, 0.532))
NEAR = OutputDistance(32, "calibration", 0.021, 0.9998, True)
BROKEN = OutputDistance(32, "calibration", None, None, False)


@pytest.fixture
def timed(writer: Any) -> Any:
    """Store identity and two faster operators, none of them judged."""
    environment = writer.environment()
    writer.strategy(environment, "identity", "mobile", 0.1)
    writer.strategy(environment, "quantized", "mobile", 0.08)
    writer.strategy(environment, "early_exit", "mobile", 0.05)
    return writer


def test_what_changes_outputs_unjudged_is_not_the_head_line(client: Any, timed: Any) -> None:
    timed.compare_outputs("early_exit", FAR)
    timed.compare_outputs("quantized", BROKEN)
    answer = ask(client, max_latency_s=1.0)
    assert chosen(answer) == ("identity", "mobile")
    assert answer["recommendation"]["quality"] is None
    figure = "outputs differ from identity's by 80 % (relative error over 32 inputs)"
    assert "faster is early_exit on mobile" in answer["recommendation"]["why"]
    assert figure in answer["recommendation"]["why"] and figure in answer["summary"]
    assert {alternative["operator"] for alternative in answer["alternatives"]} == {"early_exit", "quantized"}
    assert any(figure in warning for warning in answer["warnings"])
    assert any("quantized" in warning and "not finite" in warning for warning in answer["warnings"])


def test_an_unknown_distance_is_no_small_one(client: Any, timed: Any) -> None:
    answer = ask(client, max_latency_s=1.0)
    assert chosen(answer) == ("identity", "mobile")
    assert "is not known" in answer["recommendation"]["why"]
    assert any("nothing was measured of the answers of" in warning for warning in answer["warnings"])


def test_a_near_one_is_chosen_with_its_figure(client: Any, timed: Any) -> None:
    timed.compare_outputs("early_exit", FAR)
    timed.compare_outputs("quantized", NEAR)
    answer = ask(client, max_latency_s=1.0)
    assert chosen(answer) == ("quantized", "mobile")
    said = "nothing was measured of the quality of its answers: outputs differ from identity's by 2.1 %"
    assert answer["recommendation"]["quality"].startswith(said) and said in answer["summary"]
    assert answer["recommendation"]["distance"]["relative_error"] == 0.021
    assert answer["recommendation"]["distance"]["warning"] is None


def test_where_only_it_is_feasible_it_is_chosen_and_said(client: Any, timed: Any) -> None:
    timed.compare_outputs("early_exit", FAR)
    answer = ask(client, max_latency_s=0.06)
    assert chosen(answer) == ("early_exit", "mobile")
    assert "nothing was measured of the quality" in answer["recommendation"]["quality"]
    assert "80 %" in answer["summary"] and "the same first class in 11 of 32 (19 to 53 %)" in answer["summary"]


@pytest.mark.parametrize("objective", ["size", "sent", "cpu", "accuracy"])
def test_no_objective_prefers_it(client: Any, timed: Any, objective: str) -> None:
    timed.compare_outputs("early_exit", FAR)
    assert chosen(ask(client, objective=objective)) == ("identity", "mobile")


def test_a_cut_that_is_bit_identical_needs_no_word(client: Any, writer: Any) -> None:
    environment = writer.environment()
    writer.strategy(environment, "identity", "mobile", 0.1)
    writer.strategy(environment, "partition", "mobile-edge", 0.05)
    assert chosen(ask(client)) == ("identity", "mobile")
    writer.prove_equal("partition")
    answer = ask(client)
    assert chosen(answer) == ("partition", "mobile-edge") and answer["recommendation"]["quality"] is None


def test_a_known_drop_is_in_the_head_where_no_accuracy_budget_was_asked(client: Any, filled: Any) -> None:
    loss = "it loses 0.50 pp of top1 against identity; no accuracy budget was asked"
    answer = ask(client)
    assert chosen(answer) == ("quantized", "mobile")
    assert answer["recommendation"]["quality"] == loss and loss in answer["summary"]
    assert ask(client, max_accuracy_drop_pp=5)["recommendation"]["quality"] is None


def test_a_judged_one_keeps_its_place_and_its_warning_is_shown(client: Any, filled: Any) -> None:
    filled.compare_outputs("quantized", FAR)
    answer = ask(client)
    assert chosen(answer) == ("quantized", "mobile")
    assert "outputs differ from identity's by 80 %" in answer["recommendation"]["quality"]
    assert any(warning.startswith("quantized: outputs differ") for warning in answer["warnings"])


def test_every_resource_that_lists_strategies_has_the_distance(client: Any, timed: Any) -> None:
    timed.compare_outputs("early_exit", FAR)
    rows = {row["operator"]: row for row in client.get("/strategies").json()["strategies"]}
    assert rows["early_exit"]["distance"]["agreement"] == {"agreeing": 11, "items": 32, "low": 0.186, "high": 0.532}
    assert rows["identity"]["distance"] is None
    assert client.get("/strategies/net:early_exit:mobile").json()["strategy"]["distance"]["warning"]


@pytest.mark.parametrize("distance", ["far", [], {"relative_error": "x"}, {"agreement": [], "inputs": None}, None])
def test_a_distance_that_another_wrote_unsoundly_is_unknown(client: Any, timed: Any, distance: object) -> None:
    timed.artifact_details("early_exit", {"distance": distance, "proof": distance})
    assert "is not known" in ask(client)["recommendation"]["why"]


TWO_CLASSES = {"0": 1091, "1": 909}


def test_an_agreement_at_chance_is_remarked_and_not_the_head_line(client: Any, timed: Any) -> None:
    for operator, agreement in (("identity", 100.0), ("quantized", 98.0), ("early_exit", 54.55)):
        timed.judge(1, operator, agreement, metric="agreement", class_counts=TWO_CLASSES)
    answer = ask(client, max_latency_s=1.0)
    assert chosen(answer) == ("quantized", "mobile")
    assert answer["recommendation"]["quality"].startswith("it answers as identity does in 98.00 % of 2000 items")
    constant = "always answering class 0, which gives 54.55 % of these 2000 items"
    remark = f"agreement 54.55 % cannot be distinguished from {constant}"
    assert f"early_exit: {remark}" in answer["warnings"] and remark in answer["recommendation"]["why"]
    early_exit = next(alternative for alternative in answer["alternatives"] if alternative["operator"] == "early_exit")
    assert early_exit["accuracy"]["remark"] == remark


def test_an_accuracy_at_chance_is_remarked_even_of_identity(client: Any, timed: Any) -> None:
    timed.judge(1, "identity", 95.0, class_counts={"0": 1900, "1": 100})
    answer = ask(client, max_latency_s=1.0)
    assert chosen(answer) == ("identity", "mobile")
    assert "top-1 accuracy 95.00 % cannot be distinguished from always" in answer["recommendation"]["quality"]
    assert any(warning.startswith("identity: top-1 accuracy 95.00 %") for warning in answer["warnings"])


def test_data_of_one_class_is_remarked_once_for_all_operators(client: Any, filled: Any) -> None:
    environment = filled.environment(key="env-b")
    for operator in ("identity", "quantized"):
        filled.strategy(environment, operator, "mobile", 0.1, day=3)
        filled.judge(environment, operator, 100.0, class_counts={"7": 2000})
    answer = ask(client, environment="env-b")
    said = "identity and quantized: all 2000 items are of class 7: an accuracy on one class says nothing"
    assert answer["warnings"].count(said) == 1
    identity = f"/evidence/{answer['recommendation']['accuracy_evidence_id']}"
    assert client.get(identity).json()["class_counts"] == {"7": 2000}
