"""`runner recommend --measure`: what a question lacks is measured, and nothing else; a model file is enough.

The way through real tiers is gone once; elsewhere rounds are scripted, while plans, looks and evidence are real.
"""

import json
import math
import os
import re
import shlex
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

from catalog.evidence.fill_lock import fill_lock
from catalog.evidence.writing import record_measurement
from runner.commands import kept_plan, measured_question, prepared_question
from runner.measuring.fill import Filler, StopRequest
from runner.measuring.plan import MissingAccuracy, MissingRound, Plan
from tests.catalog_of_one import CATALOG, declare
from tests.evidence_builder import STARTED, measurement_record, sample_records, tier_run_record
from tests.runner.commands.conftest import Command, Done

RACING = CATALOG | {
    "operators": {"identity": [], "quantized": ["static_ptq"]},
    "strategies": [{"operators": ["identity", "quantized"], "placements": ["mobile", "edge"]}],
    "experiment": {"inputs": 30, "rounds": 3, "race": True},
    "slos": {"fast": {"latency": {"p90": "150ms"}}},
}
LATENCIES_S = {"identity@mobile": 0.2, "identity@edge": 0.1, "quantized@mobile": 0.6, "quantized@edge": 0.3}
# Those of the catalog that is written for a model file.
DEFAULT_S = 0.25


class Track:
    """What was measured, in its order; `before` is called before every round."""

    def __init__(self) -> None:
        self.rounds: list[str] = []
        self.accuracies: list[str] = []
        self.before: Callable[[], None] = lambda: None


@pytest.fixture
def track(monkeypatch: pytest.MonkeyPatch) -> Iterator[Track]:
    """Measure rounds of scripted latencies in place of real ones."""
    recorded = Track()

    class ScriptedFiller(Filler):
        def build(self, plan: Plan, stop: StopRequest, *, ends: float = math.inf) -> None:
            """Build nothing."""

        def _usable(self, keyed: object, key: str) -> bool:
            return True

        def _judge(self, task: MissingAccuracy, *, again: bool = False) -> None:
            recorded.accuracies.append(task.keyed.strategy.operator)

        def _measure(self, task: MissingRound, position: int, seed: int, *, again: bool = False) -> None:
            recorded.before()
            strategy = task.keyed.strategy
            name = f"{strategy.operator}@{strategy.placement.name}"
            recorded.rounds.append(name)
            rng = np.random.default_rng([task.round, *name.encode()])
            record = measurement_record(
                self.environment_id,
                strategy.subject,
                strategy.operator,
                strategy.placement.name,
                task.round,
                latency_key=task.keyed.latency_key,
                finished_at=STARTED + timedelta(seconds=2),
                look=task.look.look,
                error_share=task.look.error_share,
                samples=sample_records(LATENCIES_S.get(name, DEFAULT_S) * np.exp(rng.normal(0, 0.005, 30))),
                tier_runs=[tier_run_record(tier) for tier in strategy.placement.tiers],
            )
            with self.database.session() as writing:
                record_measurement(writing, record)
                writing.commit()
            self.outcome.measured += 1

    monkeypatch.setattr(measured_question, "Filler", ScriptedFiller)
    yield recorded


@pytest.fixture
def asking(command: Command, tmp_path: Path, sqlite_template: Path) -> Callable[..., Done]:
    """Ask in a directory with the catalog of one small model and no evidence yet, measuring with processes."""
    declare(tmp_path)
    shutil.copy(sqlite_template, tmp_path / "tierwise.db")
    (tmp_path / "strategies.yaml").write_text(yaml.safe_dump(RACING, sort_keys=False))

    def recommending(subject: str, *arguments: str) -> Done:
        return command("recommend", subject, *arguments, "--launcher", "process", "--measure", "10m")

    return recommending


def answered(done: Done) -> Mapping[str, Any]:
    answer: Mapping[str, Any] = json.loads(done.out)
    return answer


def best(done: Done) -> str:
    recommended = answered(done)["recommendation"]
    return f"{recommended['operator']}@{recommended['placement']}"


