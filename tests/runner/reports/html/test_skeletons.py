"""Pictures of measured models in a report: drawn from the files that were measured, and from no others."""

import base64
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from catalog.analysis import AnalysisSettings, SubjectResult, analyse_subject
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.records import ArtifactFile
from catalog.evidence.writing import sync_strategies, upsert_artifact
from runner.reports.skeleton import model_pictures
from runner.subjects.embedded.datasets import BUILTIN
from runner.workdir import current_sha256
from tests.evidence_builder import artifact_record, strategy_record

OPERATORS: dict[str, list[dict[str, Any]]] = {
    "identity": [],
    "one_less": [{"name": "early_exit", "options": {"blocks": 1}}],
    "two_less": [{"name": "early_exit", "options": {"blocks": 2}}],
    "halves": [{"name": "partition", "options": {}}],
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copy(BUILTIN / "fashion-resnet.onnx", tmp_path / "net.onnx"))


def measured(filling: Any, made: Any, model: Path) -> SubjectResult:
    """Return identity as measured from the model's file, beside operators without evidence."""
    environment, subject = filling.environment(), made.Subject("net")
    records = [
        strategy_record(
            environment, "net", operator, "mobile-edge" if operator == "halves" else "edge", passes=passes, rounds=2
        )
        for operator, passes in OPERATORS.items()
    ]
    with filling.database.session() as session:
        sync_strategies(session, environment, records)
        file = ArtifactFile(part=0, file="model.onnx", sha256=current_sha256(model), size_bytes=model.stat().st_size)
        upsert_artifact(session, artifact_record("net", "identity", files=(file,)))
        session.commit()
    filling.exact(environment, subject, {("identity", "edge"): 0.01}, rounds=2)
    with filling.database.session() as session:
        return analyse_subject(strategy_evidence(session), AnalysisSettings())


def drawings(html: str) -> list[str]:
    encoded = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    return [base64.b64decode(text).decode() for text in encoded]


def test_a_picture_for_each_number_of_blocks_and_the_cut_once(filling: Any, made: Any, model: Path) -> None:
    html = model_pictures({"net": model}, [measured(filling, made, model)])["net"]
    first, second = drawings(html)
    assert "early exit skips" in first and 'class="cut"' in first
    assert "early exit skips" in second and 'class="cut"' not in second
    assert "net.onnx: an exit that skips 1 block (one_less) and the cut of the whole model (halves)" in html
    assert "net.onnx: an exit that skips 2 blocks (two_less)" in html
    # Two blocks are more than one, in the picture too.
    assert first.count('class="skipped"') < second.count('class="skipped"')


def test_a_model_that_was_not_measured_is_not_drawn(filling: Any, made: Any, model: Path) -> None:
    result = measured(filling, made, model)
    shutil.copy(BUILTIN / "fashion-resnext.onnx", model)
    for path in (model, model.with_name("absent.onnx")):
        html = model_pictures({"net": path}, [result])["net"]
        assert drawings(html) == []
        assert "is not there, or is not the model that was measured" in html


def test_a_subject_that_no_catalog_declares_has_no_picture(filling: Any, made: Any, model: Path) -> None:
    assert model_pictures({}, [measured(filling, made, model)]) == {}
