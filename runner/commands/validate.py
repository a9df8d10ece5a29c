"""`runner validate`: every error of a catalog file before anything is measured."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from catalog.declaration import Catalog, load_catalog
from catalog.units import counted
from runner.commands.terminal import (
    CatalogOption,
    JsonOption,
    RunnerSettings,
    err,
    example,
    out,
    print_json,
    print_lacks,
)
from runner.errors import SubjectError
from runner.operators.base import check_options
from runner.subjects.dataset import MissingFile, Subject, judged_in_words, one_class_remark, truth_problem
from runner.subjects.declared import resolve_declared

if TYPE_CHECKING:
    from runner.measuring.stopping import UnprovableTarget


def validate(catalog: CatalogOption = None, as_json: JsonOption = False) -> None:
    """Check the catalog file and show each error with its line.

    An error says what is allowed and suggests the nearest spelling.
    """
    settings = RunnerSettings()
    chosen = catalog or settings.catalog
    declared = load_catalog(chosen)
    strategies = declared.strategies()
    subjects = _subjects(declared, chosen, settings)
    # What is not on this machine cannot be checked, which is no error of the file.
    unchecked = {name: subject.absent() for name, subject in subjects.items() if subject.absent()}
    # A pass is made only for the check of its options, which raises.
    for strategy in strategies:
        for spec in strategy.passes:
            check_options(spec.name, spec.options)
    _refuse(subjects)
    remarks = {name: remark for name, subject in subjects.items() if (remark := one_class_remark(subject)) is not None}
    here = {name: subject for name, subject in subjects.items() if name not in unchecked}
    capped = {name: words for name, subject in here.items() if (words := judged_in_words(subject)) is not None}
    assumed = {name: subject.assumption for name, subject in here.items() if subject.assumption}
    draws, targets = _draws(declared, here), _unprovable(declared, here)
    if as_json:
        names = [strategy.name for strategy in strategies]
        checked = {"valid": True, "subjects": list(subjects), "strategies": names, "unchecked": unchecked}
        checked["assumed"] = assumed
        print_json(checked | {"warnings": remarks, "draws": draws, "unprovable": [asdict(entry) for entry in targets]})
        return
    counts = f"{counted(len(subjects), 'subject')}, {counted(len(strategies), 'strategy')}"
    out.print(f"{'valid as far as it could be checked' if unchecked else 'valid'}: {counts}", highlight=False)
    settings_of_file = [str(own.setting) for own in declared.settings if own.setting is not None]
    if settings_of_file:
        out.print(f"{counted(len(settings_of_file), 'setting')}: {'; '.join(settings_of_file)}", highlight=False)
    print_lacks({f"{name}: not checked, because": reasons for name, reasons in unchecked.items()})
    for name, words in (*draws.items(), *assumed.items(), *capped.items()):
        out.print(f"{name}: {words}", markup=False, highlight=False)
    for line in (*(f"{name}: {remark}" for name, remark in remarks.items()), *grouped(targets)):
        err.print(f"warning: {line}", markup=False, highlight=False)


def _refuse(subjects: Mapping[str, Subject]) -> None:
    """Raise SubjectError for models that are missing, and for labels and masks that cannot be used, all at once."""
    missing = (
        (name, subject.source.absent()) for name, subject in subjects.items() if isinstance(subject.source, MissingFile)
    )
    unfit = ((name, truth_problem(subject)) for name, subject in subjects.items())
    problems = [f"subject {name}: {problem}" for name, problem in (*missing, *unfit) if problem]
    if problems:
        raise SubjectError("\n".join(problems))


def _subjects(declared: Catalog, file: Path, settings: RunnerSettings) -> dict[str, Subject]:
    base, built = file.resolve().parent, settings.workdir / "models"
    apart = declared.experiment.systematic
    return {
        name: resolve_declared(name, spec, base=base, built=built, labels_apart=apart)
        for name, spec in declared.subjects.items()
    }


def _draws(declared: Catalog, subjects: Mapping[str, Subject]) -> dict[str, str]:
    """Say for each subject what its rounds draw; nothing where all rounds send the same inputs."""
    if not declared.experiment.systematic:
        return {}
    # Imported here: a draw takes the package of statistics, which costs more than checking a catalog.
    from runner.measuring.round_inputs import in_words, systematic_inputs

    return {name: in_words(systematic_inputs(declared, name, subject.dataset)) for name, subject in subjects.items()}


def grouped(targets: "Sequence[UnprovableTarget]") -> Iterator[str]:
    """Yield a line for each reason of a target, with the subjects that share it."""
    subjects: dict[tuple[str, str], list[str]] = {}
    for target in targets:
        subjects.setdefault((target.slo, target.reason), []).append(target.subject)
    for (slo, reason), names in subjects.items():
        yield f"SLO {slo}, {', '.join(names)}: {reason}"


def _unprovable(declared: Catalog, subjects: Mapping[str, Subject]) -> "Sequence[UnprovableTarget]":
    """Return what the declared measurements cannot prove of the declared targets."""
    if not declared.slos:
        return ()
    # Imported here: the statistics cost more than checking a catalog.
    from runner.measuring.stopping import unprovable_targets

    return unprovable_targets(declared, subjects)


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner validate -c strategies.yaml"))(validate)
