"""The question of `runner recommend --measure` asked again: the keys of its strategies are kept, and decide.

The content keys of its strategies are kept, so that the same question soon again need not compute them: models are read
for that, data are checked, and an engine is asked what it runs on: seconds, of which an answer from evidence needs
none. Keys are used again only while everything that they are computed from is unchanged: catalog, model, data, programs
and libraries, machine, and the socket of the Docker engine, which is another one once the engine was started again. The
evidence itself is never kept; it is read for every question.

Nothing here reads a catalog: to import what does, and to check the file, takes half as long as the whole answer. Its
digest shows that it is the file that the keys were computed for, and what a question needs of it is kept beside them.
"""

import json
import logging
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import runner
from catalog.errors import DatabaseMissingError
from catalog.evidence.database import Database, open_database
from catalog.evidence.lookups import accuracy_done, inapplicable_artifacts, unequal_compositions
from catalog.evidence.queries import Reader
from catalog.evidence.soundness import sound_database
from catalog.keys import content_key
from recommender.answer.respond import constraints_of, resolve_budgets, respond
from recommender.evidence.loading import load
from recommender.evidence.model import Evidence, begins_key
from recommender.ranking.model import Budgets, declared_breaches
from recommender.schemas import RecommendRequest, RecommendResponse
from runner.commands.question import QuestionOptions
from runner.commands.terminal import RunnerSettings, err
from runner.host import machine_facts, versions
from runner.workdir import file_sha256, scratch, settle

logger = logging.getLogger(__name__)

_MODEL, _UNIX = ".onnx", "unix://"
_DEFAULT_SOCKET = "/var/run/docker.sock"
_PACKAGES = ("catalog", "recommender", "runner", "tierserver")
# A file that changed less than this ago may change again without a new time stamp.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class OwnData:
    """What goes with a model file: its data, the labels of pictures, and the task; None where they were not named."""

    data: Path | None = None
    labels: Path | None = None
    task: str | None = None

    @property
    def named(self) -> dict[str, Path | str]:
        """The options that were used, with their values."""
        options = {"--data": self.data, "--labels": self.labels, "--task": self.task}
        return {option: value for option, value in options.items() if value is not None}


def is_model_file(subject: str) -> bool:
    """Return whether a question names a model file in place of a subject."""
    return subject.lower().endswith(_MODEL)


@dataclass(frozen=True)
class DeclaredSubject:
    """What a catalog declares that a question about one subject is checked against, as JSON keeps it.

    `files` are those that it names with folders of data, None where one may be made or found elsewhere; `own` are the
    options of a model file that name its data, with what the catalog has for them.
    """

    name: str
    catalog_sha256: str
    files: list[str] | None
    own: Mapping[str, str | None]
    tiers: list[str]
    operators: list[str]
    slos: Mapping[str, list[Any]]

    def has(self, own: OwnData) -> bool:
        """Return whether these are the data that the catalog declares."""
        return all(
            self.own[option] == (str(value.resolve()) if isinstance(value, Path) else value)
            for option, value in own.named.items()
        )

    def declares(self, request: RecommendRequest) -> bool:
        """Return whether everything that a question names is declared."""
        declared = {"tier": self.tiers, "operator": self.operators, "SLO": list(self.slos)}
        return all(set(names) <= set(declared[kind]) for kind, names in names_in(request).items())


def names_in(request: RecommendRequest) -> dict[str, list[str]]:
    """Return the names in a question that a catalog has to declare, by their kind."""
    tiers = [*(request.allow_tiers or ()), *(request.forbid_tiers or ())]
    tiers += [*(request.max_memory_bytes or ()), *(request.max_model_bytes or ())]
    tiers += [request.keep_raw_input_on] if request.keep_raw_input_on is not None else []
    operators = [*(request.allow_operators or ()), *(request.forbid_operators or ())]
    slos = [request.slo] if request.slo is not None else []
    return {"tier": tiers, "operator": operators, "SLO": slos}


def target(latency_s: Mapping[float, float], max_drop_pp: float | None, min_pct: float | None) -> list[Any]:
    """Return a named target as JSON keeps it."""
    return [sorted([percentile, limit] for percentile, limit in latency_s.items()), max_drop_pp, min_pct]


@dataclass(frozen=True)
class StrategyKeys:
    """A declared strategy with the content keys of its evidence; `judged` says whether it has an accuracy."""

    operator: str
    placement: str
    tiers: tuple[str, ...]
    identity: bool
    judged: bool
    artifact_key: str
    accuracy_key: str
    latency_key: str


@dataclass(frozen=True)
class KeptPlan:
    """The environment and the strategies of a subject, as keyed before.

    `unequal` are the artifacts that were known not to compute the same in parts: keys of accuracies depend on them.
    """

    environment: str
    strategies: tuple[StrategyKeys, ...]
    unequal: tuple[str, ...]
    subject: DeclaredSubject


