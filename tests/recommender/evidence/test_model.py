"""Which environment answers when there are several."""

from dataclasses import asdict

from catalog.evidence.strategy_evidence import EnvironmentEvidence, Origin
from recommender.evidence.model import Evidence, SubjectEvidence
from tests.evidence_builder import environment_record


def part(key: str, measured_at: str, imported_from: str | None) -> SubjectEvidence:
    facts = asdict(environment_record(key)) | {"id": len(key), "created_at": "x"}
    file = {"sha256": "ab", "format": "csv", "imported_at": "x", "id": 1}
    origin = None if imported_from is None else Origin(name=imported_from, **file)
    environment = EnvironmentEvidence(**facts, origin=origin)
    return SubjectEvidence("net", "classification", environment, (), "random", measured_at)


def test_what_was_measured_here_comes_before_what_was_imported_later() -> None:
    parts = [part("a", "2026", None), part("bb", "2028", "phone.csv"), part("ccc", "2027", None)]
    evidence = Evidence.of(parts, [])
    assert [selection.environment.key for selection in evidence.subjects["net"]] == ["ccc", "a", "bb"]
    assert evidence.select("net").environment.key == "ccc"
    assert evidence.select("net", "bb").environment.imported_from == "phone.csv"
