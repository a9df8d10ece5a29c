"""The question of `runner recommend --measure` and the catalog behind it.

That is the file that declares its subject, or one written for a model file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import cast, get_args

import typer

from catalog.declaration import Catalog, DatasetFiles, SubjectSpec, load_catalog
from catalog.declaration.schema import Task
from catalog.foreign import lack_of
from recommender.schemas import RecommendRequest
from runner.commands.kept_plan import (
    DeclaredSubject,
    OwnData,
    PreparedQuestion,
    is_model_file,
    names_in,
    plan_memory,
    target,
)
from runner.commands.question import MeasuringPlace, QuestionOptions
from runner.commands.terminal import RunnerSettings, err
from runner.errors import RunnerError
from runner.subjects.user_files import is_own_model, user_path

_BUILTIN = "builtin:"


@dataclass(frozen=True)
class CatalogSubject:
    """A declared subject, with its catalog and the directory from which the paths in it start."""

    catalog: Catalog
    base: Path
    name: str

    @property
    def declared(self) -> DeclaredSubject:
        """What a question about the subject is checked against."""
        spec = self.catalog.subjects[self.name]
        files = _declared_paths(spec, self.base)
        own = {option: text and str(user_path(self.base, text).resolve()) for option, text in _data(spec).items()}
        return DeclaredSubject(
            self.name,
            self.catalog.sha256,
            None if files is None else [str(file) for file in files],
            {**own, "--task": spec.task},
            list(self.catalog.tiers),
            list(self.catalog.operators),
            {
                name: target(slo.latency_s, slo.accuracy.max_drop_pp, slo.accuracy.min_pct)
                for name, slo in self.catalog.slos.items()
            },
        )


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
        raise RunnerError(f"{lack_of('model file', model)}; allowed: an ONNX file, or the name of a declared subject")
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
    declared: dict[str, Mapping[str, object]] = {
        "tier": catalog.tiers,
        "operator": catalog.operators,
        "SLO": catalog.slos,
    }
    for kind, names in names_in(request).items():
        for name in names:
            if name not in declared[kind]:
                raise _undeclared(kind, name, declared[kind], catalog.file)


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
    for option, declared in _data(spec).items():
        value = own.named.get(option)
        if value is not None and (declared is None or not _same(user_path(base, declared), Path(value))):
            raise _differs(option, str(value), declared or "none", file)
    if own.task is not None and own.task != spec.task:
        raise _differs("--task", own.task, spec.task, file)


def _data(spec: SubjectSpec) -> dict[str, str | None]:
    """Return what a catalog declares in the place of the options that name data."""
    # A text names data of the embedded subjects, which do not go with a model file.
    files = spec.dataset if isinstance(spec.dataset, DatasetFiles) else DatasetFiles.model_construct()
    return {"--data": files.images or files.tensors, "--labels": files.labels}


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


def prepared_question(
    subject: str,
    options: QuestionOptions,
    own: OwnData,
    *,
    wait_s: float | None,
    catalog: Path | None,
    database: str,
    place: MeasuringPlace,
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
        # Imported here: measuring needs libraries that would cost a question most of its second.
        from runner.commands.measured_question import measure_for

        memory = None if place.options else plan_memory(subject, options, catalog)
        return measure_for(declared, options, database, wait_s, memory=memory, place=place)
    if own.named:
        raise typer.BadParameter("it goes with --measure", param_hint=" and ".join(own.named))
    return PreparedQuestion(options.request(subject_name(subject, catalog)))


def measurable_request(subject: CatalogSubject, options: QuestionOptions) -> RecommendRequest:
    """Return the request of a question that measures; raise for one that measuring cannot answer."""
    request = options.measurable(subject.name)
    if request.links:
        raise typer.BadParameter(
            "an answer for other links is predicted; declare the link so in the catalog and measure it there",
            param_hint="--measure with --link",
        )
    check_declared(request, subject.catalog)
    return request
