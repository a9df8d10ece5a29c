"""The two questions of the demo, asked of the real service over committed evidence."""

import contextlib
import json
from pathlib import Path

import pytest

from catalog.evidence.database import open_database
from catalog.exchange import import_files
from runner import demo

EVIDENCE = Path(__file__).parents[2] / "docs" / "example-evidence.json.gz"


def test_one_question_is_met_and_fits_the_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERWISE_WORKDIR", str(tmp_path / "work"))
    path = tmp_path / "demo.db"
    with open_database(path, create=True) as database:
        import_files(database, [EVIDENCE])
    with demo._recommender(str(path)) as url:
        subject = json.loads(demo.httpx.get(f"{url}/subjects").text)["subjects"][0]["subject"]
        fastest_s = demo._fastest_s(str(path), subject)
        question, answer = demo._ask(url, subject, {"max_latency_s": demo._FACTOR * fastest_s})
        assert answer.recommendation is not None and answer.status in ("proven", "likely")
        assert answer.recommendation.latency.percentile_s <= question["max_latency_s"]
        _, refused = demo._ask(url, subject, {"max_latency_s": fastest_s / 100})
        assert refused.status == "infeasible" and refused.recommendation is None and refused.near_misses


class Script:
    """The demo's commands, recorded instead of run; what `codes` does not name ends well."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, codes: dict[str, int]) -> None:
        self.ran: list[list[str]] = []
        self.hopeless: list[dict[str, float]] = []
        monkeypatch.setattr(demo, "app", self.ran.append)
        monkeypatch.setattr(demo, "run", lambda command: command() or codes.get(self.ran[-1][0], 0))
        monkeypatch.setattr(demo, "_fastest_s", lambda database, subject: 0.014)
        monkeypatch.setattr(demo, "_recommender", lambda database: contextlib.nullcontext("http://127.0.0.1:1"))
        monkeypatch.setattr(demo, "_ask", lambda url, subject, budgets: self.hopeless.append(budgets) or ({}, None))
        monkeypatch.setattr(demo, "_show", lambda kind, question, answer: None)


@pytest.mark.parametrize(
    ("codes", "ends_with"),
    [
        ({}, 0),
        ({"fill-catalog": 1}, 0),
        ({"recommend": 1}, 0),
        ({"fill-catalog": 1, "recommend": 1}, 1),
        ({"fill-catalog": 130}, 130),
        ({"leaderboard": 1}, 1),
    ],
    ids=str,
)
def test_rounds_that_stay_invalid_fail_the_demo_only_without_an_answer(
    codes: dict[str, int], ends_with: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Script(monkeypatch, codes)
    assert demo.main() == ends_with


def test_the_first_question_is_a_command_that_measures_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Script(monkeypatch, {})
    assert demo.main() == 0
    ran, hopeless = script.ran, script.hopeless
    *_, question = ran
    assert [command[0] for command in ran] == ["fill-catalog", "leaderboard", "recommend"]
    assert question[2:] == ["--max-latency", "21ms", "--percentile", "90", "--max-drop", "1", "--measure", "1m"]
    assert "runner recommend fashion-resnet --max-latency 21ms" in capsys.readouterr().out
    assert hopeless == [{"max_latency_s": 0.00014, "max_accuracy_drop_pp": 0.0}]
