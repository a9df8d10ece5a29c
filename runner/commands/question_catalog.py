"""The catalog behind a question that measures: the file that declares its subject, or one written for a model file."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import cast, get_args

import typer

from catalog.declaration import Catalog, DatasetFiles, SubjectSpec, load_catalog
from catalog.declaration.schema import Task
from recommender.schemas import RecommendRequest
from runner.commands.terminal import RunnerSettings, err
from runner.errors import RunnerError
from runner.subjects.user_files import user_path

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
