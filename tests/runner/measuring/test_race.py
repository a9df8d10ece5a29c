"""Races over scripted latencies: the plan, the looks and the stored evidence are real, only the timing is not."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from sqlalchemy import text

from catalog.declaration import parse_catalog
from catalog.errors import CatalogFileError
from catalog.evidence.database import Database, open_database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.writing import record_measurement
from catalog.statistics.feasibility import LOOKS, error_share
from recommender.evidence.loading import load
from recommender.ranking import Budgets, LatencyBudget, Status
from recommender.ranking.racing import Contest, RaceQuestion, at_look
from runner.artifacts.store import ArtifactStore
from runner.host import this_host
from runner.launchers.process import ProcessLauncher
from runner.launchers.select import Selection
from runner.measuring.fill import Filler, StopRequest
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.plan import EVERYTHING, FillScope, MissingAccuracy, MissingRound, Plan, make_plan
from runner.measuring.race import (
    TIME_OVER,
    UNMEASURABLE,
    Race,
    RaceOutcome,
    RaceResult,
    contest_words,
    declared_questions,
    race_plan,
)
from runner.measuring.setups import Setups, store_environment, sync_strategies
from runner.measuring.tiers import Scale
from runner.reports.plan import race_json, race_report
from tests.catalog_of_one import CATALOG, declare
from tests.evidence_builder import STARTED, measurement_record, sample_records, tier_run_record

ROUND_S = 2.0
OPERATORS = {"identity": [], "quantized": [{"static_ptq": {"calibration_samples": 8}}]}
# Quantized is slower everywhere, so that only identity's placements can answer.
LATENCIES = {
    "identity@mobile": 0.2, "identity@edge": 0.1, "identity@cloud": 0.13,
    "quantized@mobile": 0.6, "quantized@edge": 0.3, "quantized@cloud": 0.4,
}  # fmt: skip
# Near the budget, so that three rounds do not prove it.
CLOSE = LATENCIES | {"identity@edge": 0.146, "identity@cloud": 0.147}
RACING: dict[str, Any] = CATALOG | {
    "operators": OPERATORS,
    "tiers": {name: {"cpus": 0.5, "memory": "512m"} for name in ("mobile", "edge", "cloud")},
    "links": {link: {"bandwidth": "200mbit"} for link in ("mobile-edge", "edge-cloud")},
    "strategies": [{"operators": ["identity", "quantized"], "placements": ["mobile", "edge", "cloud"]}],
    "experiment": {"inputs": 30, "rounds": 3, "race": True},
    "slos": {"fast": {"latency": {"p90": "150ms"}}, "never": {"latency": {"p90": "1ms"}}},
}


class Watching(list[Sequence[str]]):
    """The lines of each look."""

    def begin(self, what: str, estimate_s: float) -> None:
        """Ignore that a task starts."""

    def advance(self, fraction: float) -> None:
        """Ignore how far it is."""

    def end(self, outcome: str) -> None:
        """Ignore how it ended."""

    def look(self, lines: Sequence[str], undecided: int, seconds_left: float | None) -> None:
        self.append(lines)


@dataclass
class Script:
    """What rounds would measure, and a clock that they move."""

    latencies_s: dict[str, float]
    verdict: Callable[[MissingRound], str] = lambda task: "VALID"
    before: Callable[[int], None] = lambda rounds: None
    now: float = 0.0
    begun: list[tuple[str, int]] = field(default_factory=list)

    def clock(self) -> float:
        return self.now


@dataclass(frozen=True)
class ScriptedFiller(Filler):
    """Stores scripted rounds in place of measuring."""

    script: Script = field(default_factory=lambda: Script(LATENCIES))

    def _usable(self, keyed: object, key: str) -> bool:
        return True

    def _judge(self, task: MissingAccuracy, *, again: bool = False) -> None:
        """Leave the accuracy unmeasured, and let it take a while."""
        self.script.now += 60.0

    def _measure(self, task: MissingRound, position: int, seed: int, *, again: bool = False) -> None:
        script, strategy = self.script, task.keyed.strategy
        script.before(len(script.begun))
        name = f"{strategy.operator}@{strategy.placement.name}"
        script.begun.append((name, task.round))
        script.now += ROUND_S
        rng = np.random.default_rng([task.round, *name.encode()])
        # Inputs differ little: what more rounds can show is how rounds differ.
        spread = rng.normal(0, 0.005, 30) + 0.03 * math.cos(2.1 * task.round + len(name))
        verdict = script.verdict(task)
        record = measurement_record(
            self.environment_id,
            strategy.subject,
            strategy.operator,
            strategy.placement.name,
            task.round,
            latency_key=task.keyed.latency_key,
            verdict=verdict,
            reason=None if verdict == "VALID" else "link rate",
            finished_at=STARTED + timedelta(seconds=ROUND_S),
            look=task.look.look,
            error_share=task.look.error_share,
            samples=sample_records(script.latencies_s[name] * np.exp(spread)),
            tier_runs=[tier_run_record(tier) for tier in strategy.placement.tiers],
        )
        with self.database.session() as writing:
            record_measurement(writing, record)
            writing.commit()
        if verdict == "INVALID":
            self.outcome.invalid.append(name)
            self.spoiled.append(task)
        else:
            self.outcome.measured += 1


@dataclass
class Track:
    """A catalog with its database, on which races are run."""

    folder: Path
    database: Database

    def context(self, **changes: Any) -> RunContext:
        catalog = parse_catalog(yaml.safe_dump(RACING | changes, sort_keys=False), self.folder / "strategies.yaml")
        return RunContext(catalog, self.folder, "process", Scale.parse("1"), self.folder, host=this_host())

    def planned(self, scope: FillScope = EVERYTHING, **changes: Any) -> Plan:
        return make_plan(self.context(**changes), self.database, scope)

    def filler(self, script: Script, plan: Plan, context: RunContext) -> ScriptedFiller:
        launcher = ProcessLauncher()
        with self.database.session() as writing:
            environment_id = store_environment(writing, context, Selection(launcher, "scripted"))
            sync_strategies(writing, plan, environment_id, context)
            writing.commit()
        setups = Setups(context, ArtifactStore(self.folder / "artifacts"), self.folder)
        return ScriptedFiller(setups, self.database, launcher, environment_id, Watching(), script=script)

    def race(
        self,
        script: Script | None = None,
        *,
        max_time_s: float | None = None,
        questions: Sequence[RaceQuestion] | None = None,
        stop: StopRequest | None = None,
        scope: FillScope = EVERYTHING,
        **changes: Any,
    ) -> RaceOutcome:
        context, script = self.context(**changes), script or Script(LATENCIES)
        plan = make_plan(context, self.database, scope)
        filler = self.filler(script, plan, context)
        race = Race(filler, questions=questions, max_time_s=max_time_s, clock=script.clock)
        return race.run(plan, stop or StopRequest(filler.watcher))

    def fill(self, scope: FillScope = EVERYTHING, **changes: Any) -> None:
        context = self.context(**changes)
        plan = make_plan(context, self.database, scope)
        filler = self.filler(Script(LATENCIES), plan, context)
        filler.measure_until_narrow(plan, StopRequest(filler.watcher))

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with self.database.session() as session:
            return [tuple(row) for row in session.execute(text(statement))]

    def rounds(self) -> dict[str, int]:
        counts = "SELECT operator || '@' || placement, COUNT(*) FROM measurement WHERE verdict <> 'INVALID' GROUP BY 1"
        return dict(self.query(counts))  # type: ignore[arg-type]


@pytest.fixture
def track(tmp_path: Path, database_url: str) -> Iterator[Track]:
    declare(tmp_path)
    with open_database(database_url) as database:
        yield Track(tmp_path, database)


def only(outcome: RaceOutcome) -> RaceResult:
    (result,) = outcome.results
    return result


def test_a_race_measures_most_what_decides_and_ends_when_all_is_decided(track: Track) -> None:
    result, rounds = only(track.race()), track.rounds()
    fast = result.contests[0]
    assert result.end is None and result.decided
    assert fast.leader is not None and (fast.leader.operator, fast.leader.placement) == ("identity", "edge")
    assert fast.answer.recommendation is not None and fast.answer.recommendation.status == "proven"
    assert max(rounds[name] for name in rounds if "quantized" in name) < rounds["identity@edge"]
    assert sum(rounds.values()) < 3 * len(LATENCIES)
    left = track.query("SELECT operator, by_operator, reason, look, rounds FROM race_departure")
    assert left and all(row[:4] == ("quantized", "identity", "beaten", 1) for row in left)
    # A race that is over has nothing to add.
    script = Script(LATENCIES)
    assert only(track.race(script)).decided and script.begun == []


def test_every_round_has_the_look_and_the_share_of_its_number(track: Track) -> None:
    track.race(Script(CLOSE), max_time_s=60)
    # Rivals drop out after any round, between two looks as well.
    assert {*track.rounds().values()} - {1, 2, *LOOKS}
    rows = track.query("SELECT DISTINCT round, look, error_share FROM measurement ORDER BY 1")
    assert len(rows) > 3
    assert rows[:5] == [(number, look, error_share(look)) for number, look in ((1, 1), (2, 1), (3, 1), (4, 2), (5, 2))]


def test_a_question_is_answered_at_a_look_and_never_between(track: Track) -> None:
    (fast, *_) = declared_questions(track.context().catalog)
    nearer = Script(LATENCIES | {"identity@edge": 0.144, "identity@cloud": 0.146})
    best = only(track.race(nearer, questions=[fast])).contests[0].answer.recommendation
    assert best is not None and best.status == "proven" and best.candidate.rounds > 3 and at_look(best.candidate)


def test_a_killed_race_continues_where_it_was(track: Track, tmp_path: Path) -> None:

    def kill(rounds: int) -> None:
        if rounds == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        track.race(Script(CLOSE, before=kill))
    assert sum(track.rounds().values()) == 7
    track.race(Script(CLOSE))
    with open_database(tmp_path / "whole.db", create=True) as database:
        whole = Track(track.folder, database)
        whole.race(Script(CLOSE))
        assert whole.rounds() == track.rounds()


def test_a_stopped_race_answers_from_the_last_complete_look(track: Track) -> None:
    stop = StopRequest(Watching())

    def request(rounds: int) -> None:
        stop.requested = rounds >= 8

    result = only(track.race(Script(LATENCIES, before=request), stop=stop))
    assert result.end == "stopped" and sum(track.rounds().values()) == 9
    # The first look was after one round of every strategy.
    assert {estimate.candidate.rounds for estimate in result.contests[0].answer.considered} == {1}


def test_no_round_begins_that_would_end_too_late(track: Track) -> None:
    script = Script(CLOSE)
    result = only(track.race(script, max_time_s=26.0))
    assert result.end == TIME_OVER
    # After the accuracies, whose time is not limited.
    assert script.now - 60.0 * len(track.planned().accuracies) <= 26.0 and result.seconds_to_look > 0
    lines = list(race_report(RaceOutcome((result,)), FillScope(only=("identity@edge",), race=True, max_time="26s")))
    assert lines[-1].endswith("runner fill-catalog --only identity@edge --race --max-time 1m")


def test_time_of_which_no_share_suffices_goes_to_one_subject(track: Track) -> None:
    np.savez(track.folder / "again.npz", row=np.ones((40, 8), np.float32))
    again = RACING["subjects"]["table"] | {"dataset": {"tensors": "again.npz"}}
    subjects = RACING["subjects"] | {"again": again}
    judging_s = 60.0 * len(track.planned(subjects=subjects).accuracies)
    script = Script(CLOSE)
    outcome = track.race(script, max_time_s=50.0, subjects=subjects)
    # Of six seconds, the next look of either takes four.
    assert script.now - judging_s == 48.0
    assert [result.rounds[f"{result.subject}/identity@edge"] for result in outcome.results] == [5, 3]


def test_two_subjects_of_one_model_and_the_same_data_share_their_rounds(track: Track) -> None:
    twins = {"subjects": dict.fromkeys(("table", "again"), RACING["subjects"]["table"])}
    assert len(track.planned(**twins).rounds) == 3 * len(LATENCIES)
    outcome = track.race(**twins)
    assert outcome.decided and {result.subject for result in outcome.results} == {"table", "again"}
    assert track.query("SELECT COUNT(*) - COUNT(DISTINCT latency_key || round) FROM measurement") == [(0,)]


def test_a_first_look_that_the_time_cuts_short_can_be_continued(track: Track) -> None:
    result = only(track.race(max_time_s=12.0))
    assert result.end == TIME_OVER and 0 < sum(result.rounds.values()) < len(LATENCIES)
    *_, spent, ending = race_report(RaceOutcome((result,)))
    assert "; 1 round of every strategy: 6," in spent
    assert ending.endswith("the next look needs about 1 min: runner fill-catalog --max-time 1m")


def test_a_time_that_is_too_short_for_any_round_measures_nothing(track: Track) -> None:
    script = Script(LATENCIES)
    result = only(track.race(script, max_time_s=0.5))
    assert script.begun == [] and result.end == TIME_OVER
    assert list(race_report(RaceOutcome((result,)))) == ["table: no round that counts, so nothing is decided"]


@pytest.mark.parametrize("broken", ["identity@edge", "@"])
def test_what_fails_again_and_again_is_given_up(track: Track, broken: str) -> None:
    def verdict(task: MissingRound) -> str:
        return "INVALID" if broken in task.keyed.strategy.name else "VALID"

    script = Script(LATENCIES, verdict=verdict)
    result = only(track.race(script))
    failing = [name for name, _ in script.begun if broken in name]
    assert len(failing) == 2 * len({*failing})
    if broken == "@":
        assert result.rounds == dict.fromkeys(result.rounds, 0)
        assert result.end == UNMEASURABLE
    else:
        assert result.contests[0].leader is not None and result.contests[0].leader.placement == "cloud"


def test_without_targets_the_fastest_is_what_is_raced_for(track: Track) -> None:
    result = only(track.race(slos={}))
    assert [contest.question.name for contest in result.contests] == ["fastest"]
    assert result.contests[0].leader is not None and result.contests[0].leader.placement == "edge"
    assert next(iter(race_report(RaceOutcome((result,))))).startswith("table · fastest: identity on edge")


def test_one_strategy_races_alone_until_its_target_is_decided(track: Track) -> None:
    strategies = [{"operators": ["identity"], "placements": ["edge"]}]
    result = only(track.race(strategies=strategies))
    assert result.decided and result.rounds == {"table/identity@edge": 3}


def test_a_race_that_is_over_is_complete_evidence(track: Track) -> None:
    track.race()
    (subject,) = load(track.database).subjects["table"]
    assert min(candidate.rounds for candidate in subject.candidates) < 3 and subject.complete
    with track.database.session() as session:
        assert all(strategy.complete for strategy in strategy_evidence(session))


def test_a_link_that_changes_is_raced_for_anew(track: Track) -> None:
    track.race()
    before = sum(track.rounds().values())
    slower = {"links": RACING["links"] | {"edge-cloud": {"bandwidth": "10mbit"}}}
    planned = race_plan(track.planned(**slower), track.context(**slower), track.database)
    assert {task.keyed.strategy.placement.name for task in planned.rounds} == {"cloud"}
    script = Script(LATENCIES)
    assert only(track.race(script, **slower)).decided
    assert {name.partition("@")[2] for name, _ in script.begun} == {"cloud"}
    assert sum(track.rounds().values()) == before + len(script.begun)


def test_a_strategy_that_is_new_joins_a_race_that_was_over(track: Track) -> None:
    strategies = [{"operators": ["identity"], "placements": ["edge"]}]
    track.race(strategies=strategies)
    assert {task.keyed.strategy.name for task in track.planned().rounds} >= {"table/identity@cloud"}
    result = only(track.race())
    assert result.rounds["table/identity@cloud"] and result.decided


def test_a_race_for_one_question_measures_nothing_for_others(track: Track) -> None:
    context = track.context()
    never = declared_questions(context.catalog)[1]
    track.race(questions=[never])
    of_one = sum(track.rounds().values())
    track.race()
    assert of_one < sum(track.rounds().values())
    # Only the race of the catalog says who left.
    assert track.query("SELECT COUNT(*) > 0 FROM race_departure") == [(1,)]


def test_a_plan_of_a_race_lists_the_rounds_until_the_next_look(track: Track) -> None:
    context = track.context()
    first = race_plan(track.planned(), context, track.database)
    assert len(first.rounds) == 3 * len(LATENCIES)
    track.race(Script(CLOSE), max_time_s=26.0)
    later = race_plan(track.planned(), context, track.database)
    assert 0 < len(later.rounds) < len(first.rounds)
    assert all(task.reason.endswith("undecided") for task in later.rounds)


def test_a_scope_limits_a_race_to_its_strategies(track: Track) -> None:
    script = Script(LATENCIES)
    track.race(script, scope=FillScope(only=("identity@edge", "quantized@edge")))
    assert {name for name, _ in script.begun} == {"identity@edge", "quantized@edge"}


def test_an_extension_of_a_fixed_fill_is_one_more_look(track: Track) -> None:
    fixed = {
        "experiment": {"inputs": 30, "rounds": 3},
        "strategies": [{"operators": ["identity"], "placements": ["edge"]}],
    }
    track.fill(**fixed)
    track.fill(FillScope(rounds=5), **fixed)
    track.fill(FillScope(rounds=6), **fixed)
    track.race(scope=FillScope(race=True), max_time_s=1.0, **fixed)
    rows = track.query("SELECT round, look, error_share FROM measurement ORDER BY 1")
    assert rows[:3] == [(number, None, None) for number in (1, 2, 3)]
    assert rows[3:] == [(4, 2, error_share(2)), (5, 2, error_share(2)), (6, 3, error_share(3))]


def test_a_longer_fixed_fill_from_nothing_is_one_look(track: Track) -> None:
    fixed = {
        "experiment": {"inputs": 30, "rounds": 3},
        "strategies": [{"operators": ["identity"], "placements": ["edge"]}],
    }
    track.fill(FillScope(rounds=5), **fixed)
    assert track.query("SELECT DISTINCT look, error_share FROM measurement") == [(None, None)]


def test_a_round_that_is_measured_again_keeps_its_look(track: Track) -> None:
    track.race(Script(LATENCIES, verdict=lambda task: "DOUBTFUL"))
    again = make_plan(
        track.context(experiment={"inputs": 30, "rounds": 3}), track.database, FillScope(redo_doubtful=True)
    )
    redone = [task for task in again.rounds if task.supersedes]
    assert redone and {task.look.look for task in redone} == {1}


def test_a_race_says_for_programs_how_it_ended(track: Track) -> None:
    outcome = track.race()
    (ended,) = race_json(outcome)
    assert ended["decided"] and ended["end"] is None
    assert ended["questions"][0] == {
        "question": "fast", "operator": "identity", "placement": "edge", "status": "proven",
        "probability": pytest.approx(1, abs=0.05), "undecided": 0,
    }  # fmt: skip
    assert all(math.isfinite(ended["rounds"][name]) for name in ended["rounds"])
    assert "left after" in ended["left"][0]["words"]
    said = list(race_report(outcome))
    assert said[0] == "table · fast: identity on edge, proven, after 3 rounds"
    # That nothing keeps a thousandth of a second is proven as well.
    assert not any("runner slo" in line for line in said)


@pytest.mark.parametrize(
    ("experiment", "said"),
    [
        ("{rounds: 3, race: true, precision: 5%}", "race and precision are two rules"),
        ("{rounds: 3, race: true, percentile: 95}", "percentile belongs to precision"),
        ("{rounds: 3, max_time: 10m}", "max_time also goes with `race: true`"),
        ("{rounds: 3, race: 1}", "expected true or false"),
    ],
)
def test_a_race_that_the_catalog_contradicts_is_one_error(track: Track, experiment: str, said: str) -> None:
    declared = yaml.safe_dump({name: part for name, part in RACING.items() if name != "experiment"}, sort_keys=False)
    with pytest.raises(CatalogFileError) as error:
        parse_catalog(f"{declared}experiment: {experiment}\n", track.folder / "strategies.yaml")
    (line,) = str(error.value).splitlines()
    assert said in line and "strategies.yaml:" in line


@pytest.mark.parametrize(
    ("status", "probability", "words"),
    [
        (Status.LIKELY, 0.9999, "fast: identity on edge, likely > 99.9 % (1 of 2 undecided)"),
        (Status.LIKELY, 0.8699, "fast: identity on edge, likely 86 % (1 of 2 undecided)"),
        (Status.PROVEN, 0.9999, "fast: identity on edge, proven (1 of 2 undecided)"),
        (Status.ESTIMATED, None, "fast: identity on edge, estimated (1 of 2 undecided)"),
    ],
)
def test_a_look_says_how_sure_it_is_and_never_that_it_is_certain(
    status: Status, probability: float | None, words: str
) -> None:
    candidate: Any = SimpleNamespace(operator="identity", placement="edge")
    answer: Any = SimpleNamespace(
        recommendation=SimpleNamespace(candidate=candidate, status=status, probability=probability), infeasible=None
    )
    question = RaceQuestion("fast", Budgets(latency=(LatencyBudget(90, 0.15),)))
    assert contest_words(Contest(question, answer, candidate, None, (candidate,)), 2) == words


def test_what_no_round_can_make_sure_is_said(track: Track) -> None:
    # Nothing was judged, so that no strategy is shown to keep a floor.
    outcome = track.race(slos={"exact": {"latency": {"p90": "150ms"}, "accuracy": {"min": 90.0}}})
    assert only(outcome).end is None
    assert (
        list(race_report(outcome))[-1] == "  no further round would make the rest sure; runner slo says what it lacks"
    )
