"""`runner testbed`: serve a declared testbed to fills that reach it through a Dask scheduler, and list those served."""

import os
import socket
from contextlib import ExitStack
from typing import Annotated

import typer

from catalog.console import open_table
from catalog.evidence.database import open_database, shown_location
from catalog.evidence.fill_lock import identity_of
from runner.commands.fill_steps import check_testbeds, clean_up, contexts_of, dask_module
from runner.commands.plan import declared_catalog, testbed_selection
from runner.commands.terminal import (
    CatalogOption,
    DatabaseOption,
    JsonOption,
    LauncherOption,
    RunnerSettings,
    err,
    example,
    out,
    print_json,
)
from runner.errors import FleetError
from runner.measuring.fleet.exclusive import exclusive_testbed
from runner.measuring.fleet.testbed import TestbedDescription, check_scheduler
from runner.measuring.fleet.worker import RoundWorker

SchedulerOption = Annotated[
    str,
    typer.Option("--scheduler", metavar="URL", help="Address of the Dask scheduler: tcp:// here, tls:// beyond"),
]
NameArgument = Annotated[str, typer.Argument(help="Name of a testbed in the catalog", show_default=False)]


def serve(
    testbed: NameArgument,
    scheduler: SchedulerOption,
    catalog: CatalogOption = None,
    database: DatabaseOption = None,
    launcher: LauncherOption = "auto",
) -> None:
    """Serve a testbed to fills.

    It measures one round at a time, for every `runner fill-catalog --scheduler URL` with the same catalog and
    database. Ctrl-C once finishes the measurement in flight, twice stops at once.
    """
    declared, base = declared_catalog(catalog)
    check_testbeds(declared, [testbed])
    check_scheduler(scheduler)
    dask = dask_module()
    settings = RunnerSettings()
    target = database or settings.database
    selection = testbed_selection(declared, base, testbed, launcher)
    err.print(f"testbed {testbed}: {selection.launcher.name} ({selection.reason})")
    contexts = contexts_of(declared.file, selection)
    # Here already, because a machine that is too small, or a delay that cannot be made, is better known now.
    contexts("1")
    place = f"process {os.getpid()} on {socket.gethostname()}"
    with ExitStack() as stack:
        opened = stack.enter_context(open_database(target, create=True))
        ensure = stack.enter_context(
            exclusive_testbed(testbed, selection.launcher, database=target, locks=settings.locks)
        )
        clean_up(selection, settings.workdir)
        selection.launcher.prepare()
        description = TestbedDescription.of(
            selection, declared.tiers, place=place, store=identity_of(opened), database=shown_location(target)
        )
        worker = RoundWorker(testbed, contexts, opened, selection, ensure, scratch=settings.workdir / "dask")
        dask.serve(worker, description, scheduler, say=_say)


def _say(line: str) -> None:
    err.print(line, soft_wrap=True, markup=False, highlight=False)


def list_testbeds(scheduler: SchedulerOption, as_json: JsonOption = False) -> None:
    """List the testbeds that workers serve at a scheduler."""
    check_scheduler(scheduler)
    dask = dask_module()
    rows = []
    with dask.connected(scheduler) as client:
        for name, address in sorted(dask.served(client).items()):
            try:
                described = dask.describe(client, name, address)
                rows.append(_row(described))
            except FleetError as error:
                rows.append({"testbed": name, "served_by": address, "fault": str(error)})
    if as_json:
        print_json(rows)
        return
    if not rows:
        out.print(f"no worker serves a testbed at {scheduler}; start one: runner testbed serve NAME --scheduler …")
        return
    table = open_table()
    for heading in ("testbed", "served by", "tiers on", "stores into"):
        table.add_column(heading)
    for row in rows:
        table.add_row(row["testbed"], row["served_by"], row.get("fault") or row["machine"], row.get("database", ""))
    out.print(table)


def _row(described: TestbedDescription) -> dict[str, str]:
    host = described.host
    return {
        "testbed": described.testbed,
        "served_by": described.place,
        "launcher": described.launcher,
        "machine": f"{described.launcher}: {host.cpu_count} × {host.cpu_model}",
        "database": described.database,
        "replicas": described.replicas or "",
        "tierwise": described.tierwise,
    }


def add_to(app: typer.Typer) -> None:
    """Add the commands to an application."""
    group = typer.Typer(no_args_is_help=True, help="Serve a testbed to fills, or list what is served.")
    group.command("serve", epilog=example("runner testbed serve lab-1 --scheduler tcp://127.0.0.1:8786"))(serve)
    group.command("list", epilog=example("runner testbed list --scheduler tcp://127.0.0.1:8786"))(list_testbeds)
    app.add_typer(group, name="testbed", epilog=example("runner testbed serve lab-1 --scheduler tcp://127.0.0.1:8786"))
