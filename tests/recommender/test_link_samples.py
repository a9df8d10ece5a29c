"""Settings of the links found in a real database."""

from collections.abc import Mapping
from typing import Any

import pytest

from catalog.evidence.link_samples import linked_strategies
from catalog.evidence.records import LinkBytes
from recommender.whatif import LinkedStrategy, LinkRate, what_if
from tests.evidence_builder import link_probe_record, measurement_record, sample_records
from tests.recommender.conftest import Writer, on

# Its statements are written in SQL.
pytestmark = pytest.mark.both_databases
TIERS = ("mobile", "edge", "cloud")


def measure(
    writer: Writer,
    environment: int,
    key: str,
    mbit: float,
    *,
    sent: int = 50_000,
    stored: Mapping[str, Any] | None = None,
    **changed: Any,
) -> None:
    """Measure three rounds of partition@edge-cloud with this rate of edge-cloud: 20 ms and the wire.

    `changed` are conditions, `stored` other values of the measurements.
    """
    rates = {"mobile-edge": 200e6, "edge-cloud": mbit * 1e6}
    links = [{"name": name, "up_bit_per_s": rate, "down_bit_per_s": rate} for name, rate in rates.items()]
    conditions = {
        "links": links,
        "tiers": [{"name": name} for name in TIERS],
        "placement": ["edge", "cloud"],
        **changed,
    }
    latencies_s = [0.02 + 8 * sent / rates["edge-cloud"]] * 30
    probes = [
        link_probe_record(name, way, declared_bit_per_s=rate, measured_bit_per_s=0.99 * rate)
        for name, rate in rates.items()
        for way in ("up", "down")
    ]
    writer.store_rounds(
        measurement_record(
            environment,
            "net",
            "partition",
            "edge-cloud",
            number,
            latency_key=key,
            started_at=on(2),
            finished_at=on(2),
            conditions=conditions,
            link_probes=probes,
            samples=sample_records(latencies_s, links=[LinkBytes(name, sent, 0) for name in rates]),
            **(stored or {}),
        )
        for number in range(3)
    )


def read_linked(writer: Writer, environment: int) -> tuple[LinkedStrategy, ...]:
    with writer.database.session() as session:
        return linked_strategies(session, "net", environment)


@pytest.fixture
def declared(writer: Writer) -> tuple[Writer, int]:
    environment = writer.environment()
    writer.declare(environment, "partition", "edge-cloud")
    measure(writer, environment, f"latency:{environment}:net:partition:edge-cloud", 10)
    return writer, environment


def test_one_setting_with_its_hops_and_rates(declared: tuple[Writer, int]) -> None:
    [parts] = read_linked(*declared)
    assert parts.hops == (("mobile-edge",), ("edge-cloud",))
    [samples] = parts.evidence
    assert samples.latency_s.shape == (90,)
    assert samples.declared["edge-cloud"] == LinkRate(10e6, 10e6)
    assert samples.probed["edge-cloud"].up_bit_per_s == pytest.approx(9.9e6)
    assert samples.launcher == "docker"


def test_a_real_link_has_the_rate_that_it_carries_and_not_the_expected_one(writer: Writer) -> None:
    environment = writer.environment()
    writer.declare(environment, "partition", "edge-cloud")
    links = [{"name": "edge-cloud", "up_bit_per_s": 50_000_000, "down_bit_per_s": 50_000_000, "real": True}]
    measure(writer, environment, f"latency:{environment}:net:partition:edge-cloud", 10, links=links)
    [parts] = read_linked(writer, environment)
    [samples] = parts.evidence
    assert samples.declared["edge-cloud"] == samples.probed["edge-cloud"] == LinkRate(9.9e6, 9.9e6)
    assert str(samples.real["edge-cloud"]) == "9.9 Mbit/s (9.9 Mbit/s to 9.9 Mbit/s)"
    # 40 ms on the wire at the measured rate; half of that rate takes twice as long.
    [prediction] = what_if([parts], {"edge-cloud": LinkRate(4.95e6, 4.95e6)}).predictions
    assert prediction.estimate_s == pytest.approx(0.02 + 2 * 0.04, rel=0.02)


def test_measurements_on_other_links_count_where_all_else_is_the_same(declared: tuple[Writer, int]) -> None:
    writer, environment = declared
    measure(writer, environment, "once-1mbit", 1)
    measure(writer, environment, "other-bytes", 2, sent=60_000)
    measure(writer, environment, "other-runtime", 5, runtime="0.1")
    [parts] = read_linked(writer, environment)
    assert [samples.declared["edge-cloud"].up_bit_per_s for samples in parts.evidence] == [10e6, 1e6]
    answer = what_if([parts], {"edge-cloud": LinkRate(2e6, 2e6)})
    assert answer.predictions[0].settings == 2


@pytest.mark.parametrize(("pool", "settings"), [("a" * 64, 2), ("b" * 64, 1)])
def test_rounds_that_draw_their_inputs_count_where_rule_and_pool_are_the_same(
    writer: Writer, pool: str, settings: int
) -> None:
    """Each round has inputs of its own, so that those of one round cannot be compared with another's."""
    environment = writer.environment()
    writer.declare(environment, "partition", "edge-cloud")
    rule = {"select": "systematic", "inputs": 30, "tail": False}
    for key, mbit, pool_key, number in (
        (f"latency:{environment}:net:partition:edge-cloud", 10, "a" * 64, 1),
        ("once-1mbit", 1, pool, 2),
    ):
        protocol = rule | {"input_ids": [f"of round {number}"]}
        measure(writer, environment, key, mbit, stored={"protocol": protocol, "pool_key": pool_key})
    [parts] = read_linked(writer, environment)
    assert len(parts.evidence) == settings


def test_what_is_not_known_is_said(writer: Writer) -> None:
    environment = writer.environment()
    writer.declare(environment, "identity", "edge")
    writer.declare(environment, "quantized", "edge", refused="no")
    writer.strategy(environment, "identity", "cloud", 0.1)
    unmeasured, unprobed = read_linked(writer, environment)
    assert "nothing was measured yet" in str(unmeasured.missing)
    answer = what_if([unprobed], {"mobile-edge": LinkRate(1e6, 1e6)})
    assert "neither probed nor declared" in answer.unpredictable[0].reason


def test_on_the_tier_where_requests_start_no_link_is_used_whatever_it_is_called(writer: Writer) -> None:
    """Imported latencies say nothing of links; of a strategy on the client's tier alone it is known."""
    environment = writer.environment()
    placed = {"identity": ("phone", "hub"), "partition": ("phone-hub",)}
    for operator, placements in placed.items():
        for placement in placements:
            writer.declare(environment, operator, placement)
    for tier in ("phone", "hub"):
        record = measurement_record(
            environment,
            "net",
            "identity",
            tier,
            0,
            latency_key=f"latency:{environment}:net:identity:{tier}",
            started_at=on(2),
            finished_at=on(2),
            conditions={},
            samples=sample_records([0.1] * 30),
        )
        writer.store_rounds([record])
    linked = {strategy.placement: strategy for strategy in read_linked(writer, environment)}
    assert linked["phone"].missing is None and linked["phone"].hops == ()
    assert "which links it uses was not recorded" in str(linked["hub"].missing)
