"""The page in a real browser: Chromium or Chrome, headless, with nothing but this service to talk to."""

import html
import json
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog.units import duration, rate, size
from recommender.answer.wording import chance
from tests.recommender.browser import CHROMIUM, GET_CHROMIUM, browser
from tests.recommender.conftest import Writer
from tests.recommender.test_link_samples import measure

PAGE = Path(__file__).parents[2] / "recommender" / "page"
in_browser = pytest.mark.skipif(CHROMIUM is None and os.environ.get("CI") != "true", reason=GET_CHROMIUM)


def loaded(url: str) -> str:
    """Return the document of a page whose scripts complain of nothing."""
    dom, complaints = browser().load(url)
    assert not complaints
    return dom


@in_browser
def test_feasible_question_in_the_address_is_answered(live: Callable[..., str]) -> None:
    dom = loaded(f"{live()}/?subject=net&latency=150&accuracy=1&percentile=50&objective=accuracy")
    assert '<div class="choice">identity on mobile<span class="badge proven">proven</span>' in dom
    assert "<title>identity on mobile · net · Tierwise</title>" in dom
    assert "2 of 4 strategies lie within the budgets" in dom
    assert "Yes: it is proven to keep every budget." in dom
    assert dom.count('class="point proven"') == 2 + 5  # of the chart, and of its legend
    assert dom.count('class="point misses"') == 2 + 1
    assert 'class="region"' in dom and 'class="front"' in dom and "Near misses" in dom
    assert 'aria-busy="false"' in dom


@in_browser
def test_infeasible_question_gets_the_nearest_misses(live: Callable[..., str]) -> None:
    dom = loaded(f"{live()}/?subject=net&latency=10")
    assert '>No strategy keeps these budgets<span class="badge proven">proven</span></div>' in dom
    assert "Nearest misses" in dom and "quantized on mobile" in dom
    assert re.search(r'<li><button type="button">ask for at most [0-9.]+ ms</button> gives \w+ on \w+</li>', dom)


@in_browser
def test_what_is_likely_says_so_with_what_makes_it_sure(writer: Writer, live: Callable[..., str]) -> None:
    writer.declare(1, "early_exit", "mobile")
    for number, latency_s in enumerate((0.01, 0.011, 0.012)):
        writer.measure(1, "early_exit", "mobile", latency_s, number=number)
    writer.judge(1, "early_exit", 90.0)
    dom = loaded(f"{live()}/?subject=net&latency=12.2&confidence=99")
    assert re.search(r'early_exit on mobile<span class="badge likely">likely, \d\d %</span>', dom)
    assert re.search(r'<p class="manager">Probably: \d\d %\.</p>', dom)
    assert re.search(r'<code class="command">runner recommend net --max-latency 12.2ms [^<]*--measure \d+m</code>', dom)
    assert 'class="point likely"' in dom and "To have it proven:" in dom
    doubtful = loaded(f"{live()}/?subject=net&latency=150&confidence=99.9")
    assert "Within the budgets, not proven" in doubtful or "Proven too" in doubtful


@in_browser
def test_a_hostile_address_is_text(live: Callable[..., str]) -> None:
    hostile = "subject=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&environment=%3Cscript%3Ealert(1)%3C%2Fscript%3E"
    dom = loaded(f"{live()}/?{hostile}")
    assert "<img" not in dom and "<script>alert" not in dom
    assert "is not in the evidence" in dom


@in_browser
@pytest.mark.parametrize(
    ("question", "refusal"), [("subject=nett", "nett"), ("subject=net&slo=intractive", "intractive")]
)
def test_an_unknown_name_in_the_address_is_refused_and_nothing_else_is_answered(
    live: Callable[..., str], question: str, refusal: str
) -> None:
    dom = loaded(f"{live()}/?{question}")
    assert '<div class="verdict none">' in dom and f"{refusal}" in dom and "did you mean" in dom.lower()
    assert 'class="choice"' not in dom and re.search(r'<section id="evidence"[^>]* hidden', dom)


@in_browser
@pytest.mark.parametrize(
    ("question", "refusal"),
    [
        ("max_latency=30ms", "this page knows no “max_latency”; allowed: subject, slo, latency, percentile,"),
        ("latency=30ms", "“latency” takes a number alone, got “30ms”"),
        ("link.cloud=1mbit", "there is no link “cloud”; allowed: "),
    ],
)
def test_what_the_page_does_not_know_in_an_address_is_refused(
    live: Callable[..., str], question: str, refusal: str
) -> None:
    dom = loaded(f"{live()}/?subject=net&{question}")
    assert f"The address cannot be read: {refusal}" in dom and "Nothing was asked yet" in dom
    assert 'class="choice"' not in dom and "no budget" not in dom


