"""`runner report` as a user types it, over imported evidence."""

from pathlib import Path

import pytest

from runner.cli import app, run

ROWS = "subject,operator,placement,input_id,repetition,latency_s,round\n" + "".join(
    f"net,{operator},{placement},{item}.jpg,0,{seconds + 0.0001 * item},{number}\n"
    for operator, seconds in (("identity", 0.2), ("quantized", 0.1))
    for placement in ("mobile", "edge")
    for number in (1, 2, 3)
    for item in range(30)
)
ACCURACIES = (
    "subject,operator,placement,metric,value_pct\n"
    "net,identity,mobile,top1,90\nnet,identity,edge,top1,90\nnet,quantized,mobile,top1,89\nnet,quantized,edge,top1,88\n"
)
CATALOG = """version: 1
subjects: {net: {model: "builtin:digits-resnet", task: classification, dataset: "builtin:digits"}}
operators: {identity: []}
tiers: {mobile: {cpus: 0.5, memory: 512m, provider: cpu}}
strategies: [{operators: [identity], placements: [mobile]}]
analysis: {percentile: 90, equivalent_within: 10%}
"""


@pytest.fixture
def phone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phone.csv").write_text(ROWS)
    (tmp_path / "top1.csv").write_text(ACCURACIES)
    assert run(lambda: app(["import", "phone.csv", "top1.csv", "-d", "lab.db"])) == 0
    return tmp_path


def test_a_report_of_imported_latencies(phone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Medians of 0.2 s and 0.1 s and 0.00145 s more: 0.20145 / 0.10145.
    assert run(lambda: app(["report", "-d", "lab.db", "-o", "out.html"])) == 0
    assert "out.html: 1 subject" in capsys.readouterr().err
    page = (phone / "out.html").read_text()
    assert page.startswith("<!DOCTYPE html>\n<html")
    assert "Imported, not measured here." in page
    assert "phone, imported from phone.csv" in page
    assert "Parts of the latencies are not known." in page
    assert "+1.00, +2.00 (no items)" in page
    assert "On mobile, quantized shows 1.99x lower median latency than identity in net; different." in page


def test_a_report_asks_what_the_catalog_declares(phone: Path) -> None:
    (phone / "asked.yaml").write_text(CATALOG)
    assert run(lambda: app(["report", "-d", "lab.db", "-c", "asked.yaml", "-o", "out.html"])) == 0
    assert "p90 of latency, equivalent within 10 %" in (phone / "out.html").read_text()
    assert run(lambda: app(["report", "-d", "lab.db", "-c", "asked.yaml", "--percentile", "75", "-o", "out.html"])) == 0
    assert "p75 of latency, equivalent within 10 %" in (phone / "out.html").read_text()


def test_a_report_goes_to_stdout_for_pipes(phone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(lambda: app(["report", "-d", "lab.db", "-o", "-"])) == 0
    assert capsys.readouterr().out.endswith("</html>")
    assert not (phone / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-d", "none.db"], "there is no database"),
        (["-d", "lab.db", "--subject", "cat"], "no evidence of cat to report yet"),
        (["-d", "lab.db", "--environment", "moon"], "no environment 'moon' with evidence; there are"),
        (["-d", "lab.db", "-o", "no/such/place.html"], "no/such/place.html: cannot be written"),
    ],
)
def test_what_cannot_be_reported_is_one_error(
    phone: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    capsys.readouterr()
    assert run(lambda: app(["report", *arguments])) == 1
    printed = capsys.readouterr().err
    assert said in " ".join(printed.split())
    assert "Traceback" not in printed
