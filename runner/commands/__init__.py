"""Verbs beyond those of a catalog's filling: over evidence that is there, over any model file; and the self-test."""

import typer

from runner.commands import (
    bundle,
    compare,
    doctor,
    evidence,
    exchange,
    fill_catalog,
    init,
    operators,
    plan,
    rank,
    recommend,
    report,
    schema,
    selftest,
    slo,
    sql,
    whatif,
)

_MODULES = (
    *(plan, fill_catalog, evidence),
    *(init, doctor, schema),
    *(rank, recommend, slo, bundle, whatif),
    *(report, exchange, sql, compare),
    *(operators, selftest),
)


def register(app: typer.Typer) -> None:
    """Add all of them to the command line."""
    for module in _MODULES:
        module.add_to(app)
