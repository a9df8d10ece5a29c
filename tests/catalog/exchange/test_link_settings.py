"""Rows at several rates of a link: one strategy with its settings, and predictions between them without any bytes."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog.errors import ExchangeError
from catalog.evidence.database import Database
from catalog.evidence.link_samples import LinkedStrategy, LinkRate, linked_strategies
from catalog.evidence.loading import strategy_evidence
from catalog.exchange import RowOptions, collect, files_in, import_files, rows_csv
from recommender.whatif.model import Prediction, UnpredictableStrategy, estimate_s, predict, refusal, what_if

HEADER = "subject,operator,placement,input_id,repetition,latency_s,round"
BASE_S, BYTES = 0.05, {"mobile-edge": 40_000, "edge-cloud": 90_000}
RATES = (1e6, 4e6, 1.6e7, 6.4e7)


def latency_s(rates: dict[str, float], item: int, *, adds: bool) -> float:
    """Return the truth: inputs differ in what they compute and in how much they send."""
    taken = [8 * BYTES[link] * (1 + item / 20) / rate for link, rate in rates.items()]
    return BASE_S * (1 + item / 10) + (sum(taken) if adds else max(taken))


def rows(settings: list[dict[str, float]], *, adds: bool = True, columns: tuple[str, ...] = ("edge-cloud",)) -> str:
    lines = [",".join([HEADER, *(f"{link}_bit_per_s" for link in columns)])]
    for rates in settings:
        cells = ",".join(f"{rates[link]:g}" if link in rates else "" for link in columns)
        lines += [
            f"net,identity,cloud,{item}.jpg,0,{latency_s(rates, item, adds=adds)!r},{number},{cells}"
            for number in (1, 2, 3)
            for item in range(10)
        ]
        lines += [
            f"net,identity,mobile,{item}.jpg,0,0.3,{number}," + "," * (len(columns) - 1)
            for number in (1, 2, 3)
            for item in range(10)
            if rates is settings[0]
        ]
    return "\n".join(lines)


def linked(database: Database, directory: Path, content: str) -> dict[str, LinkedStrategy]:
    (directory / "grid.csv").write_text(content)
    import_files(database, [directory / "grid.csv"])
    with database.session() as session:
        (environment,) = {row.environment.id for row in strategy_evidence(session)}
        return {strategy.placement: strategy for strategy in linked_strategies(session, "net", environment)}


def predicted(strategy: LinkedStrategy, **rates: float) -> float:
    requested = {link.replace("_", "-"): LinkRate(rate, rate) for link, rate in rates.items()}
    assert refusal(strategy, requested) is None
    # The estimate alone: the interval and its check cost a hundred times as much and are tested with the predictions.
    return estimate_s(strategy, requested, 90.0)


def true_percentile(rates: dict[str, float], *, adds: bool = True) -> float:
    # Of logarithms, as all answers take it.
    return float(np.exp(np.percentile(np.log([latency_s(rates, item, adds=adds) for item in range(10)]), 90)))


def test_rates_of_a_link_are_settings_of_one_strategy(database: Database, tmp_path: Path) -> None:
    """They were refused, or became an environment for each rate."""
    strategies = linked(database, tmp_path, rows([{"edge-cloud": rate} for rate in RATES]))
    assert [len(strategies[place].evidence) for place in ("cloud", "mobile")] == [4, 1]
    assert strategies["cloud"].links == ("edge-cloud",)
    with database.session() as session:
        evidence = {row.placement: row for row in strategy_evidence(session)}
    # Answers are about the fastest of rates that are as frequent as each other.
    assert evidence["cloud"].conditions["links"][0]["up_bit_per_s"] == RATES[-1]
    assert evidence["cloud"].latency_s.size == 30


def test_settings_go_out_as_they_came_in(database: Database, other: Database, tmp_path: Path) -> None:
    """Rows had only the rate that answers are about."""
    linked(database, tmp_path, rows([{"edge-cloud": rate} for rate in RATES]))
    with database.session() as session:
        written = rows_csv(collect(session), "latencies")
    assert written.count("net,identity,cloud,") == 30 * len(RATES)
    linked(other, tmp_path, written)
    with other.session() as session:
        assert rows_csv(collect(session), "latencies") == written


def test_a_rate_between_the_settings_is_predicted_without_bytes(database: Database, tmp_path: Path) -> None:
    strategies = linked(database, tmp_path, rows([{"edge-cloud": rate} for rate in RATES]))
    for rate in (2e6, 8e6, 3e7, 2e8):
        assert predicted(strategies["cloud"], edge_cloud=rate) == pytest.approx(
            true_percentile({"edge-cloud": rate}), rel=0.01
        )
    prediction = predict(strategies["cloud"], {"edge-cloud": LinkRate(2e6, 2e6)}, 90.0)
    assert isinstance(prediction, Prediction) and prediction.check is not None and prediction.check < 0.01
    # What was measured is answered as measured, and what uses no link stays.
    assert predicted(strategies["cloud"], edge_cloud=4e6) == pytest.approx(
        true_percentile({"edge-cloud": 4e6}), rel=1e-9
    )
    assert predicted(strategies["mobile"], edge_cloud=2e6) == pytest.approx(0.3, rel=1e-9)


@pytest.mark.parametrize("adds", [True, False])
def test_whether_two_links_add_up_is_decided_by_the_evidence(database: Database, tmp_path: Path, adds: bool) -> None:
    columns = ("mobile-edge", "edge-cloud")
    settings = [{"mobile-edge": first, "edge-cloud": second} for first in RATES for second in RATES]
    cloud = linked(database, tmp_path, rows(settings, adds=adds, columns=columns))["cloud"]
    assert cloud.links == columns
    assert len(cloud.hops) == (2 if adds else 1)
    for first, second in ((2e6, 2e6), (8e6, 3e7), (3e7, 2e6)):
        expected = true_percentile({"mobile-edge": first, "edge-cloud": second}, adds=adds)
        assert predicted(cloud, mobile_edge=first, edge_cloud=second) == pytest.approx(expected, rel=0.06)


def test_a_link_that_is_not_asked_about_stays_as_it_is_declared_now(database: Database, tmp_path: Path) -> None:
    """Settings at other rates of the other link were taken for the asked one."""
    columns = ("mobile-edge", "edge-cloud")
    settings = [{"mobile-edge": first, "edge-cloud": second} for first in RATES for second in RATES]
    cloud = linked(database, tmp_path, rows(settings, columns=columns))["cloud"]
    now = cloud.evidence[0].declared["mobile-edge"].up_bit_per_s
    assert now == RATES[-1]
    for rate in RATES:
        expected = true_percentile({"mobile-edge": now, "edge-cloud": rate})
        assert predicted(cloud, edge_cloud=rate) == pytest.approx(expected, rel=1e-9)


def test_a_link_with_one_rate_alone_is_not_predicted(database: Database, tmp_path: Path) -> None:
    columns = ("mobile-edge", "edge-cloud")
    settings = [{"mobile-edge": 1e7, "edge-cloud": rate} for rate in RATES]
    cloud = linked(database, tmp_path, rows(settings, columns=columns))["cloud"]
    expected = true_percentile({"mobile-edge": 1e7, "edge-cloud": 2e6})
    assert predicted(cloud, edge_cloud=2e6) == pytest.approx(expected, rel=0.02)
    refused = predict(cloud, {"mobile-edge": LinkRate(2e6, 2e6)}, 90.0)
    assert isinstance(refused, UnpredictableStrategy)
    assert refused.reason == "mobile-edge was measured at one rate alone, and its bytes were not recorded"


def test_one_setting_without_bytes_says_what_is_missing(database: Database, tmp_path: Path) -> None:
    strategies = linked(database, tmp_path, rows([{"edge-cloud": 1e6}]))
    result = what_if(list(strategies.values()), {"edge-cloud": LinkRate(2e6, 2e6)})
    assert [strategy.placement for strategy in result.unpredictable] == ["cloud"]
    assert (
        result.unpredictable[0].reason == "edge-cloud was measured at one rate alone, and its bytes were not recorded"
    )


def test_one_setting_without_bytes_is_as_measured_where_another_link_is_asked_about(
    database: Database, tmp_path: Path
) -> None:
    """Strategies of another link were refused for their own link's bytes, and left out of the fastest."""
    columns = ("mobile-edge", "edge-cloud")
    cloud = linked(database, tmp_path, rows([{"mobile-edge": 4e6}], columns=columns))["cloud"]
    assert cloud.links == ("mobile-edge",)
    assert predicted(cloud, edge_cloud=2e6) == pytest.approx(true_percentile({"mobile-edge": 4e6}), rel=1e-9)
    assert refusal(cloud, {"mobile-edge": LinkRate(2e6, 2e6)}) is not None


