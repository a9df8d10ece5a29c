"""Which environment answers when there are several."""

from recommender.evidence.model import Evidence, MeasurementEnvironment, SubjectEvidence


def part(key: str, measured_at: str, imported_from: str | None) -> SubjectEvidence:
    facts = dict.fromkeys(("launcher", "scale", "host", "cpu_model", "onnxruntime", "created_at"), "x")
    environment = MeasurementEnvironment(id=len(key), key=key, cpu_count=2, imported_from=imported_from, **facts)
    return SubjectEvidence("net", "classification", environment, (), "random", measured_at)


def test_what_was_measured_here_comes_before_what_was_imported_later() -> None:
    parts = [part("a", "2026", None), part("bb", "2028", "phone.csv"), part("ccc", "2027", None)]
    evidence = Evidence.of(parts, [])
    assert [selection.environment.key for selection in evidence.subjects["net"]] == ["ccc", "a", "bb"]
    assert evidence.select("net").environment.key == "ccc"
    assert evidence.select("net", "bb").environment.imported_from == "phone.csv"
