"""`runner validate`: every error of a catalog file before anything is measured."""

import typer

from runner.commands.context import declared_catalog
from runner.commands.terminal import CatalogOption, JsonOption, example, out, print_json, print_lacks
from runner.host import this_host
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.tiers import Scale
from runner.operators import make_pass
from runner.settings import RunnerSettings


def validate(catalog: CatalogOption = None, as_json: JsonOption = False) -> None:
    """Check the catalog file and show each error with its line.

    An error says what is allowed and suggests the nearest spelling.
    """
    declared, base = declared_catalog(catalog)
    strategies = declared.strategies()
    context = RunContext(declared, base, "process", Scale.parse("1"), RunnerSettings().workdir, host=this_host())
    subjects = context.subjects
    unchecked = {name: subject.absent() for name, subject in subjects.items() if subject.absent()}
    for strategy in strategies:
        for spec in strategy.passes:
            make_pass(spec.name, spec.options)
    if as_json:
        names = [strategy.name for strategy in strategies]
        print_json({"valid": True, "subjects": list(subjects), "strategies": names, "unchecked": unchecked})
        return
    out.print(f"valid: {len(subjects)} subjects, {len(strategies)} strategies")
    print_lacks({f"{name}: not checked, because": reasons for name, reasons in unchecked.items()})


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner validate -c strategies.yaml"))(validate)
