"""The page as a browser and a reader meet it: closed elements, unique ids, no network, captions, nothing unescaped."""

import re
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from catalog.evidence.database import Database, open_database
from catalog.evidence.records import MeasurementRecord
from catalog.evidence.tables import replace_departures
from catalog.evidence.writing import record_measurement
from runner.errors import RunnerError
from runner.reports.html import gather_report, render_report


def page_of(database: Database, **chosen: Any) -> str:
    return render_report(gather_report(database, **chosen), made_at=datetime(2026, 11, 24, 9, 30, tzinfo=UTC))


@pytest.fixture(scope="module")
def html(studied: Path) -> str:
    with open_database(studied) as database:
        return page_of(database)


def test_ids_are_unique_and_every_reference_leads_somewhere(html: str, read_page: Any) -> None:
    page = read_page(html)
    assert len(page.ids) == len(set(page.ids)) > 50
    assert set(page.references) <= set(page.ids)
    assert {address[1:] for address in page.addresses} <= set(page.ids)
    assert set(re.findall(r"url\(#([\w-]+)\)", html)) <= set(page.ids)


def test_the_page_needs_no_network_and_runs_nothing(html: str, read_page: Any) -> None:
    page = read_page(html)
    assert all(address.startswith("#") for address in page.addresses)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", html)


def test_every_table_has_a_caption_and_every_figure_a_title_and_a_description(html: str, read_page: Any) -> None:
    page = read_page(html)
    assert page.tags.count("table") == page.tags.count("caption") > 10
    figures = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]
    drawn = [figure for figure in figures if figure.get("role") == "img"]
    assert len(drawn) == len(figures) - 1 == 2 * (4 + 18)
    for figure in drawn:
        title, description = figure[0], figure[1]
        assert (title.tag, description.tag) == ("title", "desc")
        assert title.text and description.text
        assert figure.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"


def test_no_coordinate_is_unknown(html: str) -> None:
    assert not re.search(r'="[^"]*\b(nan|inf)\b', html)


def test_what_to_deploy_comes_first_then_the_findings_subjects_and_checks(html: str, read_page: Any) -> None:
    headings = read_page(html).headings
    assert headings[:2] == ["Tierwise report", "docker on bench-7"]
    questions = [heading for heading in headings if heading.startswith("RQ")]
    assert [question[:4] for question in questions] == ["RQ1:", "RQ2:", "RQ3:", "RQ4:", "RQ5:"]
    order = ["What to deploy", "What it rests on", "In words", *questions, "fashion-resnet", "canvas-fcn"]
    order += ["Effect sizes", "Accuracies", "Conditions"]
    places = [headings.index(heading) for heading in order]
    assert places == sorted(places)
    assert headings[-1] == "Links and verdicts"


def test_the_conditions_are_stated(html: str, read_page: Any) -> None:
    said = read_page(html).text
    assert "a single stream of requests, one at a time, on unloaded tiers" in said
    assert "30 inputs (chosen at random) in 3 rounds, each input once a round" in said
    assert "docker, docker 20.10, scale 1" in said
    assert "bench-7: EPYC <9> & co, 2 CPUs, 24 GiB" in said
    assert "SLO interactive p90 at most 40 ms, drop at most 1 pp" in said
    assert "mobile-edge up 10 Mbit/s 10 Mbit/s +0.4 to +0.4 % 5 %" in said


def test_what_comes_from_data_is_escaped(filling: Any, made: Any, read_page: Any) -> None:
    hostile = made.Subject('<script>alert("1")</script>&amp;', task="classification")
    environment = filling.environment(host="<img src=x onerror=alert(1)>")
    strategies = [("identity", "mobile"), ("identity", "edge")]
    filling.declare(environment, [hostile], strategies, rounds=2)
    filling.measure(environment, [hostile], strategies, rounds=2, inputs=10)
    html = page_of(filling.database)
    page = read_page(html)
    assert not {"script", "img"} & set(page.tags)
    assert hostile.name in page.text
    assert "<img src=x onerror=alert(1)>" in page.text


