"""The first page says what the recommender answers, for every SLO and subject, and links to what it rests on."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalog.evidence.database import Database, open_database
from recommender.answer.respond import respond
from recommender.answer.wording import how_sure
from recommender.evidence.loading import load
from recommender.schemas import RecommendRequest
from runner.reports.html import gather_report, render_report


def first_page(database: Database, read_page: Any) -> Any:
    page = render_report(gather_report(database), made_at=datetime(2026, 11, 24, 9, 30, tzinfo=UTC))
    return read_page(page[: page.index("What it rests on")] + "</h3></section></main></body></html>"), page


def test_every_slo_has_the_recommenders_answer_for_every_subject(studied: Path, read_page: Any) -> None:
    with open_database(studied) as database:
        page, whole = first_page(database, read_page)
        evidence = load(database)
        rows = page.text.split("interactive: ")[1]
        for subject in ("fashion-resnet", "canvas-fcn"):
            answer = respond(evidence, RecommendRequest(subject=subject, slo="interactive"))
            best = answer.recommendation
            assert best is not None
            row = rows[rows.index(subject) :]
            assert re.match(rf"{subject} {best.operator} on {best.placement} p90 [\d.]+ ms ", row)
            (section,) = re.findall(rf'<a href="#([\w-]+)">{subject}</a>', whole[whole.index("interactive: ") :])
            heading = whole.index(f"<details><summary><h3>{subject}</h3>")
            assert whole.index(f'<div id="{section}">', heading) < whole.index("<figure>", heading)
    assert "Of four questions (every SLO for every subject)" in page.text


def test_without_slos_it_is_the_fastest(filling: Any, made: Any, read_page: Any) -> None:
    subject, strategies = made.Subject("net"), [("identity", "mobile"), ("identity", "edge")]
    environment = filling.environment()
    filling.declare(environment, [subject], strategies, rounds=3)
    filling.exact(environment, subject, {strategies[0]: 0.05, strategies[1]: 0.01})
    page, _ = first_page(filling.database, read_page)
    assert "No SLO is declared: the fastest" in page.text and "net identity on edge p90" in page.text


def test_a_target_that_nothing_meets_names_the_nearest_and_what_would_be_met(
    filling: Any, made: Any, read_page: Any
) -> None:
    subject, strategies = made.Subject("net"), [("identity", "mobile"), ("identity", "edge")]
    environment = filling.environment()
    filling.declare(environment, [subject], strategies, rounds=3)
    filling.exact(environment, subject, {strategies[0]: 0.05, strategies[1]: 0.01})
    filling.slos({"hard": {"latency": {"p90": "5ms"}}})
    page, _ = first_page(filling.database, read_page)
    assert "net none ; nearest identity on edge (latency +5.08 ms)" in page.text
    assert "the p90 budget from 5 ms" in page.text


def test_what_is_not_proven_says_how_sure_it_is_and_what_would_make_it_sure(
    filling: Any, made: Any, read_page: Any
) -> None:
    subject, strategies = made.Subject("net"), [("identity", "mobile"), ("identity", "edge")]
    environment = filling.environment()
    filling.declare(environment, [subject], strategies, rounds=3)
    # A p90 of 10.08 ms, with some tenths of a percent of variation between rounds.
    filling.exact(environment, subject, {strategies[0]: 0.05, strategies[1]: 0.01}, rounds=3)
    filling.slos({"tight": {"latency": {"p90": "10.1ms"}}})
    answer = respond(load(filling.database), RecommendRequest(subject="net", slo="tight"))
    assert answer.status == "likely" and answer.to_do is not None
    page, _ = first_page(filling.database, read_page)
    assert "one likely." in page.text
    assert f"identity on edge p90 10.1 ms – 2 MiB {how_sure(answer.status, answer.probability)} " in page.text
    # The reader of pages puts a space around every element, code among them.
    words = " ".join(answer.to_do.words.replace("`", " ").split())
    assert words in page.text
