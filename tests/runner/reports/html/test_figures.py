"""Figures: what is drawn where, read back from the SVG."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.analysis import AnalysisSettings, SubjectResult, analyse_subject
from catalog.evidence.database import open_database
from catalog.evidence.loading import slo_evidence, strategy_evidence
from catalog.evidence.reading import Breakdown, LinkTime, TierTimes, mean_breakdowns
from catalog.units import duration
from runner.reports.html.figures import (
    box_plots,
    breakdown_bars,
    pvalue,
    quantile_plot,
    rank_diagram,
    tradeoff_plot,
    tradeoffs,
)
from runner.reports.html.markup import WIDTH, Axis, Figure, Html, Ids, fitted, svg, tag
from runner.reports.html.subject_section import ranking_table


def drawn(figure: Figure | None) -> ElementTree.Element:
    assert figure is not None
    return ElementTree.fromstring(svg(figure, id_="figure"))


def of_class(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in root.iter() if name in (element.get("class") or "").split()]


def at(element: ElementTree.Element, name: str) -> float:
    return float(element.get(name, "nan"))


@pytest.fixture(scope="module")
def result(studied: Path) -> SubjectResult:
    with open_database(studied) as database, database.session() as session:
        return analyse_subject(strategy_evidence(session, subject="fashion-resnet"), AnalysisSettings())


def test_markup_escapes_data_and_keeps_markup() -> None:
    assert tag("p", "a<b", Html("<b>c</b>"), None, title='"&', hidden=True, id=None) == (
        '<p title="&quot;&amp;" hidden>a&lt;b<b>c</b></p>'
    )


def test_ids_are_given_out_once() -> None:
    ids = Ids()
    assert [ids.new("a b", "C"), ids.new("a-b", "c"), ids.new("a", "b-c")] == ["a-b-c", "a-b-c-2", "a-b-c-3"]


@given(low=st.floats(1e-6, 1e3), factor=st.floats(1.0001, 1e6), logarithmic=st.booleans())
def test_ticks_are_few_and_within_the_axis(low: float, factor: float, logarithmic: bool) -> None:
    axis = Axis(low, low * factor, 0, 300, logarithmic)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 8
    assert all(low * (1 - 1e-9) <= tick <= low * factor * (1 + 1e-9) for tick in ticks)
    assert all(-1e-6 <= axis.at(tick) <= 300 + 1e-6 for tick in ticks)


def test_a_log_axis_puts_equal_ratios_at_equal_distances() -> None:
    axis = Axis(0.001, 0.1, 0, 200, logarithmic=True)
    assert [axis.at(latency) for latency in (0.001, 0.01, 0.1, 5.0)] == pytest.approx([0, 100, 200, 200])
    assert axis.ticks() == pytest.approx([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1])


def test_a_long_name_keeps_both_ends() -> None:
    assert fitted("short", 200, size=11) == "short"
    cut = fitted("quantized_early_exit_partition@mobile-cloud", 120, size=11)
    assert cut.startswith("quantized") and cut.endswith("cloud") and "…" in cut and len(cut) == 20


def test_boxes_and_tables_say_one_p50(result: SubjectResult) -> None:
    values = [element.text for element in of_class(drawn(box_plots(result)), "value")]
    tabulated = ranking_table(result)
    for strategy in result.strategies:
        p50 = duration(strategy.interval(50).estimate_s)
        assert p50 in values and f"<td>{p50} <span" in tabulated


def test_boxes_show_quartiles_whiskers_and_outliers(result: SubjectResult) -> None:
    root = drawn(box_plots(result))
    boxes, medians = of_class(root, "box"), of_class(root, "median")
    assert len(boxes) == len(medians) == 18
    whole = np.concatenate([strategy.evidence.latency_s for strategy in result.strategies])
    first = next(strategy for strategy in result.strategies if strategy.name == "identity@mobile")
    q1, median, q3 = np.percentile(first.evidence.latency_s, [25, 50, 75])

    def place(seconds: float) -> float:
        room = 0.04 * np.log(whole.max() / whole.min())
        low, high = np.log(whole.min()) - room, np.log(whole.max()) + room
        return float(4 + (np.log(seconds) - low) / (high - low) * (WIDTH - 8))

    assert at(boxes[0], "x") == pytest.approx(place(q1), abs=0.06)
    assert at(boxes[0], "x") + at(boxes[0], "width") == pytest.approx(place(q3), abs=0.11)
    assert at(medians[0], "x1") == pytest.approx(place(median), abs=0.06)
    whisker = of_class(root, "whisker")[0]
    seconds = first.evidence.latency_s
    inside = seconds[(seconds >= q1 - 1.5 * (q3 - q1)) & (seconds <= q3 + 1.5 * (q3 - q1))]
    assert at(whisker, "x1") == pytest.approx(place(inside.min()), abs=0.06)
    assert at(whisker, "x2") == pytest.approx(place(inside.max()), abs=0.06)
    assert len(of_class(root, "outlier")) == sum(
        strategy.description.outlier_count > 0 for strategy in result.strategies
    )


def test_everything_is_drawn_within_the_figure(result: SubjectResult, studied: Path) -> None:
    with open_database(studied) as database, database.session() as session:
        slos = slo_evidence(session)
    figures = [
        box_plots(result),
        rank_diagram(result),
        *(tradeoff_plot(tradeoff) for tradeoff in tradeoffs(result, slos)),
    ]
    for figure in figures:
        for element in drawn(figure).iter():
            for name, most in (("x", WIDTH), ("x1", WIDTH), ("x2", WIDTH), ("cx", WIDTH)):
                if element.get(name):
                    assert -0.1 <= at(element, name) <= most + 0.1
            for name in ("y", "y1", "y2", "cy"):
                if element.get(name):
                    assert -0.1 <= at(element, name) <= figure.height + 0.1


def test_tie_bars_join_those_that_share_a_letter(result: SubjectResult) -> None:
    root = drawn(rank_diagram(result))
    letters = [letter for strategy in result.strategies for letter in strategy.rank.letters]
    shared = {letter for letter in letters if letters.count(letter) > 1}
    assert len(of_class(root, "tie")) == len(shared) > 0
    dots = sum((element.get("d") or "").count("M") for element in of_class(root, "tied"))
    assert dots == sum(letters.count(letter) for letter in shared)


def test_a_quantile_plot_thins_its_points_and_keeps_the_ends(result: SubjectResult) -> None:
    root = drawn(quantile_plot(result.strategies[0]))
    (points,) = of_class(root, "sample")
    assert 40 < (points.get("d") or "").count("M") <= 60
    assert len(of_class(root, "fit")) == 1


def test_a_constant_strategy_can_be_drawn(filling: Any, made: Any) -> None:
    environment, net = filling.environment(), made.Subject("net")
    filling.declare(environment, [net], [("identity", "mobile")], 1)
    filling.exact(environment, net, {("identity", "mobile"): 0.01}, rounds=1, inputs=1)
    with filling.database.session() as session:
        alone = analyse_subject(strategy_evidence(session), AnalysisSettings())
    for figure in (box_plots(alone), rank_diagram(alone), quantile_plot(alone.strategies[0])):
        assert "nan" not in svg(figure, id_="figure")
    assert breakdown_bars(alone, {}) is None
    assert list(tradeoffs(alone, ())) == []


def test_the_front_is_what_nothing_dominates(result: SubjectResult, studied: Path) -> None:
    with open_database(studied) as database, database.session() as session:
        slos = slo_evidence(session)
    (tradeoff,) = tradeoffs(result, slos)
    assert tradeoff.percentile == 90
    places = {point.strategy.name: (point.latency_s, point.accuracy_pct) for point in tradeoff.points}
    front = {
        name
        for name, (latency, accuracy) in places.items()
        if not any((x <= latency and y >= accuracy) and (x, y) != (latency, accuracy) for x, y in places.values())
    }
    assert {point.strategy.name for point in tradeoff.front} == front
    reference = places["identity@mobile"][1]
    regions = {region.name: (region.latency_s, region.accuracy_pct) for region in tradeoff.regions}
    assert regions == {"interactive": (0.04, reference - 1.0), "batch": (0.2, reference - 6.0)}
    root = drawn(tradeoff_plot(tradeoff))
    assert len(of_class(root, "target")) == 2
    assert len(of_class(root, "best")) == len(front)
    assert "interactive" in [element.text for element in root.iter("text")]


def test_segments_are_shares_of_the_mean(result: SubjectResult) -> None:
    key = next(e.evidence.latency_key for e in result.strategies if e.name == "partition@mobile-edge")
    tiers = (TierTimes("mobile", 0.01, 0.02, 0.0, 0.01), TierTimes("edge", 0.0, 0.04, 0.01, 0.0))
    links = (LinkTime("mobile-edge", 0.0075),)
    root = drawn(breakdown_bars(result, {key: Breakdown(0.1, 0.01, tiers, links)}))
    parts = of_class(root, "part")[5:]  # after the legend
    widths = [(part.get("class", "").split()[1], at(part, "width")) for part in parts]
    assert widths == [
        ("preprocess", 34.0),
        ("compute", 68.0),
        ("serialise", 34.0),
        ("compute", 136.0),
        ("postprocess", 34.0),
        ("transmission", 25.5),
        ("transmission", 8.5),
    ]
    assert [element.text for element in of_class(root, "on-part")] == ["mobile", "edge"]
    assert len(of_class(root, "boundary")) == 3


def test_means_by_part_come_from_the_rounds_that_count(studied: Path) -> None:
    with open_database(studied) as database, database.session() as session:
        evidence = strategy_evidence(session)
        breakdowns = mean_breakdowns(session, evidence)
    assert len(breakdowns) == 36
    for strategy in evidence:
        mean = breakdowns[strategy.latency_key]
        assert mean.latency_s == pytest.approx(float(strategy.latency_s.mean()))
        assert tuple(tier.tier for tier in mean.tiers) == strategy.tiers
        spent = sum(t.preprocess_s + t.compute_s + t.postprocess_s + t.serialise_s for t in mean.tiers)
        assert spent + mean.transmission_s == pytest.approx(mean.latency_s)
        assert mean.other_transmission_s >= -1e-12 and all(link.wire_s > 0 for link in mean.links)
    probed = [strategy for strategy in evidence if strategy.sent_bytes_by_link]
    assert probed and all(
        {link.link for link in breakdowns[strategy.latency_key].links} == set(strategy.sent_bytes_by_link)
        for strategy in probed
    )


@pytest.mark.parametrize(("value", "said"), [(0.0, "< 1e-300"), (2e-247, "2.0e-247"), (0.03125, "0.031"), (1.0, "1")])
def test_pvalues_are_never_zero(value: float, said: str) -> None:
    assert pvalue(value) == said
