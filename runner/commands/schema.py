"""`runner schema`: the catalog file's JSON schema, for editors and for checks elsewhere."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from catalog.declaration import CatalogFile
from runner.commands.terminal import err, example, print_json
from runner.errors import RunnerError

# The name that the first line of a written catalog gives to the YAML language server of editors.
SCHEMA_NAME = "strategies.schema.json"
EDITOR_LINE = f"# yaml-language-server: $schema={SCHEMA_NAME}"

OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file instead of stdout")]


def catalog_schema() -> dict[str, Any]:
    """Return the schema of the catalog file (JSON Schema 2020-12)."""
    # By alias, because that is how a file spells its fields.
    described = CatalogFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described, "title": "Tierwise catalog"}


def write_schema(file: Path) -> None:
    """Write the schema; raises RunnerError when the file cannot be written."""
    try:
        file.write_text(json.dumps(catalog_schema(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunnerError(f"cannot write {file}: {error.strerror}; choose another place with --output") from error


def schema(output: OutputOption = None) -> None:
    """Print the JSON schema of the catalog file, for editors."""
    if output is None:
        print_json(catalog_schema())
        return
    write_schema(output)
    err.print(f"written: {output}; a catalog beside it is completed by editors when it begins with\n{EDITOR_LINE}")


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example(f"runner schema -o {SCHEMA_NAME}"))(schema)
