"""The two questions of the demo, asked of the real service over committed evidence."""

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
        fastest_s = demo._fastest_s(url, subject)
        question, answer = demo._ask(url, subject, {"max_latency_s": demo._FACTOR * fastest_s})
        assert answer.recommendation is not None and answer.status in ("proven", "likely")
        assert answer.recommendation.latency.percentile_s <= question["max_latency_s"]
        _, refused = demo._ask(url, subject, {"max_latency_s": fastest_s / 100})
        assert refused.status == "infeasible" and refused.recommendation is None and refused.near_misses