def _engine_socket() -> Path | None:
    """Return the engine's socket on this machine; None where Docker's own variable says that it is elsewhere."""
    address = os.environ.get("DOCKER_HOST", "")
    if address and not address.startswith(_UNIX):
        return None
    return Path(address.removeprefix(_UNIX) or _DEFAULT_SOCKET)


class PlanMemory:
    """Where the keys for one subject, as a question names it, are kept, for one launcher and scale."""

    def __init__(self, subject: str, catalog: Path, *, launcher: str, scale: str) -> None:
        self._catalog, self._launcher = catalog, launcher
        # Paths in a catalog may begin at the user's home.
        place = {"catalog": str(catalog.resolve()), "home": str(Path("~").expanduser())}
        place["subject"] = str(Path(subject).resolve()) if is_model_file(subject) else subject
        name = content_key(place | {"launcher": launcher, "scale": scale})
        self._file = RunnerSettings().workdir / "planned" / f"{name}.json"

    def state(self, subject: DeclaredSubject) -> str | None:
        """Return what stands for everything that the keys are computed from; None where it cannot be told soon."""
        engine = self._engine()
        if engine is None or subject.files is None:
            return None
        try:
            files = [*_identities([Path(file) for file in subject.files]), *_programs()]
        except OSError as error:
            logger.debug("no keys are kept: %s", error)
            return None
        versions_of = {**versions(), "machine": machine_facts(), "base_image": RunnerSettings().base_image}
        return content_key({"declared": asdict(subject), "files": files, "engine": engine, "with": versions_of})

    def find(self) -> KeptPlan | None:
        """Return the keys that were kept, None unless everything is as it was then."""
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            subject = DeclaredSubject(**content["subject"])
            # The bytes of the catalog stand for what it declares, which takes longer to read than to answer.
            if file_sha256(self._catalog) != subject.catalog_sha256 or content["state"] != self.state(subject):
                return None
            if _weights(content["weights"]) != content["weights"]:
                return None
            strategies = [StrategyKeys(**entry | {"tiers": tuple(entry["tiers"])}) for entry in content["strategies"]]
            return KeptPlan(content["environment"], tuple(strategies), tuple(content["unequal"]), subject)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            # As good as absent: the keys are computed.
            logger.debug("no keys were kept in %s: %s", self._file, error)
            return None

    def keep(self, plan: KeptPlan, *, state: str | None, weights: Sequence[Path], launcher: str) -> None:
        """Keep the keys that were computed after `state` was taken.

        `weights` are the files with a model's external data; `launcher` is the chosen one.
        """
        # An engine that did not answer may answer to the next question, without a trace in its socket.
        silent = launcher == "process" and self._launcher != "process" and self._engine() != "no engine"
        if state is None or silent or state != self.state(plan.subject):
            return
        content: dict[str, Any] = {"state": state, **asdict(plan)}
        try:
            content["weights"] = _weights([[str(file)] for file in weights])
            with scratch(self._file.parent) as directory:
                (directory / self._file.name).write_text(json.dumps(content), encoding="utf-8")
                settle(directory / self._file.name, self._file)
        except OSError as error:
            logger.debug("keys cannot be kept in %s: %s", self._file, error)

    def _engine(self) -> str | None:
        """Return what stands for the engine; None where that cannot be told without asking it."""
        if self._launcher == "process":
            return "no engine"
        socket = _engine_socket()
        if socket is None:
            return None
        return json.dumps(_identity(socket, socket.stat())) if socket.exists() else "no engine"


def _identities(paths: Sequence[Path]) -> Iterator[list[object]]:
    """Yield what shows that files have changed, of all in folders; raise OSError where a change may leave no trace."""
    now = time.time_ns()
    for path in paths:
        for file in sorted(_files(path)):
            status = file.stat()
            if now - max(status.st_mtime_ns, status.st_ctime_ns) < _SETTLED_NS:
                raise OSError(f"{file} has just been changed")
            yield _identity(file, status)


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        # What is behind a link is not walked through, as it may lead in circles.
        if any((Path(folder) / name).is_symlink() for name in folders):
            raise OSError(f"{folder} holds a link to a folder")
        yield from (Path(folder) / name for name in names)


def _identity(path: Path | str, status: os.stat_result) -> list[object]:
    # The time of the last change cannot be set back, as that of the last modification can.
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return [str(path), status.st_dev, status.st_ino, status.st_size, *times, stat.S_IFMT(status.st_mode)]


def _weights(listed: Sequence[Sequence[Any]]) -> list[list[object]]:
    return list(_identities([Path(entry[0]) for entry in listed]))


def _programs() -> Iterator[list[object]]:
    """Yield the files that say how keys are computed and what passes do."""
    root = Path(runner.__file__).parent.parent
    for package in _PACKAGES:
        for folder, folders, names in os.walk(root / package):
            folders.sort()
            # Texts, not paths: there are hundreds of files, and to make a path takes longer than to look at one.
            for file in sorted(f"{folder}/{name}" for name in names if name.endswith(".py")):
                yield _identity(file, os.stat(file))  # noqa: PTH116