def test_bytes_make_one_setting_enough(database: Database, tmp_path: Path) -> None:
    content = rows([{"edge-cloud": 4e6}])
    lines = [f"{line},{'sent_bytes' if not index else ''}" for index, line in enumerate(content.split("\n"))]
    lines = [
        line + str(round(BYTES["edge-cloud"] * (1 + int(line.split(",")[3][0]) / 20))) if ",cloud," in line else line
        for line in lines
    ]
    cloud = linked(database, tmp_path, "\n".join(lines))["cloud"]
    assert predicted(cloud, edge_cloud=2e6) == pytest.approx(true_percentile({"edge-cloud": 2e6}), rel=0.02)


def test_strategies_that_send_the_same_are_peers_and_help_one_another(database: Database, tmp_path: Path) -> None:
    """Each strategy was fitted for itself, though all that keep the model whole send the same input."""
    rng = np.random.default_rng(4)
    lines = rows([{"edge-cloud": rate} for rate in RATES]).split("\n")
    header, cloud = lines[0], [line for line in lines[1:] if ",cloud," in line]
    noisy = {rate: math.exp(rng.normal(0, 0.2)) for rate in sorted({line.split(",")[7] for line in cloud})}

    def disturbed(line: str) -> str:
        cells = line.split(",")
        return ",".join(["net", "noisy", *cells[2:5], repr(float(cells[5]) * noisy[cells[7]]), *cells[6:]])

    others = [line.replace("identity", name) for name in ("identity", "quantized", "early_exit") for line in cloud]
    cut = [line.replace("identity,cloud", "partition,edge-cloud") for line in cloud]
    (tmp_path / "grid.csv").write_text("\n".join([header, *others, *cut, *map(disturbed, cloud)]))
    import_files(database, [tmp_path / "grid.csv"])
    with database.session() as session:
        (environment,) = {row.environment.id for row in strategy_evidence(session)}
        linked = {strategy.operator: strategy for strategy in linked_strategies(session, "net", environment)}
    assert {peer.operator for peer in linked["noisy"].peers} == {"identity", "quantized", "early_exit"}
    # What a cut sends is its own.
    assert linked["partition"].peers == ()
    alone = replace(linked["noisy"], peers=())
    errors = [
        abs(math.log(predicted(strategy, edge_cloud=5e5) / true_percentile({"edge-cloud": 5e5})))
        for strategy in (linked["noisy"], alone)
    ]
    assert errors[0] < errors[1] / 2


