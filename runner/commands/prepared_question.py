"""The question of `runner recommend --measure`, answered from the evidence where that proves the answer already.

Behind it is a catalog: the file that declares its subject, or one written for a model file.

The content keys of its strategies are kept, so that the same question soon again need not compute them: models are read
for that, data are checked, and an engine is asked what it runs on: seconds, of which an answer from evidence needs
none. Keys are used again only while everything that they are computed from is unchanged: catalog, model, data, programs
and libraries, machine, and the socket of the Docker engine, which is another one once the engine was started again. The
evidence itself is never kept; it is read for every question.
"""

import json
import logging
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast, get_args

import typer
from pydantic_settings import BaseSettings

import runner
from catalog.declaration import Catalog, DatasetFiles, SubjectSpec, load_catalog
from catalog.declaration.schema import Task
from catalog.errors import DatabaseMissingError
from catalog.evidence.database import Database, open_database
from catalog.evidence.lookups import accuracy_done, inapplicable_artifacts, unequal_compositions
from catalog.evidence.queries import Reader
from catalog.evidence.soundness import sound_database
from catalog.keys import content_key
from recommender.answer.respond import constraints_of, resolve_budgets, respond
from recommender.evidence.loading import load
from recommender.evidence.model import Evidence
from recommender.ranking.model import Budgets, declared_breaches
from recommender.schemas import RecommendRequest, RecommendResponse
from runner.commands.question import QuestionOptions
from runner.commands.terminal import RunnerSettings, err
from runner.errors import RunnerError
from runner.host import machine_facts, versions
from runner.subjects.user_files import is_own_model, user_path
from runner.workdir import scratch, settle

_MODEL = ".onnx"


@dataclass(frozen=True)
class CatalogSubject:
    """A declared subject, with its catalog and the directory from which the paths in it start."""

    catalog: Catalog
    base: Path
    name: str


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


def find_subject(subject: str, path: Path | None, own: OwnData) -> CatalogSubject:
    """Return the declared subject that a question is about; for a model file, the catalog is written if there is none.

    Raises
    ------
    RunnerError
        For a subject that the catalog does not declare, and for data other than those that it declares.
    """
    file = path or RunnerSettings().catalog
    if own.task not in (None, *get_args(Task)):
        raise typer.BadParameter(f"got {own.task!r}; allowed: {', '.join(get_args(Task))}", param_hint="--task")
    if not is_model_file(subject):
        if own.named:
            raise RunnerError(f"{' and '.join(own.named)} goes with a model file such as my.onnx, got {subject!r}")
        return _declared(subject, file)
    model = Path(subject)
    if not model.is_file():
        raise RunnerError(f"there is no model file {model}; allowed: an ONNX file, or the name of a declared subject")
    if not file.exists():
        _write(model, own, file)
    return _declared_model(model, own, file)


def subject_name(subject: str, path: Path | None) -> str:
    """Return the name of the subject that a question is about: a model file is looked up in its catalog."""
    if not is_model_file(subject) or not Path(subject).is_file():
        return subject
    file = path or RunnerSettings().catalog
    if not file.exists():
        raise RunnerError(f"{subject} is in no catalog yet; measure it with: --measure 10m --data FOLDER")
    return _declared_model(Path(subject), OwnData(), file).name


def check_declared(request: RecommendRequest, catalog: Catalog) -> None:
    """Raise RunnerError for a name in the question that the catalog does not declare: it is known before measuring."""
    tiers = [*(request.allow_tiers or ()), *(request.forbid_tiers or ())]
    tiers += [*(request.max_memory_bytes or ()), *(request.max_model_bytes or ())]
    tiers += [request.keep_raw_input_on] if request.keep_raw_input_on is not None else []
    operators = [*(request.allow_operators or ()), *(request.forbid_operators or ())]
    slos = [request.slo] if request.slo is not None else []
    kinds = (("tier", tiers, catalog.tiers), ("operator", operators, catalog.operators), ("SLO", slos, catalog.slos))
    for kind, names, declared in kinds:
        for name in names:
            if name not in declared:
                raise _undeclared(kind, name, declared, catalog.file)


def _declared(name: str, file: Path) -> CatalogSubject:
    catalog = load_catalog(file)
    if name not in catalog.subjects:
        raise _undeclared("subject", name, catalog.subjects, catalog.file)
    return CatalogSubject(catalog, file.resolve().parent, name)


def _undeclared(kind: str, name: str, declared: Iterable[str], file: Path) -> RunnerError:
    names = list(declared)
    nearest = get_close_matches(name, names, 1)
    hint = f". Did you mean {nearest[0]}?" if nearest else ""
    listed = ", ".join(names) or "none"
    return RunnerError(f"{file} declares no {kind} {name!r}; declared: {listed}{hint}")


