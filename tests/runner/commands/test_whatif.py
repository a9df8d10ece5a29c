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