def test_environments_are_never_mixed(filling: Any, made: Any, read_page: Any) -> None:
    subject, strategies = made.Subject("net"), [("identity", "mobile"), ("identity", "edge")]
    slow, fast = filling.environment("a" * 64), filling.environment("b" * 64, launcher="process", host="laptop")
    for environment, median_s in ((slow, 0.5), (fast, 0.05)):
        filling.declare(environment, [subject], strategies, rounds=2)
        rounds = 1 if environment == fast else 2
        filling.exact(environment, subject, dict.fromkeys(strategies, median_s), rounds=rounds)
    newest_complete = page_of(filling.database)
    assert "500 ms" in newest_complete and "49.9 ms" not in newest_complete
    assert "Evidence of other environments is not in this report" in read_page(newest_complete).text
    chosen = page_of(filling.database, environment="process")
    assert "49.9 ms" in chosen and "500 ms" not in chosen
    assert page_of(filling.database, environment="bbbb") == chosen
    both = read_page(page_of(filling.database, environment="all"))
    assert [heading for heading in both.headings if " on " in heading] == ["docker on bench-7", "process on laptop"]
    with pytest.raises(RunnerError, match=r"no environment 'phone'.*aaaaaaaaaaaa \(docker\)"):
        page_of(filling.database, environment="phone")


def test_without_evidence_there_is_one_error_that_says_what_to_do(filling: Any) -> None:
    with pytest.raises(RunnerError, match=r"no evidence of net to report yet.*runner fill-catalog"):
        page_of(filling.database, subject="net")


def test_one_round_is_described_and_not_decided(filling: Any, made: Any, read_page: Any) -> None:
    subject, strategies = made.Subject("net"), [("identity", "mobile"), ("identity", "edge")]
    environment = filling.environment()
    filling.declare(environment, [subject], strategies, rounds=1)
    filling.measure(environment, [subject], strategies, rounds=1, inputs=30)
    said = read_page(page_of(filling.database)).text
    assert "One round alone supports description, not decisions." in said
    assert "Nothing is decided: one round" in said
    assert "The deciding analysis decides none of the 1 pair" in said
    assert "No accuracies are known." in said


def test_one_strategy_alone(filling: Any, made: Any, read_page: Any) -> None:
    subject = made.Subject("net")
    environment = filling.environment()
    filling.declare(environment, [subject], [("identity", "mobile")], rounds=1)
    filling.exact(environment, subject, {("identity", "mobile"): 0.01}, rounds=1, inputs=1)
    said = read_page(page_of(filling.database)).text
    assert "There are no two strategies to compare." in said
    assert "Parts of the latencies are not known." in said
    assert "Nothing answers it: fewer than two of its strategies were measured in all rounds." in said


def test_what_is_not_measured_and_what_is_not_valid_is_told(filling: Any, made: Any, read_page: Any) -> None:
    subject, strategies = made.Subject("net"), [("identity", "mobile"), ("identity", "edge"), ("identity", "cloud")]
    environment = filling.environment()
    filling.declare(environment, [subject], strategies, rounds=2)
    filling.exact(environment, subject, {("identity", "mobile"): 0.02, ("identity", "edge"): 0.01}, rounds=2)
    with filling.database.session() as session:
        failed = MeasurementRecord(
            latency_key=f"latency:{environment}:net:identity:cloud",
            environment_id=environment,
            subject="net",
            operator="identity",
            placement="cloud",
            round=1,
            position=0,
            seed=1,
            status="failed",
            verdict="INVALID",
            reason="the tier ran out of memory",
            inputs_select="random",
            started_at=datetime(2026, 11, 24, tzinfo=UTC),
            finished_at=datetime(2026, 11, 24, tzinfo=UTC),
        )
        record_measurement(session, failed)
        session.commit()
    said = read_page(page_of(filling.database)).text
    assert "net/identity@cloud round 1 failed the tier ran out of memory" in said
    assert "1 declared strategies without evidence here net/identity@cloud: not measured yet" in said
    assert "net 4 0 0 1" in said


