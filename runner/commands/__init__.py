"""Commands over evidence that is there already: exchange it, ask it in SQL, compare it."""

import typer

from runner.commands import compare, exchange, sql


def register(app: typer.Typer) -> None:
    """Add all of them to the command line."""
    for module in (exchange, sql, compare):
        module.add_to(app)
