"""One model through the commands a user types: from `runner init` to `runner recommend`.

Every command is the installed one in a process of its own. An operator has worked when its files compute what they
are to compute; it was refused when the reason is one that the graph makes true (`models.Limit`); all else failed.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from benchmarks.foreign.inputs import ModelData, write_inputs
from benchmarks.foreign.models import OPERATORS, ForeignModel
from benchmarks.foreign.numbers import BuiltOperator, NumericResult, check_numbers

TIMED_INPUTS = 5
_DEADLINE_S = 900
# Both tiers together fit two cores, and the link is fast, so that a fill takes seconds.
_MEASURED = {
    "tiers": {"near": {"cpus": 1, "memory": "2g"}, "far": {"cpus": 1, "memory": "2g"}},
    "links": {"near-far": {"bandwidth": "200mbit"}},
    "strategies": [
        {"operators": [name for name in OPERATORS if "partition" not in name], "placements": ["near"]},
        {"operators": [name for name in OPERATORS if "partition" in name], "placements": ["near-far"]},
    ],
    "experiment": {"inputs": TIMED_INPUTS, "rounds": 1, "race": False},
    "slos": {"second": {"latency": {"p90": "1s"}}},
}
_STRATEGIES = (
    "SELECT s.operator, s.status, s.reason, m.status AS measured, m.verdict, m.reason AS measurement_reason, "
    "(SELECT count(*) FROM sample WHERE measurement_id = m.id) AS samples "
    "FROM strategy s LEFT JOIN measurement m ON m.latency_key = s.latency_key"
)
State = Literal["worked", "refused", "failed"]


@dataclass(frozen=True)
class Step:
    """The outcome of one command, or of one operator."""

    name: str
    state: State
    words: str
    seconds: float
    size_bytes: int | None = None


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def problem(self) -> str:
        """Return the last message, on one line."""
        lines = " ".join(self.stderr.split()) or " ".join(self.stdout.split()) or "it printed nothing"
        return f"exit {self.code}: {lines[-600:]}"


@dataclass
class Journey:
    """A model in a folder of its own; `built` grows with each operator that applies."""

    model: ForeignModel
    folder: Path
    built: dict[str, BuiltOperator] = field(default_factory=dict)

    def steps(self, file: Path) -> Iterator[Step]:
        """Yield the outcome of each step; the later ones are left out where there is no catalog."""
        path = self.folder / f"{self.model.name}.onnx"
        shutil.copyfile(file, path)
        data = write_inputs(self.model, self.folder)
        begun = self._begin(path, data)
        yield begun
        if begun.state != "worked":
            return
        reasons: dict[str, str] = {}
        for operator in OPERATORS:
            step = self._apply(operator, path, data)
            if step.state != "worked":
                reasons[operator] = step.words
            yield step
        yield self._fill(reasons)
        yield self._recommend()

    def _begin(self, path: Path, data: ModelData) -> Step:
        """Write a catalog, check it, and make of it one that measures little."""
        written = self._run("init", "--model", path.name, "--data", data.data.name)
        if written.code:
            return self._refusal("init", written)
        checked = self._run("validate")
        seconds = written.seconds + checked.seconds
        if checked.code:
            return Step("validate", "failed", checked.problem, seconds)
        catalog = yaml.safe_load((self.folder / "strategies.yaml").read_text(encoding="utf-8"))
        (subject,) = catalog["subjects"].values()
        small = {key: catalog[key] for key in ("version", "subjects", "operators")} | _MEASURED
        (self.folder / "small.yaml").write_text(yaml.safe_dump(small, sort_keys=False), encoding="utf-8")
        return Step(
            "init, validate", "worked", f"task: {subject['task']}, data: {', '.join(subject['dataset'])}", seconds
        )

    def _apply(self, operator: str, path: Path, data: ModelData) -> Step:
        output = self.folder / f"out-{operator}"
        options = ("-o", output.name, "-c", "small.yaml", "--calibration", data.calibration.name, "--json")
        applied = self._run("apply", operator, path.name, *options)
        if applied.code:
            return self._refusal(operator, applied)
        manifest = json.loads(applied.stdout)
        files = [output / file["file"] for file in manifest["files"]]
        self.built[operator] = BuiltOperator(files, manifest)
        started = time.monotonic()
        try:
            numbers = check_numbers(operator, path, self.built, data.feeds)
        # Whatever the engine raises is the result: these files do not run on the user's own inputs.
        except Exception as error:  # noqa: BLE001
            state, words = False, f"does not run: {' '.join(str(error).split())[:300]}"
        else:
            state, words = numbers.right, numbers.words
            if numbers.right:
                state, words = as_stated(manifest, numbers)
        seconds = applied.seconds + time.monotonic() - started
        return Step(operator, "worked" if state else "failed", words, seconds, manifest["size_bytes"])

    def _refusal(self, operator: str, applied: Answer) -> Step:
        """Return a refusal where its reason is the one in the graph, else a failure."""
        message = " ".join(applied.stderr.split()).removeprefix("error: ")
        limit = self.model.limits.get(operator)
        if applied.code != 1 or limit is None or limit.words not in message:
            return Step(operator, "failed", applied.problem, applied.seconds)
        return Step(operator, "refused", f"{message} ({limit.reason})", applied.seconds)

    def _fill(self, reasons: Mapping[str, str]) -> Step:
        filled = self._run(
            "fill-catalog", "-c", "small.yaml", "-d", "foreign.db", "--launcher", "process", "--no-race", "--json"
        )
        if filled.code:
            return Step("fill", "failed", filled.problem, filled.seconds)
        rows = json.loads(self._run("sql", _STRATEGIES, "-d", "foreign.db", "--json").stdout)
        problems = list(contradictions(rows, reasons))
        verdicts = sorted(row["verdict"] for row in rows if row["verdict"])
        counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
        words = "; ".join(problems) or f"{counts}, {len(reasons)} inapplicable as above"
        return Step("fill", "failed" if problems else "worked", words, filled.seconds)

    def _recommend(self) -> Step:
        answer = self._run("recommend", self.model.name, "-d", "foreign.db", "--max-latency", "10s", "--json")
        try:
            body = json.loads(answer.stdout)
        except ValueError:
            return Step("recommend", "failed", answer.problem, answer.seconds)
        (self.folder / "answer.json").write_text(answer.stdout, encoding="utf-8")
        best = body["recommendation"]
        if best is None:
            return Step("recommend", "failed", f"{body['status']}: {body['summary']}", answer.seconds)
        problem = overclaim(best)
        words = (
            problem or f"{body['status']}: {best['operator'].replace('_', ' ')}; {best.get('quality') or 'identity'}"
        )
        return Step("recommend", "failed" if problem else "worked", words, answer.seconds)

    def _run(self, *arguments: str) -> Answer:
        environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TIERWISE_WORKDIR": ".tierwise"}
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "runner", *arguments],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=_DEADLINE_S, check=False,
        )  # fmt: skip
        with (self.folder / "commands.log").open("a", encoding="utf-8") as log:
            log.write(f"$ runner {' '.join(arguments)}  # exit {done.returncode}\n{done.stdout[-4000:]}{done.stderr}\n")
        return Answer(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def as_stated(manifest: Mapping[str, Any], numbers: NumericResult) -> tuple[bool, str]:
    """Return whether the distance in the manifest is that of the benchmark, which ran the same inputs."""
    stated = (manifest.get("distance") or {}).get("relative_error")
    if stated is None or numbers.distance is None or abs(stated - numbers.distance) <= 0.01 * max(stated, 1e-6):
        return True, numbers.words
    return False, f"{numbers.words}; the manifest states {stated:.2%}, and it is {numbers.distance:.2%}"


def overclaim(best: Mapping[str, Any]) -> str | None:
    """Return what an answer claims beyond five inputs without a truth to judge by; None where it claims nothing."""
    if best["status"] in ("proven", "likely"):
        return f"{best['status']} from {TIMED_INPUTS} inputs of one round"
    if best["accuracy"] is not None and best["accuracy"].get("metric") != "agreement":
        return "an accuracy, though there is no truth to judge by"
    # What is not the model itself has another quality, of which the answer must speak.
    if best["operator"] not in ("identity", "partition") and best["accuracy"] is None and not best.get("quality"):
        return f"nothing about the quality of {best['operator']}"
    return None


def contradictions(rows: Sequence[Mapping[str, Any]], reasons: Mapping[str, str]) -> Iterator[str]:
    """Yield where a fill ended otherwise than the operators by themselves."""
    by_operator = {row["operator"]: row for row in rows}
    for operator in OPERATORS:
        row = by_operator.get(operator)
        if row is None:
            yield f"{operator} is missing"
        elif operator in reasons:
            if row["status"] != "inapplicable":
                yield f"{operator} is {row['status']}"
        elif row["status"] == "inapplicable":
            yield f"{operator} is inapplicable here: {row['reason']}"
        elif row["measured"] != "complete" or row["verdict"] == "INVALID":
            yield f"{operator} was not measured: {row['measurement_reason']}"
        elif row["samples"] < TIMED_INPUTS:
            yield f"{operator} has {row['samples']} samples"
