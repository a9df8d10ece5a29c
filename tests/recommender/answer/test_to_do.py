"""What to measure: a command that works, with the time that it takes."""

from typing import Any

import pytest

from tests.recommender.test_answer import ask, chosen


def noisy(writer: Any, *latencies_s: float, **environment: Any) -> None:
    """Store one strategy whose rounds differ."""
    key = writer.environment(**environment)
    writer.declare(key, "identity", "mobile")
    for number, latency_s in enumerate(latencies_s):
        writer.measure(key, "identity", "mobile", latency_s, number=number)
    writer.judge(key, "identity", 90.0)


def test_more_rounds_of_the_recommended_strategy_are_planned(client: Any, writer: Any) -> None:
    noisy(writer, 0.09, 0.1, 0.11)
    near, far = ask(client, max_latency_s=0.105), ask(client, max_latency_s=0.112)
    for answer in (near, far):
        assert answer["status"] in ("likely", "open") and chosen(answer) == ("identity", "mobile")
        assert answer["to_do"]["command"].startswith("runner fill-catalog --rounds ")
        assert answer["to_do"]["command"].endswith(" --only net:identity:mobile")
        assert answer["to_do"]["words"] in answer["summary"]
    rounds = [int(answer["to_do"]["command"].split()[3]) for answer in (near, far)]
    assert rounds[0] > rounds[1] > 3, "a wider budget needs fewer rounds"
    assert ask(client, max_latency_s=0.5)["to_do"] is None
    hopeless = ask(client, max_latency_s=0.1005)["to_do"]
    assert hopeless["command"] is None and "Not even 60 rounds" in hopeless["words"]


def test_a_later_look_needs_more_rounds(client: Any, writer: Any) -> None:
    noisy(writer, 0.09, 0.1, 0.11)

    def rounds_at(look: int, share: float) -> int:
        with writer.database.session() as session:
            session.connection().exec_driver_sql(f"UPDATE measurement SET look = {look}, error_share = {share}")
            session.commit()
        return int(ask(client, max_latency_s=0.112)["to_do"]["command"].split()[3])

    assert rounds_at(3, 1 / 12) > rounds_at(1, 1 / 2) > 3


def test_the_command_measures_in_the_same_environment(client: Any, writer: Any) -> None:
    noisy(writer, 0.09, 0.1, 0.11, launcher="process", scale="1/8")
    assert ask(client, max_latency_s=0.112)["to_do"]["command"].endswith(" --launcher process --scale 1/8")


def test_minutes_come_from_the_rounds_so_far(client: Any, writer: Any) -> None:
    noisy(writer, 0.09, 0.1, 0.11)
    # The builder's rounds start and end at the same moment, so nothing is known.
    assert ask(client, max_latency_s=0.112)["to_do"]["minutes"] is None
    with writer.database.session() as session:
        session.connection().exec_driver_sql(
            "UPDATE measurement SET finished_at = replace(finished_at, ':00:00', ':01:00')"
        )
        session.commit()
    to_do = ask(client, max_latency_s=0.112)["to_do"]
    more = int(to_do["command"].split()[3]) - 3
    assert to_do["minutes"] == pytest.approx(more) and " more minute" in to_do["words"]


def test_rounds_do_not_help_where_items_are_too_few(client: Any, writer: Any) -> None:
    environment = writer.environment()
    for operator, accuracy in (("identity", 90.0), ("quantized", 89.5)):
        writer.strategy(environment, operator, "mobile", 0.1)
        writer.judge(environment, operator, accuracy, items=200)
    answer = ask(client, max_accuracy_drop_pp=1.0, forbid_operators=["identity"])
    assert answer["to_do"]["command"] is None and "validation items" in answer["to_do"]["words"]


def test_a_missing_accuracy_is_measured_alone(client: Any, writer: Any) -> None:
    environment = writer.environment()
    for operator in ("identity", "quantized"):
        writer.strategy(environment, operator, "mobile", 0.1)
    writer.judge(environment, "identity", 90.0)
    answer = ask(client, max_accuracy_drop_pp=1.0, forbid_operators=["identity"])
    assert (answer["recommendation"], answer["status"]) == (None, "unmeasured")
    assert answer["to_do"]["command"] == "runner fill-catalog --only net:quantized:mobile"


def test_what_was_not_measured_and_could_change_the_answer_is_named(client: Any, filled: Any) -> None:
    filled.declare(1, "early_exit", "mobile")
    answer = ask(client, max_latency_s=0.01)
    assert answer["status"] == "infeasible" and answer["infeasible"]["status"] == "proven"
    assert answer["to_do"]["command"] == "runner fill-catalog --only net:early_exit:mobile"