def test_a_question_is_measured_on_a_declared_testbed(command: Command, tmp_path: Path) -> None:
    declare(tmp_path)
    declared = CATALOG | {"testbeds": {"lab": {"engine": "local"}}}
    (tmp_path / "strategies.yaml").write_text(yaml.safe_dump(declared, sort_keys=False))
    question = ("recommend", "table", "--max-latency", "10s", "--percentile", "50", "--launcher", "process")
    first = command(*question, "--measure", "5m", "--on", "lab", "--json")
    assert first.code == 0 and answered(first)["status"] == "proven", first.err
    assert "testbed lab: process" in first.err and "measured " in first.err
    with closing(sqlite3.connect(tmp_path / "tierwise.db")) as database:
        assert {name for (name,) in database.execute("SELECT testbed FROM measurement")} == {"lab"}
    assert "Nothing had to be measured." in command(*question, "--measure", "5m", "--on", "lab").err
    assert "declares no testbed 'nowhere'" in command(*question, "--measure", "1m", "--on", "nowhere").said
    alone = command(*question, "--on", "lab")
    assert alone.code == 2 and "--on: it goes with --measure" in alone.said


def test_a_question_is_measured_through_real_tiers_and_answered_once(command: Command, tmp_path: Path) -> None:
    declare(tmp_path)
    question = ("recommend", "table.onnx", "--max-latency", "10s", "--percentile", "50", "--launcher", "process")
    first = command(*question, "--measure", "5m", "--json")
    assert first.code == 0, first.err
    assert answered(first)["status"] == "proven" and answered(first)["subject"] == "table"
    assert re.search(r"to measure: .*, about .* and the time to build \d+ models?, for ", first.err)
    assert "measured " in first.err
    again = command(*question, "--measure", "5m", "--json")
    assert "Nothing had to be measured." in again.err and again.out == first.out
    # Without --measure the evidence that there is answers.
    assert answered(command(*question, "--json"))["recommendation"] == answered(first)["recommendation"]


def test_a_race_is_over_once_the_answer_is_proven(asking: Callable[..., Done], track: Track) -> None:
    done = asking("table", "--max-latency", "150ms", "--json")
    assert (done.code, best(done), answered(done)["status"]) == (0, "identity@edge", "proven")
    # The slow ones are measured less than the one that is proven.
    assert track.rounds.count("quantized@mobile") < track.rounds.count("identity@edge")
    assert answered(done)["to_do"] is None
    before = len(track.rounds)
    assert "Nothing had to be measured." in asking("table", "--max-latency", "150ms", "--json").err
    assert len(track.rounds) == before


def test_what_the_constraints_exclude_is_not_measured(asking: Callable[..., Done], track: Track) -> None:
    done = asking("table", "--max-latency", "1s", "--forbid-tier", "edge", "--forbid-operator", "quantized", "--json")
    assert best(done) == "identity@mobile" and set(track.rounds) == {"identity@mobile"}
    assert not track.accuracies, "the question has no budget of accuracy"
    # Another question measures what it lacks beside that.
    assert best(asking("table", "--max-latency", "1s", "--json")) == "identity@edge"
    assert set(track.rounds) == set(LATENCIES_S)


def test_nothing_is_measured_where_nothing_is_admitted(asking: Callable[..., Done], track: Track) -> None:
    assert asking("table", "--max-latency", "1s").code == 0
    before = len(track.rounds)
    done = asking("table", "--max-latency", "1s", "--forbid-tier", "edge", "--forbid-tier", "mobile", "--json")
    assert answered(done)["infeasible"]["status"] == "proven" and len(track.rounds) == before


def test_a_drop_needs_the_accuracy_of_identity(asking: Callable[..., Done], track: Track, tmp_path: Path) -> None:
    declare(tmp_path, labels=True)
    judged = {"table": {"model": "./table.onnx", "task": "classification", "dataset": {"tensors": "table.npz"}}}
    (tmp_path / "strategies.yaml").write_text(yaml.safe_dump(RACING | {"subjects": judged}, sort_keys=False))
    asking("table", "--max-latency", "1s", "--max-drop", "1", "--forbid-operator", "identity")
    assert sorted(track.accuracies) == ["identity", "quantized"]
    assert set(track.rounds) == {"quantized@mobile", "quantized@edge"}


