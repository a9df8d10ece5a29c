"""Why one strategy and not another: the words for risk, ties and proofs."""

from typing import Any

import pytest

from recommender.schemas import RecommendResponse
from runner.commands.question import Acceptance
from tests.recommender.test_answer import ask, chosen


def store(writer: Any, rounds: dict[str, tuple[float, ...]]) -> None:
    environment = writer.environment()
    for operator, latencies_s in rounds.items():
        writer.declare(environment, operator, "mobile")
        for number, latency_s in enumerate(latencies_s):
            writer.measure(environment, operator, "mobile", latency_s, number=number)
        writer.judge(environment, operator, 90.0)


def test_a_faster_one_that_is_not_sure_is_named_with_its_risk(client: Any, writer: Any) -> None:
    store(writer, {"identity": (0.1, 0.1, 0.1), "quantized": (0.05, 0.09, 0.162)})
    answer = ask(client, max_latency_s=0.102)
    assert chosen(answer) == ("identity", "mobile") and answer["status"] == "proven"
    assert "slower" not in answer["recommendation"]["why"]
    (reason,) = answer["recommendation"]["not_chosen"]
    assert reason.startswith(
        "quantized on mobile is faster (p90 90 ms), but whether it keeps the budgets is less sure ("
    )
    assert (
        "best choice of the 2 within every budget, the risk of a broken budget weighed"
        in answer["recommendation"]["why"]
    )


def test_a_proven_one_that_is_slower_is_the_second_line(client: Any, writer: Any) -> None:
    store(writer, {"identity": (0.165, 0.165, 0.165), "quantized": (0.02, 0.052, 0.135)})
    answer = ask(client, max_latency_s=0.2)
    assert chosen(answer) == ("quantized", "mobile") and answer["status"] == "likely"
    assert answer["proven"]["id"] == "net:identity:mobile" and answer["proven"]["status"] == "proven"
    assert answer["summary"].startswith("Probably quantized on mobile: ")
    assert "Proven already is identity on mobile (p90 165 ms)." in answer["summary"]
    assert answer["recommendation"]["not_chosen"] == [
        "identity on mobile is proven, and takes 3.17 times as long (p90 165 ms)"
    ]
    gate = ask(client, max_latency_s=0.2, version=1)
    assert chosen(gate) == ("identity", "mobile") and gate["proven"] is None


def test_the_short_answer_leaves_the_long_lists_out(client: Any, filled: Any) -> None:
    question = {"max_latency_s": 0.15, "max_accuracy_drop_pp": 0.2}
    full, short = ask(client, **question), ask(client, **question, detail="short")
    assert full["near_misses"] and full["considered"] and full["recommendation"] == short["recommendation"]
    assert (short["near_misses"], short["considered"]) == ([], [])
    assert all(strategy["shortfalls"] == [] for strategy in short["undecided"])


def test_infeasible_is_said_with_its_certainty(client: Any, writer: Any) -> None:
    store(writer, {"identity": (0.09, 0.1, 0.11)})
    proven, open_ = ask(client, max_latency_s=0.01), ask(client, max_latency_s=0.099)
    assert proven["summary"].startswith("Proven: the only considered strategy does not keep every budget")
    best = open_["recommendation"]
    assert open_["infeasible"]["status"] == open_["status"] == best["status"] == "open"
    assert open_["probability"] == best["probability"] == pytest.approx(1 - open_["infeasible"]["probability"])
    assert open_["summary"].startswith(
        "Perhaps identity on mobile: 45 %. The only strategy measured; it has a measured"
    )
    assert (
        best["lacks"][0].startswith("has a measured p90 of 99.7 ms, 0.67 % over 99 ms")
        and best["lacks"][0] in best["reason"]
    )
    assert open_["to_do"]["command"].startswith("runner recommend net --max-latency 99ms --measure ")
    assert open_["near_misses"] == [] and [row["outcome"] for row in open_["considered"]] == ["recommended"]
    gated = ask(client, max_latency_s=0.099, version=1)
    assert gated["recommendation"] is None and gated["status"] == "infeasible" and len(gated["near_misses"]) == 1
    assert "that is open, " in gated["summary"] and gated["probability"] == gated["infeasible"]["probability"]


def test_the_objective_is_named_with_its_figure(client: Any, filled: Any) -> None:
    assert "Smallest of the " in ask(client, objective="size", max_latency_s=1)["summary"]
    assert "iB, p90 " in ask(client, objective="size", max_latency_s=1)["recommendation"]["why"]


def test_a_relaxation_that_proves_nothing_says_how_sure_it_is(client: Any, writer: Any) -> None:
    store(writer, {"identity": (0.1,)})
    answer = ask(client, max_latency_s=0.05)
    assert answer["status"] == "infeasible"
    assert answer["relaxation"]["words"].endswith("gives identity on mobile (estimated)")


def test_without_a_budget_nothing_is_proven(client: Any, writer: Any) -> None:
    store(writer, {"identity": (0.09, 0.1, 0.11), "quantized": (0.05, 0.06, 0.07)})
    answer = ask(client)
    best = answer["recommendation"]
    assert (answer["status"], answer["probability"]) == (best["status"], best["probability"]) == ("estimated", None)
    others = [*answer["alternatives"], *answer["undecided"]]
    assert others and {(other["status"], other["probability"]) for other in others} == {("estimated", None)}
    assert Acceptance("proven").strategy(RecommendResponse.model_validate(answer)) is not None
    assert ask(client, max_latency_s=1.0)["status"] == "proven"


@pytest.mark.parametrize(("rival", "compared"), [("identity", False), ("quantized", True)])
def test_one_operator_without_an_accuracy_gives_the_same_answers_on_two_placements(
    client: Any, writer: Any, rival: str, compared: bool
) -> None:
    environment = writer.environment()
    writer.strategy(environment, "identity", "mobile", 0.1)
    writer.strategy(environment, rival, "edge", 0.2)
    why = ask(client, max_latency_s=1)["recommendation"]["why"]
    assert f"the next best, {rival} on edge" in why
    assert ("whose accuracy cannot be compared" in why) is compared