def test_doubts_are_told_before_any_finding(filling: Any, made: Any, read_page: Any) -> None:
    subject, strategies = made.Subject("net"), [("identity", "mobile"), ("identity", "edge")]
    environment = filling.environment()
    filling.declare(environment, [subject], strategies, rounds=2)
    filling.exact(environment, subject, {strategies[0]: 0.02}, rounds=2)
    filling.exact(environment, subject, {strategies[1]: 0.01}, rounds=2, verdict="DOUBTFUL")
    said = read_page(page_of(filling.database)).text
    assert "2 of the 4 measurements are DOUBTFUL; the reasons are at the end. What to deploy" in said
    assert "net/identity@edge round 1 DOUBTFUL noise" in said


def test_a_report_names_no_other_process_of_the_host(studied: Path, tmp_path: Path) -> None:
    """It is handed on; who looks for the process asks the database on that host."""
    copy = tmp_path / "doubted.db"
    copy.write_bytes(studied.read_bytes())
    load = '{"others": [{"name": "payroll", "pid": 7, "cpus": 1.5}]}'
    doubted = "UPDATE measurement SET verdict = 'DOUBTFUL', reason = '75 % (payroll 7: 1.50 CPUs)', host_load = ?"
    with open_database(copy) as database:
        with database.session() as session:
            session.connection().exec_driver_sql(f"{doubted} WHERE id = 1", (load,))
            session.commit()
        page_text = page_of(database)
    assert "75 % (1 other process: 1.50 CPUs)" in page_text and "payroll" not in page_text


def test_a_family_without_two_strategies_of_all_rounds_is_a_sentence(filling: Any, made: Any, read_page: Any) -> None:
    subject, environment = made.Subject("net"), filling.environment()
    both = [("identity", "mobile"), ("identity", "edge")]
    filling.declare(environment, [subject], both, rounds=2)
    filling.measure(environment, [subject], both[:1], rounds=1, inputs=10)
    filling.measure(environment, [subject], both[1:], rounds=2, inputs=10)
    page = read_page(page_of(filling.database))
    assert "Fewer than two strategies of tiers:identity were measured in all rounds." in page.text
    assert "Kruskal-Wallis H" not in page.text and "nan" not in page.text
    # Of two strategies that nothing compares, neither rank is excluded; and what has no interval has no brackets.
    assert "identity@mobile open" in page.text and "[–]" not in page.text


def test_who_left_a_race_is_shown_with_rounds_look_and_margin(filling: Any, made: Any, read_page: Any) -> None:
    subject, strategies = made.Subject("net"), [("identity", "edge"), ("quantized", "edge"), ("quantized", "mobile")]
    environment = filling.environment()
    filling.declare(environment, [subject], strategies, rounds=2)
    filling.measure(environment, [subject], strategies, rounds=2, inputs=10)
    row = {"operator": "quantized", "look": 1, "created_at": "2026-11-30T10:00:00.000+00:00"}
    misses = row | {"placement": "edge", "rounds": 2, "reason": "misses", "slo": "fast", "margin": 0.5}
    # It was measured after all, so it is no longer out of the race.
    beaten = row | {"placement": "mobile", "rounds": 1, "reason": "beaten", "slo": None, "margin": 0.35}
    rows = [entry | {"by_operator": None, "by_placement": None} for entry in (misses, beaten)]
    with filling.database.writing_session() as writing:
        replace_departures(writing, rows, environment_id=1, subject="net")
        writing.commit()
    said = read_page(page_of(filling.database)).text
    assert "Left the race before the others, after so many rounds" in said
    assert "quantized@edge 2 1 beyond every SLO, the nearest fast 50 %" in said
    assert "quantized@mobile 1 1" not in said