@in_browser
def test_confidence_tiers_and_privacy_are_part_of_the_question(live: Callable[..., str]) -> None:
    dom = loaded(f"{live()}/?subject=net&latency=500&confidence=99&tiers=edge&raw=edge")
    assert "only on edge, raw input stays on edge" in dom and '<div class="choice">quantized on edge' in dom
    assert 'name="tier" value="mobile"' in dom and "forbid" not in dom
    assert re.search(r'<fieldset class="wide" id="tiers-field">', dom)
    refused = loaded(f"{live()}/?subject=net&tiers=moon")
    assert "moon" in refused and 'class="choice"' not in refused


@in_browser
def test_the_answer_comes_before_the_question(live: Callable[..., str]) -> None:
    dom = loaded(f"{live()}/?subject=net&latency=500")
    places = [dom.index(f'id="{name}"') for name in ("answer", "verdict", "question", "evidence")]
    assert places == sorted(places)
    assert "net · p90 at most 500 ms " in dom


@pytest.fixture
def linked(filled: Writer) -> Writer:
    """Store partition@edge-cloud beside the others: 60 ms with edge-cloud at 10 Mbit/s, 20 ms of it computing."""
    filled.declare(1, "partition", "edge-cloud")
    measure(filled, 1, "latency:1:net:partition:edge-cloud", 10)
    filled.judge(1, "partition", 90.0)
    return filled


@in_browser
def test_a_link_in_the_address_is_predicted_and_marked(linked: Writer, live: Callable[..., str]) -> None:
    dom = loaded(f"{live()}/?subject=net&latency=75&link.edge-cloud=100mbit")
    assert '<div class="choice">partition on edge-cloud<span class="badge proven">proven</span>' in dom
    assert '<span class="badge foreseen">predicted</span>' in dom and "predicted from one measured bandwidth" in dom
    assert "1 of 5 latencies are predicted, the others measured." in dom
    assert dom.count('class="foreseen"') == 1 + 1  # of the chart, and of its legend
    assert re.search(r"2[2-5][0-9.]* ms<small> predicted", dom) and ">80 ms</td>" in dom
    assert 'aria-valuetext="100 megabits per second, predicted"' in dom
    assert 'aria-valuetext="as measured"' in dom  # of the other link
    assert not re.search(r'<figure id="curves-figure"[^>]* hidden', dom)
    assert "If edge-cloud were faster or slower" in dom and "asked: 100 Mbit/s" in dom
    assert "The fastest is partition on edge-cloud at every rate shown" not in dom
    assert re.search(r"From 6\.\d+ Mbit/s on partition on edge-cloud is faster than quantized on mobile", dom)
    for control in re.findall(r"<input[^>]*data-link[^>]*>", dom):
        name = re.search(r'id="([^"]+)"', control)
        assert "aria-label=" in control or (name and f'for="{name[1]}"' in dom), control


@in_browser
@pytest.mark.parametrize(
    ("link", "refusal"),
    [
        ("link.moon=1mbit", "there is no link “moon”; allowed: edge-cloud"),
        ("link.edge-cloud=%3Cb%3Equick", "“link.edge-cloud” takes a bandwidth such as 10mbit, got “&lt;b&gt;quick”"),
    ],
)
def test_a_link_that_cannot_be_asked_for_is_refused(
    linked: Writer, live: Callable[..., str], link: str, refusal: str
) -> None:
    dom = loaded(f"{live()}/?subject=net&{link}")
    assert f"The address cannot be read: {refusal}" in dom and "<b>quick" not in dom


@in_browser
def test_a_service_with_a_key_is_asked_for_it(live: Callable[..., str]) -> None:
    dom = loaded(live(api_key="0123456789abcdef"))
    assert "requires its API key" in dom
    assert not re.search(r'<form id="key-form"[^>]* hidden', dom)