@dataclass(frozen=True)
class PreparedQuestion:
    """A question whose evidence is there; `environment` is the key of the one that it was measured in.

    Other environments may hold evidence that is more complete, or newer, and are not meant. `answer` is the answer
    where it had to be found to see that nothing is to be measured.
    """

    request: RecommendRequest
    environment: str | None = None
    answer: RecommendResponse | None = None


def plan_memory(subject: str, options: QuestionOptions, catalog: Path | None) -> PlanMemory:
    """Return the memory for a question that measures, with the options as they were typed."""
    file = catalog or RunnerSettings().catalog
    return PlanMemory(subject, file, launcher=options.launcher or "auto", scale=options.scale or "1")


def kept_question(
    subject: str, options: QuestionOptions, own: OwnData, *, catalog: Path | None, database: str
) -> PreparedQuestion | None:
    """Return a question with its answer if the evidence proves that for the keys that were kept.

    None is for everything else, errors of the question too: what reads the catalog can say what it declares.
    """
    if own.named and not is_model_file(subject):
        return None
    kept = plan_memory(subject, options, catalog).find()
    if kept is None or not kept.subject.has(own):
        return None
    request = options.measurable(kept.subject.name)
    if request.links or not kept.subject.declares(request):
        return None
    answer = _known_answer(kept, request, database)
    if answer is None:
        return None
    err.print("Nothing had to be measured.")
    return PreparedQuestion(request, kept.environment, answer)


def _known_answer(kept: KeptPlan, request: RecommendRequest, database: str) -> RecommendResponse | None:
    """Return the answer if the evidence proves it for these keys."""
    # What would be measured here is checked against these by what measures.
    if request.host is not None:
        return None
    if request.environment is not None and not begins_key(request.environment, kept.environment):
        return None
    try:
        opened = open_database(database)
    except DatabaseMissingError:
        return None
    with opened:
        with sound_database(opened).reading() as reading:
            if sorted(unequal_compositions(reading)) != list(kept.unequal):
                return None
        evidence = environment_evidence(opened, request.subject, kept.environment)
        if request.slo is not None and not _slo_stands(evidence, request, kept.subject):
            return None
        return proven_answer(opened, evidence, request, kept.strategies)


def _slo_stands(evidence: Evidence, request: RecommendRequest, subject: DeclaredSubject) -> bool:
    """Return whether the stored target is the declared one: a catalog may have been changed, or another one used."""
    assert request.slo is not None
    stored = evidence.slos_of(request.subject).get(request.slo)
    return stored is not None and (
        target(stored.latency_s, stored.max_drop_pp, stored.min_pct) == subject.slos[request.slo]
    )


def environment_evidence(database: Database, subject: str, environment: str) -> Evidence:
    """Return what is known of a subject in one environment."""
    return load(sound_database(database), subject=subject).within(environment)


def proven_answer(
    database: Database, evidence: Evidence, request: RecommendRequest, strategies: Sequence[StrategyKeys]
) -> RecommendResponse | None:
    """Return the answer if it is proven and every strategy was measured as it is declared now."""
    measured = {
        (strategy.operator, strategy.placement): strategy.latency_evidence_id
        for member in evidence.subjects.get(request.subject, ())
        for strategy in member.strategies
        if strategy.candidate is not None
    }
    with sound_database(database).reading() as reading:
        inapplicable = inapplicable_artifacts(reading)
        applying = [keys for keys in strategies if keys.artifact_key not in inapplicable]
        if _lacks_accuracy(applying, request, resolve_budgets(evidence, request), reading):
            return None
    admitted = [keys for keys in applying if _admits(request, keys)]
    if not measured or any(measured.get((keys.operator, keys.placement)) != keys.latency_key for keys in admitted):
        return None
    answer = respond(evidence, request)
    impossible = answer.infeasible is not None and answer.infeasible.status == "proven"
    # Without a budget nothing is proven: the fastest may still be another one.
    return answer if impossible or (answer.status == "proven" and answer.budgets.any_set) else None


def _admits(request: RecommendRequest, keys: StrategyKeys) -> bool:
    return not declared_breaches(keys.operator, keys.tiers, None, constraints_of(request))


def _lacks_accuracy(
    strategies: Sequence[StrategyKeys], request: RecommendRequest, budgets: Budgets, reading: Reader
) -> bool:
    """Return whether a question needs an accuracy that was not measured; a drop needs that of identity, too."""
    if not needs_accuracies(budgets):
        return False
    needed = {keys.accuracy_key for keys in strategies if keys.judged and (keys.identity or _admits(request, keys))}
    return not all(accuracy_done(reading, key) for key in needed)


def needs_accuracies(budgets: Budgets) -> bool:
    """Return whether a question is about accuracy."""
    limited = budgets.min_accuracy_pct is not None or budgets.max_accuracy_drop_pp is not None
    return limited or budgets.objective == "accuracy"
