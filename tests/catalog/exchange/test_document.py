"""The form itself: deterministic text, exact numbers, and one clear problem for everything that is not so."""

import gzip
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.errors import ExchangeError
from catalog.evidence import tables
from catalog.evidence.allowed import with_marks
from catalog.evidence.records import AccuracyRecord, LinkProbeRecord, MeasurementRecord, TierRunRecord
from catalog.exchange import Document, decompressed, document, document_bytes, parse_document
from catalog.exchange.serialization import ids_name, pack_bits, unpack_bits

AT = "2026-11-24T06:00:00.000+00:00"
PLACE = {
    **dict.fromkeys(("launcher", "scale", "host", "cpu_model", "kernel", "engine", "onnxruntime", "tierwise"), "x"),
    "key": "e",
    "cpu_count": 2,
    "memory_bytes": 2**33,
    "created_at": AT,
}
ROUND = {
    "environment": "e",
    "latency_key": "l",
    "subject": "net",
    "operator": "identity",
    "placement": "mobile",
    "round": 1,
    "position": 0,
    "seed": -1,
    "status": "complete",
    "verdict": "VALID",
    "inputs_select": "random",
    "started_at": AT,
    "finished_at": AT,
    "samples": {
        "ids": "i",
        "input": [0, 1],
        "repetition": [0, 0],
        "latency_s": [0.1, 0.2],
        "transmission_s": [0.0, 0.0],
    },
}
ACCURACY = {
    "environment": "e",
    "key": "a",
    "subject": "net",
    "operator": "identity",
    "provider": "cpu",
    "metric_primary": "top1",
    "top1_pct": 50.0,
    "items": 2,
    "status": "complete",
    "started_at": AT,
    "finished_at": AT,
    "hits": {"ids": "i", "top1": "gA==", "top5": "wA=="},
}


def made(**changes: Any) -> dict[str, Any]:
    """Return a small valid document, deeply copied, with other sections."""
    whole = {
        "format": "tierwise-evidence",
        "version": 1,
        "environments": [PLACE],
        "ids": {"i": ["a", "b"]},
        "measurements": [ROUND],
        "accuracies": [ACCURACY],
    }
    copied: dict[str, Any] = json.loads(json.dumps(whole | changes))
    return copied


def parsed(value: Any) -> Document:
    return parse_document(json.dumps(value).encode(), file="f.json")


SECONDS = st.floats(min_value=1e-9, max_value=1e9)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(SECONDS, min_size=1), st.text(st.characters(codec="utf-8")))
def test_doubles_and_text_come_back_exactly(latencies: list[float], text: str) -> None:
    text = with_marks(text)
    count = len(latencies)
    columns = {"repetition": [0] * count, "transmission_s": latencies, "latency_s": latencies}
    samples = {"ids": "i", "input": list(range(count)), **columns}
    ids = {"i": [f"{text}{number}" for number in range(count)]}
    first = parsed(made(measurements=[{**ROUND, "samples": samples, "reason": text}], accuracies=[], ids=ids))
    content = document_bytes(first)
    second = parse_document(content, file="f.json")
    assert second == first
    assert second.measurements[0].samples is not None
    assert second.measurements[0].samples.latency_s == latencies
    assert document_bytes(second) == content


@given(st.lists(st.booleans()))
def test_bits_come_back(values: list[bool]) -> None:
    assert unpack_bits(pack_bits(values), len(values)) == values


def test_lists_are_told_apart_by_their_names() -> None:
    assert ids_name(["a", "b"]) == ids_name(("a", "b")) != ids_name(["ab"])


def test_a_change_is_a_change_of_few_lines() -> None:
    first = document_bytes(parsed(made())).decode().splitlines()
    second = document_bytes(parsed(made(measurements=[ROUND, {**ROUND, "round": 2}]))).decode().splitlines()
    assert len(second) == len(first) + 1
    assert len(set(second) - set(first)) == 2  # the new line, and a comma more on the one before


def test_compressed_bytes_have_no_time_in_them() -> None:
    content = document_bytes(parsed(made()), compress=True)
    assert content[4:8] == bytes(4)
    assert gzip.decompress(content) == document_bytes(parsed(made()))


