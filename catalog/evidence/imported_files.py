"""Imported files as they are called in answers, and what they brought."""

from collections import Counter
from typing import Any

from sqlmodel import Session

from catalog.evidence.allowed import printable
from catalog.evidence.stored_rows import stored_rows, stored_values
from catalog.evidence.tables import Accuracy, Environment, ImportedFile, Measurement

# Of a file's details: what was noted while importing it, which says nothing to anyone elsewhere.
HERE = "here"
# Of what was noted: the targets that the file brought and that no catalog here declares, by name.
SLOS = "slos"


def noted(file: ImportedFile, name: str, default: Any) -> Any:
    """Return what was noted while importing a file; the default where another program wrote something else there."""
    here = file.details.get(HERE) if isinstance(file.details, dict) else None
    value = here.get(name, default) if isinstance(here, dict) else default
    return value if isinstance(value, type(default)) else default


def note(file: ImportedFile, name: str, value: Any) -> None:
    """Note something with an imported file; an empty value takes the note away."""
    details = file.details if isinstance(file.details, dict) else {}
    here = details.get(HERE)
    notes = {**(here if isinstance(here, dict) else {}), name: value}
    # A new value, because a change within the old one would not be noticed.
    file.sqlmodel_update({"details": {**details, HERE: {name: value for name, value in notes.items() if value}}})


def file_labels(session: Session) -> dict[int, str]:
    """Name imported files so that no two are called alike.

    Parameters
    ----------
    session : Session

    Returns
    -------
    dict of int to str
        By the file's id: its name, with the start of its SHA-256 where another imported file has the same name.
    """
    rows = [row for row in stored_rows(session, ImportedFile) if row.id is not None]
    names = Counter(row.name for row in rows)
    return {
        row.id: printable(str(row.name) if names[row.name] == 1 else f"{row.name} (SHA-256 {row.sha256!s:.12}…)")
        for row in rows
        if row.id is not None
    }


def imported_file(session: Session, key: str) -> ImportedFile | None:
    """Return the file whose content has this key; None where it was not imported."""
    return next(iter(stored_rows(session, ImportedFile, key=key)), None)


def contributing_files(session: Session, environment_id: int) -> list[int]:
    """Return the ids of the imported files that an environment and its evidence came from, the first one first."""
    files = stored_values(session, Environment, "imported_file_id", id=environment_id)
    for table in (Measurement, Accuracy):
        files |= stored_values(session, table, "imported_file_id", environment_id=environment_id)
    # A row that another program wrote may name a file that is not there.
    return sorted(files & stored_values(session, ImportedFile, "id"))