def test_other_links_are_another_environment(database: Database, tmp_path: Path) -> None:
    extra = "net,identity,cloud,x.jpg,0,0.5,1,"
    with pytest.raises(ExchangeError, match="other links than before for net/identity@cloud in grid"):
        linked(database, tmp_path, f"{rows([{'edge-cloud': 1e6}])}\n{extra}")


def test_noise_of_the_settings_is_averaged(database: Database, tmp_path: Path) -> None:
    """A plain fit of a + b / rate gives the slowest setting all the weight."""
    rng = np.random.default_rng(3)
    lines = rows([{"edge-cloud": 1e6 * 1.7**step} for step in range(9)]).split("\n")
    factors = {
        cells[7]: math.exp(rng.normal(0, 0.05))
        for cells in (line.split(",") for line in lines[1:])
        if cells[2] == "cloud"
    }
    noisy = [lines[0]]
    for line in lines[1:]:
        cells = line.split(",")
        cells[5] = repr(float(cells[5]) * factors.get(cells[7], 1.0))
        noisy.append(",".join(cells))
    cloud = linked(database, tmp_path, "\n".join(noisy))["cloud"]
    errors = [
        abs(
            predicted(cloud, edge_cloud=1e6 * 1.7 ** (step + 0.5))
            / true_percentile({"edge-cloud": 1e6 * 1.7 ** (step + 0.5)})
            - 1
        )
        for step in range(8)
    ]
    assert np.median(errors) < 0.05