@pytest.mark.parametrize(
    ("table", "entry", "elsewhere"),
    [
        (tables.Environment, document.EnvironmentEntry, {"id", "imported_file_id"}),
        (tables.Artifact, document.ArtifactEntry, {"id"}),
        (tables.Strategy, document.StrategyEntry, {"id", "environment_id"}),
        (tables.Measurement, document.MeasurementEntry, {"id", "environment_id", "imported_file_id"}),
        (tables.TierRun, document.TierRunEntry, {"id", "measurement_id"}),
        (tables.LinkProbe, document.LinkProbeEntry, {"id", "measurement_id"}),
        (tables.Sample, document.SampleColumns, {"id", "measurement_id", "seq", "input_id"}),
        (tables.SamplePart, document.PartColumns, {"sample_id", "tier"}),
        (tables.SampleLink, document.LinkColumns, {"sample_id", "link"}),
        (tables.Accuracy, document.AccuracyEntry, {"id", "environment_id", "imported_file_id"}),
        (tables.AccuracyItem, document.HitColumns, {"accuracy_id", "item_id"}),
        (tables.AccuracyClassItem, document.PixelColumns, {"accuracy_id", "item_id"}),
        (tables.Slo, document.SloEntry, set()),
        (tables.SubjectSlo, document.SloEntry, {"id", "subject"}),
        (tables.ImportedFile, document.FileEntry, {"id"}),
    ],
)
def test_every_column_has_its_place(table: Any, entry: Any, elsewhere: set[str]) -> None:
    """Export a new column, too: add it to the entry, optional where old files lack it."""
    assert set(table.__table__.columns.keys()) - elsewhere <= set(entry.model_fields)


@pytest.mark.parametrize(
    ("entry", "record"),
    [
        (document.MeasurementEntry, MeasurementRecord),
        (document.TierRunEntry, TierRunRecord),
        (document.LinkProbeEntry, LinkProbeRecord),
        (document.AccuracyEntry, AccuracyRecord),
    ],
)
def test_every_field_is_recorded(entry: Any, record: Any) -> None:
    assert set(entry.model_fields) - {"environment", "hits", "pixels"} <= set(record.__dataclass_fields__)


def samples(**changes: Any) -> dict[str, Any]:
    return {"measurements": [{**ROUND, "samples": {**ROUND["samples"], **changes}}]}  # type: ignore[dict-item]


PART = {"preprocess_s": [0.1], "compute_s": [0.1], "postprocess_s": [0.1], "serialise_s": [0.1]}
STRATEGY = {
    **{name: ROUND[name] for name in ("environment", "subject", "operator", "placement", "latency_key")},
    **{"tiers": ["mobile"], "passes": [], "artifact_key": "x", "accuracy_key": "a", "task": "classification"},
    **{"rounds": 1, "declared": True, "status": "applicable", "updated_at": AT},
}


