"""A group of commands that imports the module of a command only when that command is needed."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from runner.commands.table import COMMANDS, CommandEntry


class LazyGroup(TyperGroup):
    """The commands of the table: listed without an import, loaded when one is resolved."""

    def __init__(self, **attributes: Any) -> None:
        listed = {
            entry.name: TyperCommand(entry.name, help=entry.summary, rich_help_panel=entry.panel) for entry in COMMANDS
        }
        super().__init__(**{**attributes, "commands": listed})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return what the base class returns, with the loaded command in place of the listed one."""
        name, listed, rest = super().resolve_command(ctx, args)
        entry = next((entry for entry in COMMANDS if listed is not None and entry.name == listed.name), None)
        return name, listed if entry is None else load_command(entry), rest


def load_command(entry: CommandEntry) -> Any:
    """Import the module of a command and return the command, with its parameters and its whole help text."""
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="rich")
    import_module(f"runner.commands.{entry.module}").add_to(app)
    # `get_command` would turn an application of one command into that command, without a name.
    return get_group(app).commands[entry.name]