def test_every_control_is_labelled_and_nothing_comes_from_elsewhere(client: Any) -> None:
    source = client.get("/").text
    for control in re.findall(r"<(?:input|select)[^>]*>", source):
        name = re.search(r'id="([^"]+)"', control)
        assert name and (f'for="{name[1]}"' in source or "aria-label=" in control), control
    for file in PAGE.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.[a-z]|innerHTML|eval\(", text), file.name
        assert client.get("/" if file.name == "index.html" else f"/page/{file.name}").status_code == 200


def test_page_is_part_of_the_package() -> None:
    """Every file of the page lies where the package's patterns reach, and the page names none that is missing."""
    project = tomllib.loads((PAGE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["recommender"]
    packed = {path for pattern in patterns for path in PAGE.parent.glob(pattern) if path.is_file()}
    assert {path for path in PAGE.rglob("*") if path.is_file()} <= packed
    source = "".join(path.read_text(encoding="utf-8") for path in packed if path.parent == PAGE)
    names = re.findall(r'(?:src=|href=|from )"/page/([^"]+)"', source)
    assert len(names) > 2 and {PAGE / name for name in names} <= packed


def test_sliders_have_the_steps_that_their_script_counts_with() -> None:
    """With more, an arrow key would move one by less than its number is rounded to, and it would spring back."""
    script = (PAGE / "sliders.js").read_text(encoding="utf-8")
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    for name in ("latency", "accuracy"):
        (steps,) = re.findall(rf"const {name.upper()}_STEPS = (\d+);", script)
        assert f'<input id="{name}-slider" type="range" min="0" max="{steps}" step="1"' in page


@in_browser
def test_the_loosest_end_of_a_slider_is_no_limit(tmp_path: Path) -> None:
    """The scripts alone, with fields of our own: a dumped page cannot be dragged."""
    script = re.sub("^import .*$", "", (PAGE / "sliders.js").read_text(encoding="utf-8"), flags=re.MULTILINE)
    prose = re.sub("^import .*$", "", (PAGE / "elements.js").read_text(encoding="utf-8"), flags=re.MULTILINE)
    cases = [("latency", 200), ("latency", 199), ("accuracy", 100), ("accuracy", 99), ("floor", 0), ("floor", 1)]
    texts = ["run `a b`, then `c`", "a lone ` stays", "`x`", "none", "`a` and ` b"]
    page = tmp_path / "sliders.html"
    page.write_text(
        f"""<meta charset="utf-8"><p id="shown"></p><p id="prose"></p><script>
        const fields = {{}};
        const made = (id) => ({{
          id, text: "", get value() {{ return this.text; }}, set value(number) {{ this.text = String(number); }},
          setAttribute(_, words) {{ this.words = words; }} }});
        const field = (name) => fields[name] ??= made(name);
        {script.replace("export ", "")}
        {prose.replace("export ", "")}
        shown.textContent = {json.dumps(cases)}.map(([kind, place]) => {{
          field("accuracy-kind").value = kind === "floor" ? "floor" : "drop";
          const name = kind === "latency" ? "latency" : "accuracy";
          field(name).value = "1", field(`${{name}}-slider`).value = String(place), lead(field(`${{name}}-slider`));
          return `${{field(name).value}} ${{field(`${{name}}-slider`).words}} ${{field(`${{name}}-slider`).value}}`;
        }}).join("|");
        for (const text of {json.dumps(texts)}) document.getElementById("prose").append(...prose(text), "|");
        </script>""",
        encoding="utf-8",
    )
    dom = loaded(page.as_uri())
    shown = re.search('<p id="shown">(.*?)</p>', dom)
    assert shown is not None
    ends = shown[1].split("|")
    assert ends[::2] == [" no limit 200", " no limit 100", " no limit 0"]
    assert all("no limit" not in other and not other.startswith(" ") for other in ends[1::2])
    # The step before it is the end of the numbers, and stays where it was put.
    assert [other.split()[-1] for other in ends[1::2]] == ["199", "99", "1"]
    assert '<p id="prose">run <code>a b</code>, then <code>c</code>|a lone ` stays|<code>x</code>|none|' in dom
    assert "<code>a</code> and ` b|" in dom


@in_browser
def test_page_prints_figures_as_the_terminal_does(tmp_path: Path) -> None:
    """The rules are written twice, in Python and in JavaScript; nothing else keeps them together."""
    seconds = (0.000103, 0.00321, 0.04, 0.99949, 0.9996, 1.456, 59.996, 754, 1e300, -0.0123)
    counts = (812, 65_638, 65_536, 1_992_294, 512 * 2**20, 8_339_886_899)
    rates = (800, 950e3, 9.98e6, 999.6e6, 1e9)
    words = (PAGE / "words.js").read_text(encoding="utf-8").replace("export function", "function")
    chances = (0.7999, 0.9974, 0.99999, 0.004, 0.29)
    tables = ((seconds, "duration"), (counts, "bytes"), (rates, "bitRate"), (chances, "chance"))
    calls = "[].concat(" + ", ".join(f"{json.dumps(values)}.map({name})" for values, name in tables) + ")"
    page = tmp_path / "words.html"
    page.write_text(
        f'<meta charset="utf-8"><p id="shown"></p><script>{words}\nshown.textContent = {calls}.join("|");</script>',
        encoding="utf-8",
    )
    shown = re.search('<p id="shown">(.*?)</p>', loaded(page.as_uri()))
    assert shown is not None
    said = html.unescape(shown[1]).split("|")
    assert said == [*map(duration, seconds), *map(size, counts), *map(rate, rates), *map(chance, chances)]
