"""Evidence of which only the changed subjects are read again is what reading all of it gives."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from catalog.evidence import row_checks
from catalog.evidence.changes import evidence_digests
from catalog.exchange import import_files
from catalog.exchange.import_files import forget_file
from recommender.evidence import loading
from recommender.evidence import snapshots as module
from recommender.evidence.model import Evidence
from recommender.evidence.snapshots import Snapshots
from tests.recommender.conftest import Writer

# How an evidence was read, and when, says nothing of what it holds.
_OF_READING = {"loaded_at", "linked_strategies", "read_subjects", "memo"}


def content(value: Any) -> Any:
    """Return plain values that are equal where two evidences are."""
    if is_dataclass(value):
        return {own.name: content(getattr(value, own.name)) for own in fields(value) if own.name not in _OF_READING}
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.tolist()
    if isinstance(value, Mapping):
        return {name: content(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [content(member) for member in value]
    return value


def newest(snapshots: Snapshots, former: Evidence) -> Evidence:
    """Return the evidence after a change, however long reading it takes."""
    while (evidence := snapshots.current()) is former:
        time.sleep(0.01)
    return evidence


@pytest.fixture
def snapshots(location: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Snapshots]:
    # A server whose announcements are not heard is asked again after so long.
    monkeypatch.setattr(module, "_BLIND_REFRESH_S", 0.01)
    opened = Snapshots(location)
    yield opened
    opened.close()


@pytest.fixture
def estate(writer: Writer) -> Writer:
    """Three subjects with two strategies each, and a second environment."""
    environment = writer.environment()
    for subject in ("net", "other", "third"):
        for operator in ("identity", "quantized"):
            writer.strategy(environment, operator, "mobile", 0.1, subject=subject)
            writer.judge(environment, operator, 90.0, subject=subject)
    return writer


def changes(writer: Writer, rng: random.Random, tmp_path: Path) -> Mapping[str, Callable[[], Any]]:
    """Return what fills, `verify --rejudge`, imports and `forget` do to the evidence."""
    rows = tmp_path / "rows.csv"
    header = "subject,operator,placement,input_id,repetition,round,latency_s"
    strategies = [(operator, factor) for operator, factor in (("identity", 1.0), ("quantized", 0.7))]
    rows.write_text(
        "\n".join(
            [
                header,
                *(
                    f"foreign,{operator},mobile,{item},0,{number},{factor * (0.1 + 0.001 * item)}"
                    for operator, factor in strategies
                    for number in (1, 2)
                    for item in range(10)
                ),
            ]
        )
    )
    subject, operator = rng.choice(("net", "other", "third")), rng.choice(("identity", "quantized"))
    number = {"number": 10 + rng.randrange(1000)}

    def execute(statement: str) -> None:
        with writer.database.writing_session() as session:
            session.execute(text(statement))
            session.commit()

    last = f"(SELECT MAX(id) FROM measurement WHERE subject = '{subject}' AND operator = '{operator}')"
    return {
        "round": lambda: writer.measure(1, operator, "mobile", 0.05 + rng.random(), subject=subject, **number),
        "doubt": lambda: execute(f"UPDATE measurement SET verdict = 'DOUBTFUL', reason = 'new' WHERE id = {last}"),
        "invalid": lambda: execute(f"UPDATE measurement SET verdict = 'INVALID', reason = 'bad' WHERE id = {last}"),
        "delete": lambda: execute(f"DELETE FROM measurement WHERE id = {last}"),
        "undeclare": lambda: execute(f"UPDATE strategy SET declared = NOT declared WHERE subject = '{subject}'"),
        "declare": lambda: writer.declare(1, f"cut{number['number']}", "mobile", subject=subject),
        "environment": lambda: writer.declare_as_in(1, writer.environment(f"env-{number['number']}")),
        "import": lambda: import_files(writer.database, [rows]),
        "forget": lambda: forget_file(writer.database, "rows.csv") if rows.exists() else None,
    }


@pytest.mark.both_databases
def test_after_any_change_it_is_what_reading_all_gives(
    estate: Writer, snapshots: Snapshots, location: str, tmp_path: Path
) -> None:
    rng = random.Random(1)
    evidence = snapshots.current()
    names = ["import", "round", "doubt", "invalid", "delete", "undeclare", "declare", "environment", "round", "forget"]
    partial = 0
    for name in names:
        changes(estate, rng, tmp_path)[name]()
        evidence = newest(snapshots, evidence)
        partial += evidence.read_subjects is not None
        whole = Snapshots(location)
        assert content(evidence) == content(whole.current()), name
        whole.close()
    assert partial >= 5


def test_a_new_round_reads_its_subject_alone(
    estate: Writer, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshots.current()
    subjects: list[str | None] = []
    read, checked = loading.strategy_evidence, row_checks.unsound_rows

    def reading(reader: Any, *, subject: str | None = None, **options: Any) -> Any:
        subjects.append(subject)
        return read(reader, subject=subject, **options)

    def checking(*arguments: Any) -> Any:
        subjects.append("every row")
        return checked(*arguments)

    monkeypatch.setattr(loading, "strategy_evidence", reading)
    monkeypatch.setattr(row_checks, "unsound_rows", checking)
    estate.measure(1, "identity", "mobile", 0.2, subject="other", number=9)
    after = newest(snapshots, before)
    assert subjects == ["other"] and after.read_subjects == {"other"}
    assert after.subjects["net"][0] is before.subjects["net"][0]
    assert after.select("other").candidates[0].rounds == before.select("other").candidates[0].rounds + 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE measurement SET verdict = 'MAYBE' WHERE id = 1",
        "UPDATE artifact SET status = 'perhaps' WHERE id = 1",
        "INSERT INTO sample (measurement_id, seq, input_id, repetition, latency_s, transmission_s) "
        "SELECT MAX(id), 99, 'new', 0, -1.0, 0.0 FROM measurement",
    ],
)
def test_a_new_row_that_no_answer_can_use_is_left_out(estate: Writer, snapshots: Snapshots, statement: str) -> None:
    before = snapshots.current()
    assert before.left_out == ()
    estate.measure(1, "identity", "mobile", 0.2, subject="other", number=9)
    with estate.database.writing_session() as session:
        session.execute(text(statement))
        session.commit()
    assert newest(snapshots, before).left_out


BELOW_ROWS = (
    "INSERT INTO input_pool (id, key, unit, created_at) VALUES (1, 'pool', 'bytes', '')",
    "INSERT INTO pool_input (pool_id, input_id, size) VALUES (1, 'a', 10), (1, 'b', 20)",
    "UPDATE measurement SET pool_key = 'pool' WHERE id = 1",
    "UPDATE sample SET latency_s = 0.1 * seq WHERE measurement_id = 1",
    "INSERT OR REPLACE INTO sample_link (sample_id, link, sent_bytes, received_bytes) "
    "SELECT id, 'mobile-edge', 10 * seq, 7 FROM sample WHERE measurement_id = 1",
    "INSERT INTO accuracy_class_item (accuracy_id, item_id, class_id, intersection_px, union_px) "
    "VALUES (1, 'a', 0, 5, 9)",
)
CHANGED_IN_PLACE = {
    "latencies exchanged": "UPDATE sample SET latency_s = 0.1 * (6 - seq) WHERE measurement_id = 1 AND seq IN (2, 4)",
    "id of an input": "UPDATE sample SET input_id = 'another' WHERE measurement_id = 1 AND seq = 3",
    "sent bytes exchanged": "UPDATE sample_link SET sent_bytes = 60 - sent_bytes WHERE sent_bytes IN (20, 40)",
    "received bytes": "UPDATE sample_link SET received_bytes = 8 WHERE sent_bytes = 20",
    "hits exchanged": "UPDATE accuracy_item SET top1 = NOT top1 WHERE rowid IN "
    "(SELECT MIN(rowid) FROM accuracy_item WHERE accuracy_id = 1 GROUP BY top1)",
    "pixels": "UPDATE accuracy_class_item SET intersection_px = 4",
    "memory": "UPDATE tier_run SET memory_peak_bytes = 2 * memory_peak_bytes",
    "sizes of inputs": "UPDATE pool_input SET size = 30 - size",
}


@pytest.mark.parametrize("statement", CHANGED_IN_PLACE.values(), ids=CHANGED_IN_PLACE)
def test_what_another_program_changed_below_a_row_is_a_change_of_its_subject(writer: Writer, statement: str) -> None:
    """The rows above are what they were, and so are the sums of what was exchanged."""
    environment = writer.environment()
    for subject in ("net", "other"):
        writer.declare(environment, "identity", "mobile", subject=subject)
        writer.measure(environment, "identity", "mobile", 0.1, subject=subject, inputs=5, used={"mobile": (10**6, 0.1)})
        writer.judge(environment, "identity", 50.0, subject=subject, items=4)

    def subjects_after(*statements: str) -> Mapping[tuple[str, int], int]:
        with writer.database.writing_session() as session:
            for changing in statements:
                assert session.execute(text(changing)).rowcount  # type: ignore[attr-defined]
            session.commit()
        with writer.database.reading() as reader:
            return evidence_digests(reader).subjects

    before, after = subjects_after(*BELOW_ROWS), subjects_after(statement)
    changed = {place[0] for place, digest in after.items() if digest != before[place]}
    assert changed == ({"net", "other"} if "tier_run" in statement else {"net"})


def test_samples_that_another_program_changed_in_place_are_read_again(estate: Writer, snapshots: Snapshots) -> None:
    before = snapshots.current()
    with estate.database.writing_session() as session:
        session.execute(text("UPDATE sample SET latency_s = latency_s * 2 WHERE measurement_id = 1 AND seq = 3"))
        session.commit()
    after = newest(snapshots, before)
    assert after.read_subjects == {"net"}
    assert max(after.select("net").candidates[0].latency_s[0]) == 2 * max(
        before.select("net").candidates[0].latency_s[0]
    )