def test_a_slo_of_the_catalog_is_a_question(asking: Callable[..., Done], track: Track) -> None:
    done = asking("table", "--slo", "fast", "--json")
    assert best(done) == "identity@edge" and answered(done)["budgets"]["slo"] == "fast"


def test_a_stop_answers_from_what_is_there(asking: Callable[..., Done], track: Track) -> None:
    def interrupt() -> None:
        if len(track.rounds) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    track.before = interrupt
    done = asking("table", "--max-latency", "150ms", "--json")
    assert len(track.rounds) == 4, "the measurement in flight is finished"
    assert answered(done)["recommendation"] is not None and done.code == 1


def test_a_second_stop_answers_at_once(asking: Callable[..., Done], track: Track) -> None:
    def interrupt() -> None:
        if len(track.rounds) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    track.before = interrupt
    done = asking("table", "--max-latency", "150ms", "--json")
    assert len(track.rounds) == 3 and "the answer is from what was measured so far" in done.said
    assert answered(done)["recommendation"] is not None


def test_other_subjects_stay_declared(asking: Callable[..., Done], track: Track, tmp_path: Path) -> None:
    asking("table", "--max-latency", "1s")
    (tmp_path / "second.onnx").write_bytes((tmp_path / "table.onnx").read_bytes())
    subjects = {"second": RACING["subjects"]["table"] | {"model": "./second.onnx"}}
    (tmp_path / "second.yaml").write_text(yaml.safe_dump(RACING | {"subjects": subjects}, sort_keys=False))
    asking("second", "--max-latency", "1s", "-c", "second.yaml")
    with closing(sqlite3.connect(tmp_path / "tierwise.db")) as database:
        rows = database.execute(
            "SELECT subject, COUNT(*) FROM strategy WHERE declared GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert rows == [("second", 4), ("table", 4)]


def test_targets_of_another_catalog_stay_declared(asking: Callable[..., Done], track: Track, tmp_path: Path) -> None:
    assert asking("table", "--slo", "fast").code == 0
    other = {name: value for name, value in RACING.items() if name != "slos"}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other, sort_keys=False))
    assert asking("table", "--max-latency", "1s", "-c", "other.yaml").code == 0
    with closing(sqlite3.connect(tmp_path / "tierwise.db")) as connection:
        assert connection.execute("SELECT name FROM slo").fetchall() == [("fast",)]


def test_a_model_file_is_enough(asking: Callable[..., Done], track: Track, tmp_path: Path) -> None:
    (tmp_path / "strategies.yaml").unlink()
    done = asking("table.onnx", "--data", "table.npz", "--max-latency", "1s", "--json")
    assert "written: strategies.yaml" in done.err
    assert answered(done)["subject"] == "table" and done.code == 0, done.err
    written = (tmp_path / "strategies.yaml").read_text()
    assert "Nothing had to be measured." in asking("table.onnx", "--data", "table.npz", "--max-latency", "1s").err
    assert (tmp_path / "strategies.yaml").read_text() == written


def test_models_that_take_longer_to_build_than_may_be_measured_are_said(command: Command, tmp_path: Path) -> None:
    declare(tmp_path)
    question = ("recommend", "table.onnx", "--max-latency", "10s", "--launcher", "process")
    done = command(*question, "--measure", "1ms")
    assert done.code == 1 and "measured 0 rounds" in done.said and " · build " not in done.err
    assert "The time was over before a round began" in done.said and "with a longer --measure" in done.said


def test_the_next_command_asks_again_with_the_same_files(
    asking: Callable[..., Done], command: Command, track: Track, tmp_path: Path
) -> None:
    (tmp_path / "strategies.yaml").rename(tmp_path / "mine.yaml")
    track.before = lambda: os.kill(os.getpid(), signal.SIGINT)
    done = asking("table", "--max-latency", "250ms", "--allow-operator", "identity", "-c", "mine.yaml", "-d", "mine.db")
    assert len(track.rounds) == 1, "one round alone does not prove it"
    (line,) = (line for line in done.out.splitlines() if line.strip().startswith("runner recommend table"))
    options = "--max-latency 250ms --allow-operator identity --launcher process --measure 1m -c mine.yaml -d mine.db"
    assert line.strip() == f"runner recommend table {options}"
    track.before = lambda: None
    again = command(*shlex.split(line)[1:], "--json")
    assert (again.code, best(again)) == (0, "identity@edge")
    assert answered(again)["to_do"] is None and set(track.rounds) == {"identity@edge", "identity@mobile"}


