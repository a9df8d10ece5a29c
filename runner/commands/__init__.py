"""Verbs beyond those of a catalog's filling: over evidence that is there, over any model file; and the self-test."""

import typer

from runner.commands import (
    compare,
    doctor,
    exchange,
    init,
    operators,
    rank,
    recommend,
    report,
    schema,
    selftest,
    sql,
    whatif,
)


def register(app: typer.Typer) -> None:
    """Add all of them to the command line."""
    for module in (init, doctor, schema, rank, recommend, report, exchange, sql, compare, operators, selftest, whatif):
        module.add_to(app)
