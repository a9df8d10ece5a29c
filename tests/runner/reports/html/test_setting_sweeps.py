"""Families over settings: which strategies differ in one setting alone, and their tests against scipy's and numpy's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scikit_posthocs import posthoc_conover
from scipy.stats import kruskal

from catalog.evidence.loading import strategy_evidence
from catalog.evidence.writing import sync_strategies
from catalog.exchange import import_files
from runner.reports.html.markup import Ids
from runner.reports.html.report_data import gather_report
from runner.reports.html.setting_sweeps import SettingSweep, setting_sweeps, sweep_section, sweep_sentences
from tests.evidence_builder import measurement_record, sample_records, strategy_record

RATES = (1e6, 1e7, 1e8)
BITS = 2e6
COMPUTE_S = {("identity", "mobile"): 0.9, ("identity", "edge"): 0.5, ("identity", "cloud"): 0.2}
FACTORS = np.linspace(0.95, 1.05, 21)


def at_three_bandwidths(filling: Any) -> tuple[SettingSweep, ...]:
    """Return the sweeps of three environments on one host that differ in the rate of edge-cloud."""
    for number, rate in enumerate(RATES):
        environment = filling.environment(str(number) * 64)
        with filling.database.session() as session:
            declared = [strategy_record(environment, "net", *name, passes=[], rounds=1) for name in COMPUTE_S]
            sync_strategies(session, environment, declared)
            session.commit()
        filling.store_rounds(
            measurement_record(
                environment, "net", operator, tier, 1,
                samples=sample_records((compute_s + (BITS / rate if tier == "cloud" else 0.0)) * FACTORS),
                conditions={"links": _links(tier, rate)},
            )
            for (operator, tier), compute_s in COMPUTE_S.items()
        )  # fmt: skip
    return swept(filling)


def _links(tier: str, rate: float) -> list[dict[str, Any]]:
    links = [{"name": "mobile-edge", "up_bit_per_s": 2e8}] if tier != "mobile" else []
    return [*links, {"name": "edge-cloud", "up_bit_per_s": rate}] if tier == "cloud" else links


def swept(filling: Any) -> tuple[SettingSweep, ...]:
    with filling.database.session() as session:
        return setting_sweeps(strategy_evidence(session), adjustment="holm")


def test_only_what_a_link_carries_is_swept_over_its_bandwidth(filling: Any) -> None:
    (sweep,) = at_three_bandwidths(filling)
    assert (sweep.subject, sweep.setting) == ("net", "bandwidth of edge-cloud")
    (cloud,) = sweep.strategies
    assert cloud.strategy == "identity@cloud"
    assert cloud.analysis.members == ("1 Mbit/s", "10 Mbit/s", "100 Mbit/s")
    assert [cloud.median_s(value) for value in cloud.evidence] == [
        float(np.median((0.2 + BITS / rate) * FACTORS)) for rate in RATES
    ]


def test_tests_over_a_setting_are_the_studys(filling: Any) -> None:
    (cloud,) = at_three_bandwidths(filling)[0].strategies
    samples = [(0.2 + BITS / rate) * FACTORS for rate in RATES]
    expected = kruskal(*samples)
    assert np.isclose(cloud.analysis.kruskal_wallis.statistic, expected.statistic)
    for row, own in enumerate(samples):
        for column, other in enumerate(samples):
            delta = np.sign(own[:, None] - other[None, :]).mean()
            assert np.isclose(cloud.analysis.delta[row, column], delta)


def test_the_choice_changes_over_the_setting(filling: Any) -> None:
    (sweep,) = at_three_bandwidths(filling)
    # 2.2 s, 0.4 s and 0.22 s on the cloud, beside 0.5 s on the edge at every rate.
    change, choice = sweep_sentences(sweep)
    samples = [(0.2 + BITS / rate) * FACTORS for rate in RATES]
    p = posthoc_conover(samples, p_adjust="holm").iloc[0, 2]
    assert change.startswith(
        "Identity on cloud: 2.20 s at 1 Mbit/s, 220 ms at 100 Mbit/s, 10.00x lower median latency "
        f"(Conover p {p:.1e}, Cliff's delta large)"
    )
    assert choice == (
        "The lowest median is that of identity on edge at 1 Mbit/s and identity on cloud at 10 Mbit/s and 100 Mbit/s."
    )


def test_exits_of_one_environment_are_a_family(filling: Any, read_page: Any) -> None:
    environment = filling.environment()
    operators = {f"exit_{blocks}": [{"name": "early_exit", "options": {"blocks": blocks}}] for blocks in (1, 2, 3)}
    with filling.database.session() as session:
        declared = [
            strategy_record(environment, "net", operator, "edge", passes=passes, rounds=1)
            for operator, passes in operators.items()
        ]
        sync_strategies(session, environment, declared)
        session.commit()
    filling.store_rounds(
        measurement_record(environment, "net", f"exit_{blocks}", "edge", 1, samples=sample_records(FACTORS / blocks))
        for blocks in (1, 2, 3)
    )
    (sweep,) = swept(filling)
    assert sweep.setting == "blocks of early_exit"
    assert sweep.strategies[0].strategy == "early_exit@edge"
    page = read_page(sweep_section([sweep], Ids()))
    assert "early_exit@edge: Kruskal-Wallis H" in page.text
    assert "blocks: 1 1 s - L L blocks: 2 500 ms -L - L blocks: 3 333 ms -L -L -" in page.text
    assert page.tags.count("svg") == 1


def test_two_swept_settings_are_told_apart(filling: Any, read_page: Any) -> None:
    """The same strategy stood there once for every value of the other setting, which no heading named."""
    for number, (cpus, memory_bytes) in enumerate((cpus, memory) for cpus in (0.5, 1.0) for memory in (2**28, 2**30)):
        environment = filling.environment(str(number) * 64)
        with filling.database.session() as session:
            declared = [strategy_record(environment, "net", "identity", "edge", passes=[], rounds=1)]
            sync_strategies(session, environment, declared)
            session.commit()
        tier = {"name": "edge", "cpus": cpus, "memory_bytes": memory_bytes}
        samples = sample_records(FACTORS / cpus)
        record = measurement_record(environment, "net", "identity", "edge", 1, samples=samples)
        filling.store_rounds([replace(record, conditions={"tiers": [tier]})])
    sweeps = swept(filling)
    assert [sweep.title for sweep in sweeps] == [
        "CPUs of edge at memory of edge 256 MiB",
        "CPUs of edge at memory of edge 1 GiB",
        "memory of edge at CPUs of edge 0.5 CPUs",
        "memory of edge at CPUs of edge 1 CPU",
    ]
    assert all(len(sweep.strategies) == 1 for sweep in sweeps)
    assert "net: CPUs of edge at memory of edge 1 GiB" in read_page(sweep_section(sweeps, Ids())).text


def test_hosts_are_not_compared_over_a_setting(filling: Any) -> None:
    at_three_bandwidths(filling)
    environment = filling.environment("9" * 64, host="another")
    with filling.database.session() as session:
        declared = [strategy_record(environment, "net", "identity", "cloud", passes=[], rounds=1)]
        sync_strategies(session, environment, declared)
        session.commit()
    filling.store_rounds(
        [
            measurement_record(
                environment, "net", "identity", "cloud", 1,
                samples=sample_records(FACTORS),
                conditions={"links": _links("cloud", 5e6)},
            )
        ]
    )  # fmt: skip
    (sweep,) = swept(filling)
    assert len(sweep.strategies[0].evidence) == 3


@pytest.mark.both_databases
def test_rows_at_several_rates_of_a_link_are_swept_in_their_environment(filling: Any, tmp_path: Path) -> None:
    """The section over settings was missing where rows say several rates, which are settings of one strategy."""
    lines = ["subject,operator,placement,input_id,repetition,latency_s,edge-cloud_bit_per_s"]
    seconds = {rate: (0.2 + BITS / rate) * FACTORS for rate in RATES}
    for rate, values in seconds.items():
        lines += [f"net,identity,cloud,{item},0,{value!r},{rate:.0f}" for item, value in enumerate(values.tolist())]
    lines += [f"net,identity,edge,{item},0,{0.5 * factor!r}," for item, factor in enumerate(FACTORS.tolist())]
    (tmp_path / "grid.csv").write_text("\n".join(lines))
    import_files(filling.database, [tmp_path / "grid.csv"])
    (sweep,) = gather_report(filling.database).sweeps
    assert (sweep.subject, sweep.setting) == ("net", "bandwidth of edge-cloud")
    (cloud,) = sweep.strategies
    assert cloud.analysis.members == ("1 Mbit/s", "10 Mbit/s", "100 Mbit/s")
    assert np.isclose(cloud.analysis.kruskal_wallis.statistic, kruskal(*seconds.values()).statistic)
    assert list(sweep_sentences(sweep))[-1] == (
        "The lowest median is that of identity on edge at 1 Mbit/s and identity on cloud at 10 Mbit/s and 100 Mbit/s."
    )


def test_exits_are_compared_once_where_settings_do_not_touch_them(filling: Any) -> None:
    """Settings of other tiers share the rounds of these exits, which stood there once for every such setting."""
    for number, cpus in enumerate((0.5, 0.5, 1.0, 1.0)):
        environment = filling.environment(str(number) * 64)
        passes = {blocks: [{"name": "early_exit", "options": {"blocks": blocks}}] for blocks in (1, 2)}
        with filling.database.session() as session:
            declared = [
                strategy_record(environment, "net", f"exit_{blocks}", "mobile", passes=passes[blocks], rounds=1)
                for blocks in passes
            ]
            sync_strategies(session, environment, declared)
            session.commit()
        tier = {"name": "mobile", "cpus": cpus, "memory_bytes": 2**28}
        records = [
            measurement_record(
                environment, "net", f"exit_{blocks}", "mobile", 1, samples=sample_records(FACTORS / blocks / cpus)
            )
            for blocks in passes
        ]
        filling.store_rounds([replace(record, conditions={"tiers": [tier]}) for record in records])
    exits = [sweep for sweep in swept(filling) if sweep.setting == "blocks of early_exit"]
    assert [(sweep.others, len(sweep.strategies)) for sweep in exits] == [
        ("CPUs of mobile 0.5 CPUs", 1),
        ("CPUs of mobile 1 CPU", 1),
    ]


def test_the_choice_is_among_all_strategies_at_a_value(filling: Any) -> None:
    """Strategies that another setting touches as well have a sweep of their own, in which the others are candidates."""
    for number, (cpus, memory_bytes) in enumerate((cpus, memory) for cpus in (0.5, 1.0) for memory in (2**28, 2**30)):
        environment = filling.environment(str(number) * 64)
        tiers = {
            "mobile": {"name": "mobile", "cpus": cpus, "memory_bytes": 2**28},
            "edge": {"name": "edge", "cpus": 1.0, "memory_bytes": memory_bytes},
        }
        with filling.database.session() as session:
            declared = [
                strategy_record(environment, "net", "identity", "edge", passes=[], rounds=1),
                strategy_record(
                    environment, "net", "partition", "mobile-edge", passes=[{"name": "partition"}], rounds=1
                ),
            ]
            sync_strategies(session, environment, declared)
            session.commit()
        alone = measurement_record(environment, "net", "identity", "edge", 1, samples=sample_records(0.1 * FACTORS))
        parts = measurement_record(
            environment, "net", "partition", "mobile-edge", 1, samples=sample_records(0.5 * FACTORS / cpus)
        )
        filling.store_rounds(
            [
                replace(alone, conditions={"tiers": [tiers["edge"]]}),
                replace(parts, conditions={"tiers": [tiers["mobile"], tiers["edge"]]}),
            ]
        )
    sweeps = {sweep.title: list(sweep_sentences(sweep))[-1] for sweep in swept(filling)}
    assert len(sweeps) == 5
    assert set(sweeps.values()) == {"The lowest median is that of identity on edge at every value."}
