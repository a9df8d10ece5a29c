"""The analyses of a large import, which the first command that shows them computes."""

from catalog.errors import DatabaseReadOnlyError
from catalog.evidence.database import Database
from catalog.evidence.lookups import imported_unanalysed
from runner.commands.terminal import RunnerSettings, err


def lack_analyses(database: Database) -> bool:
    """Tell whether imported evidence lacks analyses; reads a few rows."""
    with database.reading() as reader:
        return imported_unanalysed(reader)


def analyse_imported(database: Database) -> None:
    """Compute and store the analyses that imported evidence lacks; say so where the database cannot be written."""
    if not lack_analyses(database):
        return
    # Imported here: to analyse takes scipy.stats and the recommender, which a command that reads does without.
    from catalog.analysis import declared_settings
    from runner.reports.slo_status import store_results

    err.print("analysing what was imported; it is stored for the next time")
    try:
        store_results(database, declared_settings(RunnerSettings().catalog))
    except DatabaseReadOnlyError:
        err.print("the analyses cannot be stored: the database is read-only; what rests on them is missing below")
