"""What an answer says of a stored row is declared with the row: a new column of a summary is sent without more."""

from dataclasses import dataclass, fields
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from sqlalchemy import text

from catalog.evidence import records
from catalog.evidence.records import values_of
from recommender.schemas.answer import BudgetsOut, EnvironmentOut
from recommender.schemas.base import Out, StrategyNameOut
from recommender.schemas.resources import AccuracyEvidenceOut, LinkProbeOut, RecordedOut, RoundOut, SloOut, TierRunOut

# Of processes beside the measurement and of paths on the machine: stored, and not published.
UNPUBLISHED = {"host_load", "findings", "log_tail", "seed", "position"}
RUN = {"tier": "edge", "cpus": 1.0, "memory_bytes": 2**30, "threads": 1, "provider": "cpu"}


@dataclass(frozen=True, kw_only=True)
class CountedRun(records.TierRunRecord):
    """What `TierRunRecord` would be with one counter more."""

    context_switches: records.Count | None = None


class CountedRunOut(RecordedOut, CountedRun, frozen=True):
    """The same of `TierRunOut`."""


@pytest.mark.parametrize(
    ("answer", "row"),
    [
        (EnvironmentOut, records.EnvironmentSummary),
        (TierRunOut, records.TierRunRecord),
        (LinkProbeOut, records.LinkProbeRecord),
        (RoundOut, records.MeasurementSummary),
        (AccuracyEvidenceOut, records.AccuracySummary),
        (StrategyNameOut, records.PlacedOperator),
        (SloOut, records.SloName),
    ],
)
def test_an_answer_has_every_field_of_what_is_published_of_a_row(answer: type[BaseModel], row: Any) -> None:
    assert issubclass(answer, row)
    assert {field.name for field in fields(row)} <= set(answer.model_fields)


def test_what_names_processes_and_places_is_not_published() -> None:
    assert {field.name for field in fields(records.MeasurementBase)} >= UNPUBLISHED
    assert not UNPUBLISHED & set(RoundOut.model_fields)


def test_a_counter_that_a_record_gains_is_sent_and_described() -> None:
    sent = CountedRunOut(**values_of(CountedRun(**RUN, context_switches=3), CountedRun))
    assert sent.model_dump() == RUN | {"context_switches": 3}
    described = CountedRunOut.model_json_schema(mode="serialization")
    assert described["properties"]["context_switches"]["anyOf"][0] == {
        "type": "integer", "minimum": 0, "maximum": 2**31 - 1,
    }  # fmt: skip
    with pytest.raises(ValidationError, match="context_switches"):
        CountedRunOut(**RUN, context_switches=-1)


def test_a_figure_that_was_not_recorded_is_left_out() -> None:
    assert TierRunOut(**RUN).model_dump(mode="json") == RUN
    schema = TierRunOut.model_json_schema(mode="serialization")
    assert schema["required"] == list(RUN) and set(schema["properties"]) == set(TierRunOut.model_fields)


def test_fields_are_sent_in_their_order() -> None:
    assert list(RoundOut.model_fields)[:4] == ["measurement_id", "round", "status", "verdict"]
    assert list(RoundOut.model_fields)[-3:] == ["protocol", "tiers", "links"]
    assert next(iter(BudgetsOut.model_fields)) == "slo" and next(iter(SloOut.model_fields)) == "name"
    with pytest.raises(KeyError, match="latencies"):

        class Misnamed(Out, frozen=True):
            FIRST = ("latencies",)
            latency: float


def test_the_schema_says_what_figures_a_client_may_expect(client: Any) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["TierRunOut"]["properties"]["cpus"] == {"type": "number", "minimum": 0, "maximum": 1e6} | {
        "title": "Cpus"
    }
    assert schemas["RoundOut"]["properties"]["tiers"]["items"] == {"$ref": "#/components/schemas/TierRunOut"}
    # Sent always, though a record may go without.
    assert {"reason", "protocol", "min_s"} <= set(schemas["RoundOut"]["required"])
    assert {"top1_pct", "miou_pct", "class_counts"} <= set(schemas["AccuracyEvidenceOut"]["required"])
    assert schemas["EnvironmentOut"]["properties"]["scale"]["description"].startswith("1, or the common factor")


def test_a_stored_figure_out_of_bounds_costs_its_row_and_not_the_answer(client: Any, filled: Any) -> None:
    key = client.get("/strategies/net:quantized:edge").json()["latency_evidence_id"]
    before = client.get(f"/evidence/{key}").json()
    with filled.database.session() as session:
        measurement_id = before["rounds"][0]["measurement_id"]
        values = {"id": measurement_id, "round": -1}
        session.execute(text("UPDATE measurement SET round = :round WHERE id = :id"), values)
        session.commit()
    after = client.get(f"/evidence/{key}")
    assert after.status_code == 200
    assert after.json()["rounds"] == before["rounds"][1:]


def test_every_answer_refuses_undeclared_fields_by_one_base() -> None:
    assert issubclass(StrategyNameOut, Out) and issubclass(RoundOut, Out) and issubclass(EnvironmentOut, Out)
    assert Out.model_config["extra"] == "forbid" and RecordedOut.model_config["extra"] == "forbid"