def _declared_model(model: Path, own: OwnData, file: Path) -> CatalogSubject:
    """Return the subject that an existing catalog declares for a model file."""
    catalog, base = load_catalog(file), file.resolve().parent
    for name, spec in catalog.subjects.items():
        if is_model_file(spec.model) and _same(user_path(base, spec.model), model):
            _check_data(spec, own, base, catalog.file)
            return CatalogSubject(catalog, base, name)
    raise RunnerError(
        f"{file} exists and does not declare {model}; add it there, or name a catalog to write with -c FILE. "
        f"Declared: {', '.join(catalog.subjects)}"
    )


def _check_data(spec: SubjectSpec, own: OwnData, base: Path, file: Path) -> None:
    """Raise RunnerError where a catalog declares other data than the question names: it is never rewritten."""
    # A text names data of the embedded subjects, which do not go with a model file.
    files = spec.dataset if isinstance(spec.dataset, DatasetFiles) else DatasetFiles.model_construct()
    for option, value, declared in (
        ("--data", own.data, files.images or files.tensors),
        ("--labels", own.labels, files.labels),
    ):
        if value is not None and (declared is None or not _same(user_path(base, declared), value)):
            raise _differs(option, str(value), declared or "none", file)
    if own.task is not None and own.task != spec.task:
        raise _differs("--task", own.task, spec.task, file)


def _differs(option: str, value: str, declared: str, file: Path) -> RunnerError:
    return RunnerError(
        f"{file} exists and declares this model with {declared}, got {option} {value}; change it in the file, or name "
        "another catalog to write with -c FILE"
    )


def _same(declared: Path, named: Path) -> bool:
    return declared.resolve() == named.resolve()


def _write(model: Path, own: OwnData, file: Path) -> None:
    """Write the catalog of a model file, as `runner init` does."""
    # Imported here: reading a model needs onnx and a runtime, and most questions name a declared subject.
    from runner.commands.init import own_catalog, own_model, write_catalog

    if own.data is None:
        raise RunnerError(f"there is no catalog {file} yet; name the data of {model} with --data, and it is written")
    write_catalog(
        own_catalog(own_model(model, own.data, file, labels=own.labels, task=cast("Task | None", own.task))), file
    )
    err.print(f"written: {file}, what is compared and where; the next question about this model uses it", markup=False)


logger = logging.getLogger(__name__)

_BUILTIN, _UNIX = "builtin:", "unix://"
_DEFAULT_SOCKET = "/var/run/docker.sock"
_PACKAGES = ("catalog", "recommender", "runner", "tierserver")
# A file that changed less than this ago may change again without a new time stamp.
_SETTLED_NS = 2_000_000_000


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
    unequal: tuple[str, ...] = ()


class _EngineAddress(BaseSettings):
    """Where Docker's own variable says that the engine is."""

    docker_host: str = ""

    @property
    def socket(self) -> Path | None:
        """The engine's socket on this machine; None where the engine is reached in another way."""
        if self.docker_host and not self.docker_host.startswith(_UNIX):
            return None
        return Path(self.docker_host.removeprefix(_UNIX) or _DEFAULT_SOCKET)


class PlanMemory:
    """Where the keys of one subject are kept, for one launcher and scale."""

    def __init__(self, subject: CatalogSubject, *, launcher: str, scale: str) -> None:
        self._subject, self._launcher, self._scale = subject, launcher, scale
        place = {"catalog": str(subject.catalog.file.resolve()), "subject": subject.name}
        name = content_key(place | {"launcher": launcher, "scale": scale})
        self._file = RunnerSettings().workdir / "planned" / f"{name}.json"

    def state(self) -> str | None:
        """Return what stands for everything that the keys are computed from; None where it cannot be told soon."""
        spec, base = self._subject.catalog.subjects[self._subject.name], self._subject.base
        engine = self._engine()
        paths = _declared_paths(spec, base)
        if engine is None or paths is None:
            return None
        try:
            files = [*_identities(paths), *_programs()]
        except OSError as error:
            logger.debug("no keys are kept: %s", error)
            return None
        declared = self._subject.catalog.declared.model_dump(mode="json")
        versions_of = {**versions(), "machine": machine_facts(), "base_image": RunnerSettings().base_image}
        return content_key({"catalog": declared, "files": files, "engine": engine, "with": versions_of})

    def find(self) -> KeptPlan | None:
        """Return the keys that were kept, None unless everything is as it was then."""
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            if content["state"] != self.state() or _weights(content["weights"]) != content["weights"]:
                return None
            strategies = [StrategyKeys(**entry | {"tiers": tuple(entry["tiers"])}) for entry in content["strategies"]]
            return KeptPlan(content["environment"], tuple(strategies), tuple(content["unequal"]))
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
        if state is None or silent or state != self.state():
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
        socket = _EngineAddress().socket
        if socket is None:
            return None
        return json.dumps(_identity(socket, socket.stat())) if socket.exists() else "no engine"


