"""`runner whatif` as a user types it, over a real database."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from catalog.evidence.database import open_database
from runner.cli import app, run
from tests.recommender.conftest import Writer
from tests.recommender.test_link_samples import measure


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Store partition@edge-cloud measured at 10 Mbit/s, 60 ms there; identity@mobile without links, 40 ms."""
    made = str(tmp_path_factory.mktemp("whatif") / "evidence.db")
    with open_database(made, create=True) as opened:
        writer = Writer(opened, {})
        environment = writer.environment()
        writer.declare(environment, "partition", "edge-cloud")
        for operator in ("identity", "quantized", "early_exit", "quantized_early_exit", "mine"):
            writer.declare(environment, operator, "cloud")
        measure(writer, environment, f"latency:{environment}:net:partition:edge-cloud", 10)
    return made


def whatif(database: str, *arguments: str) -> int:
    return run(lambda: app(["whatif", "net", "-d", database, *arguments]))


def test_a_table_and_a_figure(database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    svg = tmp_path / "whatif.svg"
    assert whatif(database, "--link", "edge-cloud=1mbit..200mbit", "-o", str(svg)) == 0
    said = capsys.readouterr().out
    assert "partition@edge-cloud" in said
    refusal = "no prediction for identity@cloud, quantized@cloud, early_exit@cloud and 2 more: nothing was measured yet"
    assert " ".join(said.split()).count(refusal) == said.count("no prediction for") == 1
    assert "! nothing was measured of the answers of partition" in said
    root = ElementTree.parse(svg).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    lines = [element for element in root.iter() if element.tag.endswith("polyline")]
    assert len(lines) == 2  # one strategy and the fastest


def test_json_has_curves_crossings_and_intervals(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert whatif(database, "--link", "edge-cloud=10mbit", "--json", "--percentile", "50") == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["curves"]) == 1
    assert answer["bit_per_s"][0] == pytest.approx(2.5e6)
    assert all(
        prediction["low_s"] <= prediction["estimate_s"] <= prediction["high_s"] for prediction in answer["predictions"]
    )
    assert {prediction["predicted"] for prediction in answer["predictions"]} == {True, False}


@pytest.fixture(scope="module")
def one_rate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Import rows at one rate without bytes: 50 ms on mobile, 30 ms over edge-cloud at 10 Mbit/s, 40 ms on edge."""
    folder = tmp_path_factory.mktemp("one-rate")
    rows = [
        f"net,identity,{placement},{item},0,{latency_s},{number},{rates}"
        for placement, latency_s, rates in (("mobile", 0.05, ","), ("edge", 0.04, "2e8,"), ("cloud", 0.03, "2e8,1e7"))
        for number in (1, 2, 3)
        for item in range(5)
    ]
    header = "subject,operator,placement,input_id,repetition,latency_s,round,mobile-edge_bit_per_s,edge-cloud_bit_per_s"
    (folder / "rows.csv").write_text("\n".join([header, *rows]))
    assert run(lambda: app(["import", str(folder / "rows.csv"), "-d", str(folder / "rows.db")])) == 0
    return str(folder / "rows.db")


def test_the_measured_rate_is_answered_as_measured_and_others_leave_the_fastest_open(
    one_rate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What crosses the link had no prediction at the measured rate, and the rest was called the fastest."""
    assert whatif(one_rate, "--link", "edge-cloud=10mbit") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "identity@cloud – 30 ms –" in said
    assert "identity@edge * 40 ms 40 ms 40 ms" in said
    assert "at 10 Mbit/s the fastest is identity@cloud (30 ms)" in said
    assert "open at 2.5 Mbit/s, 40 Mbit/s: which is the fastest" in said
    assert "no prediction for identity@cloud: edge-cloud was measured at one rate alone" in said
    assert said.count("fastest") == 2


def test_a_figure_names_no_fastest_where_a_measured_strategy_has_no_curve(one_rate: str, tmp_path: Path) -> None:
    svg = tmp_path / "whatif.svg"
    assert whatif(one_rate, "--link", "edge-cloud=1mbit..20mbit", "-o", str(svg)) == 0
    drawn = svg.read_text()
    assert 'class="best"' not in drawn and "orange" not in drawn
    assert "which is the fastest is open: 1 measured strategy without a prediction" in drawn


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--link", "edge-cloud"], "is no link with its rate"),
        (["--link", "=1mbit"], "is no link with its rate"),
        (["--link", "edge-cloud=5"], "does not parse"),
        (["--link", "edge-cloud=0mbit"], "not a whole number of bits per second"),
        (["--link", "edge-cloud=200mbit..1mbit"], "write the lower rate first"),
        (["--link", "moon-earth=1mbit..2mbit"], "links in use: edge-cloud, mobile-edge"),
        (["--link", "edge-cloud=1mbit..2mbit", "--environment", "moon"], "moon"),
        (["--link", "edge-cloud=1mbit..2mbit", "-o", "/no/such/place.svg"], "cannot be written"),
    ],
)
def test_what_cannot_be_asked_is_one_error(
    database: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert whatif(database, *arguments) == 1
    assert said in " ".join(capsys.readouterr().err.split())