def by_path(directory: Path, pattern: str, *, repeated: bool = False) -> Path:
    """Write a file for each rate of a cloud strategy, and one of mobile, which `repeated` is there at every rate."""
    for rate in RATES:
        for placement, where in (
            ("cloud", pattern),
            ("mobile", pattern if repeated else pattern.replace("{rate}", "")),
        ):
            if placement == "mobile" and not repeated and rate != RATES[0]:
                continue
            file = directory / "raw" / where.format(rate=f"{rate / 1e6:g}Mbps", tier=placement)
            file.parent.mkdir(parents=True, exist_ok=True)
            taken_s = [latency_s({"edge-cloud": rate}, item, adds=True) for item in range(10)]
            lines = [
                f"{item}.jpg,{repetition},{taken_s[item] if placement == 'cloud' else 0.3!r}"
                for repetition in range(3)
                for item in range(10)
            ]
            file.write_text("\n".join(["image,run,latency_s", *lines]))
    return directory / "raw"


LINK = RowOptions(constants={"link": "edge-cloud"})


def linked_files(database: Database, folder: Path, options: RowOptions = LINK) -> dict[str, LinkedStrategy]:
    import_files(database, files_in([folder]), options=options)
    with database.session() as session:
        (environment,) = {row.environment.id for row in strategy_evidence(session)}
        return {strategy.placement: strategy for strategy in linked_strategies(session, "net", environment)}


@pytest.mark.parametrize(
    ("pattern", "repeated"),
    [
        ("{tier}_{rate}/net_identity.csv", False),
        ("{tier}/{rate}/net_identity.csv", False),
        ("net_identity_{tier}_{rate}.csv", False),
        ("bw_{rate}/net_identity_{tier}.csv", True),
        ("{rate}/{tier}/net_identity.csv", True),
        ("edge-cloud {rate}/net_identity_{tier}.csv", True),
    ],
)
def test_a_rate_in_the_path_is_a_setting_of_the_link(
    database: Database, tmp_path: Path, pattern: str, repeated: bool
) -> None:
    """Folders of rates were refused, and a rate in a file's name became a part of the subject's."""
    options = RowOptions() if "edge-cloud" in pattern else LINK
    strategies = linked_files(database, by_path(tmp_path, pattern, repeated=repeated), options)
    cloud = strategies["cloud"]
    rates = [samples.declared["edge-cloud"].up_bit_per_s for samples in cloud.evidence]
    assert sorted(rates) == list(RATES)
    assert predicted(cloud, edge_cloud=2e6) == pytest.approx(true_percentile({"edge-cloud": 2e6}), rel=0.02)
    assert strategies["mobile"].links == ()


def test_a_rate_in_the_path_of_no_named_link_is_refused_with_what_to_say(database: Database, tmp_path: Path) -> None:
    folder = by_path(tmp_path, "{tier}_{rate}/net_identity.csv")
    with pytest.raises(ExchangeError) as refused:
        import_files(database, files_in([folder]))
    assert "nothing says of which link the rate '1Mbps' in the file's path is" in str(refused.value)
    assert "say it: --set link=edge-cloud, or leave it out: --ignore 1Mbps" in str(refused.value)
    one = folder / "cloud_1Mbps" / "net_identity.csv"
    import_files(database, [one], options=RowOptions(ignored=frozenset({"1Mbps"})))
    with database.session() as session:
        [stored] = strategy_evidence(session)
    assert (stored.subject, stored.placement) == ("net", "cloud")


def test_the_bits_of_a_quantized_model_are_no_rate(database: Database, tmp_path: Path) -> None:
    (tmp_path / "net_8bit_identity_cloud.csv").write_text("image,run,latency_s\na.jpg,0,0.5\n")
    import_files(database, [tmp_path / "net_8bit_identity_cloud.csv"])
    with database.session() as session:
        [stored] = strategy_evidence(session)
    assert (stored.subject, stored.placement) == ("net_8bit", "cloud")


def test_a_rate_in_every_row_is_not_on_the_way_of_what_ends_before_the_link(database: Database, tmp_path: Path) -> None:
    """A strategy on mobile was predicted for another edge-cloud, by 7 % off, since it was said to cross the link."""
    strategies = linked_files(database, by_path(tmp_path, "{rate}/{tier}/net_identity.csv", repeated=True))
    mobile = predict(strategies["mobile"], {"edge-cloud": LinkRate(2e6, 2e6)}, 90.0)
    assert isinstance(mobile, Prediction)
    assert mobile.estimate_s == 0.3
    assert not mobile.predicted