def _declared_paths(spec: SubjectSpec, base: Path) -> list[Path] | None:
    """Return the files and folders that a subject names; None for one that may be made or found elsewhere."""
    own = is_own_model(spec.model, base)
    if not own and not spec.model.startswith(_BUILTIN):
        return None
    if not isinstance(spec.dataset, DatasetFiles):
        return [] if spec.dataset.startswith(_BUILTIN) and not own else None
    files = spec.dataset
    names = (spec.model if own else None, files.images, files.masks, files.labels, files.tensors)
    return [user_path(base, name) for name in names if name is not None]


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


def _identity(path: Path, status: os.stat_result) -> list[object]:
    # The time of the last change cannot be set back, as that of the last modification can.
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return [str(path), status.st_dev, status.st_ino, status.st_size, *times, stat.S_IFMT(status.st_mode)]


def _weights(listed: Sequence[Sequence[Any]]) -> list[list[object]]:
    return list(_identities([Path(entry[0]) for entry in listed]))


def _programs() -> Iterator[list[object]]:
    """Yield the files that say how keys are computed and what passes do."""
    root = Path(runner.__file__).parent.parent
    for package in _PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            yield _identity(file, file.stat())


@dataclass(frozen=True)
class PreparedQuestion:
    """A question whose evidence is there; `environment` is the key of the one that it was measured in.

    Other environments may hold evidence that is more complete, or newer, and are not meant. `answer` is the answer
    where it had to be found to see that nothing is to be measured.
    """

    request: RecommendRequest
    environment: str | None = None
    answer: RecommendResponse | None = None


def prepared_question(
    subject: str,
    options: QuestionOptions,
    own: OwnData,
    *,
    wait_s: float | None,
    catalog: Path | None,
    database: str,
) -> PreparedQuestion:
    """Return the question to ask of the evidence, once what it lacks was measured; `wait_s` is None without measuring.

    Raises
    ------
    typer.BadParameter
        For options that do not go together.
    RunnerError
        As `find_subject` and `measure_for`.
    """
    if wait_s is not None:
        declared = find_subject(subject, catalog, own)
        request = measurable_request(declared, options)
        memory = PlanMemory(declared, launcher=options.launcher or "auto", scale=options.scale or "1")
        kept = memory.find()
        answer = None if kept is None else _known_answer(kept, request, declared.catalog, database)
        if kept is not None and answer is not None:
            err.print("Nothing had to be measured.")
            return PreparedQuestion(request, kept.environment, answer)
        # Imported here: measuring needs libraries that would cost a question most of its second.
        from runner.commands.measured_question import measure_for

        return measure_for(declared, options, database, wait_s, memory=memory)
    if own.named:
        raise typer.BadParameter("it goes with --measure", param_hint=" and ".join(own.named))
    return PreparedQuestion(options.request(subject_name(subject, catalog)))


def measurable_request(subject: CatalogSubject, options: QuestionOptions) -> RecommendRequest:
    """Return the request of a question that measures; raise for one that measuring cannot answer.

    `--launcher` and `--scale` say how to measure, not which evidence is meant.
    """
    request = replace(options, launcher=None, scale=None).request(subject.name)
    if request.links:
        raise typer.BadParameter(
            "an answer for other links is predicted; declare the link so in the catalog and measure it there",
            param_hint="--measure with --link",
        )
    check_declared(request, subject.catalog)
    return request


def _known_answer(
    kept: KeptPlan, request: RecommendRequest, catalog: Catalog, database: str
) -> RecommendResponse | None:
    """Return the answer if the evidence proves it for these keys."""
    # What would be measured here is checked against these by what measures.
    if request.host is not None or request.environment not in (None, kept.environment):
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
        if request.slo is not None and not _slo_stands(evidence, request, catalog):
            return None
        return proven_answer(opened, evidence, request, kept.strategies)


def _slo_stands(evidence: Evidence, request: RecommendRequest, catalog: Catalog) -> bool:
    """Return whether the stored target is the declared one: a catalog may have been changed, or another one used."""
    assert request.slo is not None
    declared, stored = catalog.slos[request.slo], evidence.slos_of(request.subject).get(request.slo)
    return stored is not None and (
        (dict(stored.latency_s), stored.max_drop_pp, stored.min_pct)
        == (dict(declared.latency_s), declared.accuracy.max_drop_pp, declared.accuracy.min_pct)
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
