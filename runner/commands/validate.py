"""`runner validate`: every error of a catalog file before anything is measured."""

import typer

from catalog.declaration import load_catalog
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
from runner.operators.base import check_options
from runner.subjects.dataset import one_class_remark
from runner.subjects.declared import resolve_declared


def validate(catalog: CatalogOption = None, as_json: JsonOption = False) -> None:
    """Check the catalog file and show each error with its line.

    An error says what is allowed and suggests the nearest spelling.
    """
    settings = RunnerSettings()
    chosen = catalog or settings.catalog
    declared = load_catalog(chosen)
    strategies = declared.strategies()
    base, built = chosen.resolve().parent, settings.workdir / "models"
    apart = declared.experiment.systematic
    subjects = {
        name: resolve_declared(name, spec, base=base, built=built, labels_apart=apart)
        for name, spec in declared.subjects.items()
    }
    # What is not on this machine cannot be checked, which is no error of the file.
    unchecked = {name: subject.absent() for name, subject in subjects.items() if subject.absent()}
    # A pass is made only for the check of its options, which raises.
    for strategy in strategies:
        for spec in strategy.passes:
            check_options(spec.name, spec.options)
    remarks = {name: remark for name, subject in subjects.items() if (remark := one_class_remark(subject)) is not None}
    if as_json:
        names = [strategy.name for strategy in strategies]
        checked = {"valid": True, "subjects": list(subjects), "strategies": names, "unchecked": unchecked}
        print_json(checked | {"warnings": remarks})
        return
    out.print(f"valid: {len(subjects)} subjects, {len(strategies)} strategies")
    print_lacks({f"{name}: not checked, because": reasons for name, reasons in unchecked.items()})
    for name, remark in remarks.items():
        err.print(f"warning: {name}: {remark}", markup=False, highlight=False)


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner validate -c strategies.yaml"))(validate)
