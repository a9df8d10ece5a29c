"""`runner status`: how much evidence there is, and which measurements failed."""

import typer
from rich.markup import escape
from rich.table import Table

from catalog import evidence as store
from catalog.evidence import open_database, sound_database
from runner.commands.terminal import DatabaseOption, JsonOption, example, out, print_json
from runner.reports.tables import links_table
from runner.settings import RunnerSettings


def status(database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Count the evidence and list failed or invalid measurements."""
    with (
        open_database(database or RunnerSettings().database) as opened,
        (sound := sound_database(opened)).session() as session,
    ):
        rows = [dict(row) for row in store.coverage(session)]
        troubles = [dict(row) for row in store.troubles(session)]
        links = [dict(row) for row in store.link_summary(session)]
        probing = store.probing_share(session)
        failed = [dict(row) for row in store.failed_accuracies(session)]
        inapplicable = [dict(row) for row in store.inapplicable_strategies(session)]
    if as_json:
        counts = {"coverage": rows, "troubles": troubles, "failed_accuracies": failed, "inapplicable": inapplicable}
        print_json({**counts, "left_out": list(sound.left_out), "links": links, "probing_share": probing})
        return
    for text in sound.left_out:
        out.print(f"left out: {escape(text)}", soft_wrap=True)
    table = Table("subject", "launcher", "scale", "strategies", "with evidence", "rounds", "samples", pad_edge=False)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    out.print(table)
    if links:
        out.print(links_table(links))
    if probing is not None:
        out.print(f"probing the links took {100 * probing:.1f} % of the time that measuring took")
    for trouble in troubles:
        out.print(
            f"{trouble['subject']}/{trouble['operator']}@{trouble['placement']} round {trouble['round']}: "
            f"{trouble['verdict']} {trouble['status']}: {escape(str(trouble['reason']))}"
        )
    for strategy in inapplicable:
        name = f"{strategy['subject']}/{strategy['operator']}@{strategy['placement']}"
        out.print(f"{name}: inapplicable: {escape(str(strategy['reason']))}")
    for accuracy in failed:
        out.print(f"{accuracy['subject']}/{accuracy['operator']} accuracy: failed: {escape(str(accuracy['reason']))}")


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner status"))(status)