def slo(latency: dict[str, float], accuracy: dict[str, float] | None = None) -> dict[str, Any]:
    return {"name": "s", "latency": latency, "accuracy": accuracy or {}}


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else []


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"format": "other"}, "format is 'other'; expected 'tierwise-evidence'"),
    ({"version": 2}, "version is 2; this Tierwise reads 1"),
    ({"version": None}, "version is None"),
    ({"extra": 1}, "extra: Extra inputs are not permitted, got 1"),
    ({"environments": [{**PLACE, "cpu_count": "2"}]}, r"environments\[0\].cpu_count: Input should be a valid integer"),
    ({"environments": [{**PLACE, "memory_bytes": 2**63}]}, "memory_bytes: Input should be less than or equal to"),
    ({"environments": [{**PLACE, "host": "[red]x[/]"}]}, "host: String should match pattern"),
    ({"environments": [PLACE, PLACE]}, "environments: e is there twice"),
    ({"environments": []}, r"measurements\[0\].environment: 'e' is not among the environments"),
    ({"environments": [{**PLACE, "imported_from": "f"}]}, "'f' is not among the files"),
    (
        {"strategies": [{**STRATEGY, "tiers": ["edge"]}]},
        r"strategies\[0\]: .*placement 'mobile' does not name its tiers \['edge'\]",
    ),
    ({"measurements": [{**ROUND, "subject": "a b"}]}, r"measurements\[0\].subject: String should match pattern"),
    ({"measurements": [{**ROUND, "started_at": "yesterday"}]}, "started_at: .*has no time zone or another form"),
    ({"measurements": [{**ROUND, "started_at": "2026-11-24T06:00:00"}]}, "has no time zone"),
    ({"measurements": [{**ROUND, "reason": "a\0b"}]}, "holds a control character"),
    ({"measurements": [{**ROUND, "verdict": "FINE"}]}, "verdict: Input should be 'VALID', 'DOUBTFUL' or 'INVALID'"),
    ({"measurements": [{**ROUND, "conditions": {"x": float("nan")}}]}, "conditions: .*a number that is not finite"),
    ({"measurements": [ROUND, ROUND]}, "measurements: l/1 is there twice"),
    ({"measurements": [{**ROUND, "samples": None}]}, "is complete and has no samples"),
    (samples(latency_s=[0.1, float("nan")]), r"samples.latency_s\[1\]: Input should be a finite number"),
    (samples(latency_s=[0.1, -0.1]), r"samples.latency_s\[1\]: Input should be greater than or equal to 0.000000001"),
    (samples(latency_s=[0.1, 0.0]), r"samples.latency_s\[1\]: Input should be greater than or equal to 0.000000001"),
    (samples(latency_s=[0.1]), "differ in length"),
    (samples(input=[0, 2]), "counts up to 2 in a list of 2 ids"),
    (samples(ids="j"), "'j' is not among the lists of ids"),
    (samples(parts={"mobile": PART}), "the arrays of mobile are not 2 long"),
    (samples(parts={"mobile": {**PART, "at": [2]}}), "names a sample twice or one that does not exist"),
    ({"ids": {"i": ["a", "a"]}}, "ids.i: 'a' is there twice"),
    ({"accuracies": [{**ACCURACY, "top1_pct": 101.0}]}, "top1_pct: Input should be less than or equal to 100"),
    ({"accuracies": [{**ACCURACY, "top1_pct": None}]}, "is complete and its top1 is missing"),
    ({"accuracies": [{**ACCURACY, "hits": {"ids": "i", "top1": "?", "top5": "wA=="}}]}, "hits.top1: is not Base64"),
    ({"accuracies": [{**ACCURACY, "hits": {"ids": "i", "top1": "", "top5": "wA=="}}]}, "holds 0 bytes where 2 items"),
    ({"accuracies": [ACCURACY, ACCURACY]}, "accuracies: a is there twice"),
    ({"accuracies": [{**ACCURACY, "items": 3}]}, "items: is 3, and the list of its items has 2"),
    ({"accuracies": [{**ACCURACY, "top1_pct": 12.0}]}, "top1_pct: is 12, and the hits give"),
    ({"slos": [slo({"abc": 1.0})]}, "slos.0..latency: .*'abc' is not a percentile; write 50, 90, 95, 99 or 99.9"),
    ({"slos": [slo({"0": 1.0})]}, "not a percentile"),
    ({"slos": [slo({"1e1": 1.0})]}, "not a percentile"),
    ({"slos": [slo({"100": 1.0})]}, "not a percentile"),
    ({"slos": [slo({"90": 1.0, "90.0": 2.0})]}, "names a percentile twice"),
    ({"slos": [slo({"90": 0.0})]}, "greater than 0"),
    ({"slos": [slo({"90": 1e300})]}, "less than or equal to"),
    ({"slos": [slo({}, {"max_drop_pp": -1.0})]}, "max_drop_pp"),
    ({"slos": [slo({}, {"drop": 1.0})]}, "Extra inputs"),
    ({"environments": [{**PLACE, "created_at": "0001-01-01T00:00:00+14:00"}]}, "is of the year 1; allowed: 1970"),
    ({"environments": [{**PLACE, "created_at": "2026-W01-1T00+00:00"}]}, "another form"),
    ({"environments": [{**PLACE, "details": {"versions": [1]}}]}, "details"),
    ({"environments": [{**PLACE, "details": {"x": nested(20)}}]}, "nested more than 16 deep"),
    ({"environments": [{**PLACE, "details": {"x": 2**64}}]}, "integer of more than 64 bits"),
    ({"environments": [{**PLACE, "details": {"x\x1b[31m": 1}}]}, "control character"),
    ({"strategies": [{**STRATEGY, "tiers": []}]}, "tiers: List should have at least 1 item"),
    ({"strategies": [{**STRATEGY, "tiers": ["a", "a"]}]}, "names one twice"),
    ({"strategies": [{**STRATEGY, "passes": [{"nom": "x"}]}]}, "name"),
    ({"strategies": [{**STRATEGY, "rounds": 2**31 - 1}]}, "rounds: Input should be less than or equal to 100000"),
    ({"measurements": [{**ROUND, "round": 2**31 - 1}]}, "round: Input should be less than or equal to"),
    ({"measurements": [{**ROUND, "finished_at": "1999-01-01T00:00:00+00:00"}]}, "before it started"),
    ({"measurements": [{**ROUND, "conditions": {"tiers": [1]}}]}, "conditions"),
    ({"measurements": [{**ROUND, "conditions": {"links": [{"name": "a", "up_bit_per_s": "x"}]}}]}, "conditions"),
    ({"measurements": [{**ROUND, "protocol": {"input_ids": [1]}}]}, "protocol"),
    ({"measurements": [{**ROUND, "reason": "\x1b[2J"}]}, "control character"),
    (samples(latency_s=[0.1, 5e-324]), "greater than or equal to 0.000000001"),
    (samples(latency_s=[0.1, 1e300]), "less than or equal to 1000000000"),
    (samples(latency_s=[], transmission_s=[], input=[], repetition=[]), "at least 1 item"),
    ({"strategies": [STRATEGY, STRATEGY]}, "strategies: e/net/identity/mobile is there twice"),
    ({"strategies": [{**STRATEGY, "subject": "other"}]}, "latency key l: is used for net in e and other in e"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_what_is_wrong_is_named_with_its_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ExchangeError, match=message) as caught:
        parsed(made(**changes))
    assert str(caught.value).startswith("f.json: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "Invalid JSON: EOF while parsing"),
        (b'{"format": "tierwise-evidence", "version": 1, "ids": {"a": "\xff"}}', "Invalid JSON"),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, "recursion limit"),
    ],
)
def test_malformed_json_is_one_problem(content: bytes, message: str) -> None:
    with pytest.raises(ExchangeError, match=message) as caught:
        parse_document(content, file="f.json")
    assert len(caught.value.problems) == 1