@pytest.mark.parametrize(
    ("subject", "arguments", "says"),
    [
        ("tabel", (), "strategies.yaml declares no subject 'tabel'; declared: table. Did you mean table?"),
        ("table", ("--slo", "slow"), "strategies.yaml declares no SLO 'slow'; declared: fast"),
        ("table", ("--forbid-tier", "moon"), "declares no tier 'moon'; declared: mobile, edge"),
        ("table", ("--allow-operator", "pruned"), "declares no operator 'pruned'"),
        ("table", ("--max-model", "moon=1g"), "declares no tier 'moon'"),
        ("table", ("--link", "mobile-edge=10mbit"), "an answer for other links is predicted"),
        ("table", ("--host", "elsewhere"), "host elsewhere is not this one"),
        ("table", ("--environment", "0" * 64), "is not what would be measured here"),
        ("table", ("--data", "table.npz"), "--data goes with a model file such as my.onnx, got 'table'"),
        ("table", ("-c", "nowhere.yaml"), "nowhere.yaml"),
        ("no.onnx", ("--data", "table.npz"), "there is no model file no.onnx"),
        ("other.onnx", ("--data", "table.npz"), "strategies.yaml exists and does not declare other.onnx"),
        ("other.onnx", ("-c", "new.yaml"), "name the data of other.onnx with --data"),
        ("table.onnx", ("--data", "other.npz"), "declares this model with table.npz, got --data other.npz"),
        ("table.onnx", ("--labels", "l.csv"), "declares this model with none, got --labels l.csv"),
        ("table.onnx", ("--task", "classification"), "declares this model with any, got --task classification"),
        ("table.onnx", ("--task", "sorting"), "allowed: classification, segmentation, any"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_error(
    asking: Callable[..., Done], track: Track, tmp_path: Path, subject: str, arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "other.onnx").write_bytes((tmp_path / "table.onnx").read_bytes())
    done = asking(subject, *arguments)
    assert done.code in (1, 2) and says in done.said and not done.out
    assert not track.rounds and not (tmp_path / "new.yaml").exists()


@pytest.mark.parametrize(
    ("subject", "arguments", "says"),
    [
        ("table", ("--data", "table.npz"), "it goes with --measure"),
        ("other.onnx", (), "strategies.yaml exists and does not declare other.onnx"),
        ("other.onnx", ("-c", "new.yaml"), "measure it with: --measure 10m --data FOLDER"),
    ],
)
def test_without_measuring_a_model_file_has_to_be_declared(
    command: Command, tmp_path: Path, subject: str, arguments: tuple[str, ...], says: str
) -> None:
    declare(tmp_path)
    (tmp_path / "other.onnx").write_bytes((tmp_path / "table.onnx").read_bytes())
    done = command("recommend", subject, *arguments)
    assert done.code in (1, 2) and says in done.said


def test_another_fill_of_the_database_is_not_disturbed(
    asking: Callable[..., Done], track: Track, tmp_path: Path
) -> None:
    with fill_lock("tierwise.db"):
        done = asking("table", "--max-latency", "1s")
    assert done.code == 1 and "is filling it" in done.said and not track.rounds


def test_a_lack_of_docker_is_said(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    done = command("recommend", "table", "--max-latency", "1s", "--launcher", "docker", "--measure", "1m")
    assert done.code == 1 and "the Docker engine does not answer" in done.said


def test_the_wait_is_a_time(command: Command) -> None:
    done = command("recommend", "table", "--measure", "10")
    assert done.code == 2 and "write a time such as 90s, 10m or 2h" in done.said


@pytest.fixture
def again(asking: Callable[..., Done], track: Track, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Ask a question whose answer was measured, without the libraries that measure where `prompt`."""
    monkeypatch.setattr(kept_plan, "_SETTLED_NS", 0)
    assert asking("table", "--max-latency", "150ms").code == 0

    def asking_again(*arguments: str, prompt: bool) -> Done:
        with monkeypatch.context() as patched:
            if prompt:
                patched.setattr(measured_question, "measure_for", lambda *_, **__: pytest.fail("keys were computed"))
                patched.setattr(prepared_question, "load_catalog", lambda *_: pytest.fail("the catalog was read"))
            return asking("table", *(arguments or ("--max-latency", "150ms")), "--json")

    return asking_again


def test_the_next_question_is_answered_without_what_measures(again: Callable[..., Done], track: Track) -> None:
    before = len(track.rounds)
    done = again(prompt=True)
    assert (done.code, best(done), answered(done)["status"]) == (0, "identity@edge", "proven")
    assert "Nothing had to be measured." in done.err and len(track.rounds) == before
    # Another budget, a declared target and constraints are other questions to the same evidence.
    assert best(again("--max-latency", "160ms", prompt=True)) == "identity@edge"
    assert best(again("--slo", "fast", prompt=True)) == "identity@edge"
    key = answered(done)["environment"]["key"]
    for characters in (64, 8):
        assert best(again("--max-latency", "150ms", "--environment", key[:characters], prompt=True)) == "identity@edge"
    nowhere = again("--max-latency", "1s", "--forbid-tier", "edge,mobile", prompt=True)
    assert answered(nowhere)["infeasible"]["status"] == "proven"


def _change_model(folder: Path) -> None:
    """Write another model of the same size, with the time of the former one."""
    model, status = folder / "table.onnx", (folder / "table.onnx").stat()
    other = onnx.load(model)
    other.graph.initializer[0].raw_data = np.full((8, 4), 2, np.float32).tobytes()
    onnx.save(other, model)
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert model.stat().st_size == status.st_size


def _change_data(folder: Path) -> None:
    np.savez(folder / "table.npz", row=np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32))


def _change_catalog(folder: Path) -> None:
    tiers = {"mobile": {"cpus": 0.25, "memory": "512m"}, "edge": {"cpus": 0.25, "memory": "512m"}}
    (folder / "strategies.yaml").write_text(yaml.safe_dump(RACING | {"tiers": tiers}, sort_keys=False))


def _remove_evidence(folder: Path) -> None:
    (folder / "tierwise.db").unlink()


def test_evidence_of_something_else_answers_nothing(again: Callable[..., Done], track: Track, tmp_path: Path) -> None:
    for change in (_change_model, _change_data, _change_catalog, _remove_evidence):
        change(tmp_path)
        before = len(track.rounds)
        assert best(again(prompt=False)) == "identity@edge"
        assert len(track.rounds) > before, f"{change.__name__} was not noticed"
    # What was measured then is kept in its turn.
    assert best(again(prompt=True)) == "identity@edge"


def test_a_kept_plan_hides_no_error_of_the_question(again: Callable[..., Done], asking: Callable[..., Done]) -> None:
    for arguments, says in (
        (("--forbid-tier", "moon"), "declares no tier 'moon'"),
        (("--slo", "slow"), "declares no SLO 'slow'; declared: fast"),
        (("--link", "mobile-edge=10mbit"), "an answer for other links is predicted"),
        (("--data", "table.npz"), "--data goes with a model file such as my.onnx, got 'table'"),
    ):
        done = asking("table", *arguments)
        assert done.code in (1, 2) and says in done.said and not done.out
    assert best(again(prompt=True)) == "identity@edge"


def test_the_next_question_about_a_model_file_reads_no_catalog(
    asking: Callable[..., Done], track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_plan, "_SETTLED_NS", 0)
    question = ("table.onnx", "--data", "table.npz", "--max-latency", "1s")
    assert asking(*question).code == 0
    with monkeypatch.context() as patched:
        patched.setattr(prepared_question, "load_catalog", lambda *_: pytest.fail("the catalog was read"))
        assert "Nothing had to be measured." in asking(*question).err
        assert "Nothing had to be measured." in asking("table.onnx", "--task", "any", "--max-latency", "1s").err
    for other, says in (
        (("--data", "other.npz"), "declares this model with table.npz, got --data other.npz"),
        (("--labels", "l.csv"), "declares this model with none, got --labels l.csv"),
        (("--task", "classification"), "declares this model with any, got --task classification"),
    ):
        assert says in asking("table.onnx", *other).said