def test_twenty_problems_are_shown_and_the_rest_counted() -> None:
    with pytest.raises(ExchangeError) as caught:
        parsed(made(measurements=[{**ROUND, "subject": "a b"}] * 30))
    assert len(caught.value.problems) == 30
    assert len(str(caught.value).splitlines()) == 21
    assert str(caught.value).endswith("and 10 more; nothing of the file was stored")


def test_every_member_of_a_gzip_file_is_read() -> None:
    first, second = gzip.compress(b"a,b\n1,2\n"), gzip.compress(b"3,4\n")
    assert decompressed(first + second, file="f") == b"a,b\n1,2\n3,4\n"
    assert decompressed(first + bytes(512), file="f") == b"a,b\n1,2\n"
    with pytest.raises(ExchangeError, match="ends too early"):
        decompressed(first + second[:-9], file="f")


def test_damaged_and_exploding_gzip_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gzip.compress(b"x" * 5000)
    assert decompressed(whole, file="f") == b"x" * 5000
    with pytest.raises(ExchangeError, match="ends too early"):
        decompressed(whole[:-9], file="f")
    with pytest.raises(ExchangeError, match="damaged gzip"):
        decompressed(whole[:12] + b"\xff\xff\xff" + whole[15:], file="f")
    monkeypatch.setattr("catalog.exchange.serialization.MAX_BYTES", 4000)
    for content in (whole, b"x" * 5000):
        with pytest.raises(ExchangeError, match="export fewer subjects"):
            decompressed(content, file="f")
