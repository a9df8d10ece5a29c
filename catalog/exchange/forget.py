"""Taking an imported file back: afterwards the database is as if the file had never been imported.

What a later file contains as well stays and rests on that file from then on.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from catalog.errors import ExchangeError
from catalog.evidence.allowed import printable
from catalog.evidence.database import Database
from catalog.evidence.lookups import has_accuracy, has_measurement
from catalog.evidence.tables import (
    SLOS,
    Accuracy,
    Analysis,
    Artifact,
    Environment,
    EvidenceTable,
    ImportedFile,
    Measurement,
    Slo,
    Strategy,
    SubjectSlo,
    contributing_files,
    count_rows,
    delete_rows,
    delete_unused_pools,
    note,
    noted,
    stored_rows,
    stored_values,
    update_rows,
)
from catalog.exchange.lineage import PREFIX

_FEWEST_DIGITS = 4


@dataclass(frozen=True)
class RemovalOutcome:
    """What was removed with a file; `kept_with` names files that contain its evidence as well, which then stays.

    `slos` names the targets that went with it: those that neither a catalog here nor another file has.
    """

    name: str
    sha256: str
    environments: int
    strategies: int
    measurements: int
    accuracies: int
    kept_with: tuple[str, ...] = ()
    slos: tuple[str, ...] = ()


def forget_file(database: Database, name: str) -> RemovalOutcome:
    """Remove an imported file and the evidence that only it brought, in one transaction.

    Parameters
    ----------
    database : Database
    name : str
        Its name, its id in the table `imported_file`, or the start of its SHA-256 (four digits or more).

    Returns
    -------
    RemovalOutcome

    Raises
    ------
    ExchangeError
        When no imported file is called so, or several are; nothing is changed then.
    """
    with database.writing_session() as session:
        forgotten = _FileRemoval(session, _file(session, name)).forget()
        session.commit()
    return forgotten


def _file(session: Session, name: str) -> ImportedFile:
    rows = stored_rows(session, ImportedFile)
    digits = name.lower()
    # In this order: a file that is called `3` is meant before the id 3.
    ways = (
        [row for row in rows if row.name == name],
        [row for row in rows if str(row.id) == name],
        [row for row in rows if len(digits) >= _FEWEST_DIGITS and str(row.sha256).startswith(digits)],
    )
    matches: list[ImportedFile] = next((matching for matching in ways if matching), [])
    if len(matches) == 1:
        return matches[0]
    listed = printable("; ".join(f"id {row.id}: {row.name}, SHA-256 {row.sha256!s:.12}…" for row in matches or rows))
    if matches:
        raise ExchangeError(
            "forget", [f"{len(matches)} imported files are called {name!r}; say the id of one: {listed}"]
        )
    if not listed:
        raise ExchangeError("forget", [f"no imported file {name!r}: nothing was imported into this database"])
    raise ExchangeError("forget", [f"no imported file {name!r}; there are: {listed}"])


class _FileRemoval:
    """One file that goes, and the environments that it is part of."""

    def __init__(self, session: Session, file: ImportedFile) -> None:
        self._session = session
        self._file = file
        files = stored_rows(session, ImportedFile)  # in the order they were imported
        self._others = [row for row in files if row.id != file.id]
        self._later = files[files.index(file) + 1 :]
        self._kept_with: dict[str, None] = {}

    def forget(self) -> RemovalOutcome:
        """Remove it."""
        counted: tuple[type[EvidenceTable], ...] = (Environment, Strategy, Measurement, Accuracy)
        before = {table: count_rows(self._session, table) for table in counted}
        artifacts = set(noted(self._file, "artifacts", []))
        subjects = stored_values(self._session, Strategy, "subject")
        for environment in self._environments():
            artifacts |= self._strategy_artifacts(environment)
            heir = self._heir(environment)
            if heir is None:
                self._take_back(environment)
            else:
                self._hand_over(environment, heir)
        # Statements that delete by value follow; they must see what the session holds.
        self._session.flush()
        self._remove_misplaced()
        self._remove_artifacts(artifacts)
        delete_unused_pools(self._session)
        slos = self._remove_slos()
        for subject in subjects - stored_values(self._session, Strategy, "subject"):
            delete_rows(self._session, SubjectSlo, subject=subject)
        name, sha256 = printable(str(self._file.name)), str(self._file.sha256)
        # Last, when no row names the file any more: the reference has no cascade.
        delete_rows(self._session, ImportedFile, id=self._file.id)
        removed = {table: count - count_rows(self._session, table) for table, count in before.items()}
        return RemovalOutcome(
            name,
            sha256,
            environments=removed[Environment],
            strategies=removed[Strategy],
            measurements=removed[Measurement],
            accuracies=removed[Accuracy],
            kept_with=tuple(self._kept_with),
            slos=slos,
        )

    def _environments(self) -> list[Environment]:
        rows = stored_rows(self._session, Environment)
        return [row for row in rows if self._file.id in contributing_files(self._session, _identity(row))]

    def _strategy_artifacts(self, environment: Environment) -> set[str]:
        return stored_values(self._session, Strategy, "artifact_key", environment_id=environment.id)

    def _heir(self, environment: Environment) -> ImportedFile | None:
        """Return the first later file that contains this one's evidence of the environment."""
        return next(
            (row for row in self._later if self._file.key in noted(row, "extends", {}).get(environment.key, ())), None
        )

    def _hand_over(self, environment: Environment, heir: ImportedFile) -> None:
        self._kept_with[heir.name] = None
        for table in (Measurement, Accuracy):
            own: dict[str, Any] = {"environment_id": environment.id, "imported_file_id": self._file.id}
            update_rows(self._session, table, {"imported_file_id": heir.id}, **own)
        if environment.imported_file_id == self._file.id:
            environment.imported_file_id = heir.id
        self._pass_on_replaced(environment.key, heir)

    def _pass_on_replaced(self, key: str, heir: ImportedFile) -> None:
        """Keep with the heir what was there before this file."""
        own = noted(self._file, "replaced", {}).get(key, [])
        if not own:
            return
        replaced = noted(heir, "replaced", {})
        earlier = {_name(entry) for entry in own}
        # This file's notes are of an earlier state than the heir's and win over them.
        later = [entry for entry in replaced.get(key, []) if _name(entry) not in earlier]
        note(heir, "replaced", replaced | {key: [*own, *later]})

    def _take_back(self, environment: Environment) -> None:
        for table in (Measurement, Accuracy):
            delete_rows(self._session, table, environment_id=environment.id, imported_file_id=self._file.id)
        # Analyses rest on what goes; the next one is computed from what is left.
        delete_rows(self._session, Analysis, environment_id=environment.id)
        if environment.imported_file_id == self._file.id:
            environment.imported_file_id = None
            self._session.flush()
            others = contributing_files(self._session, _identity(environment))
            if not others:
                # Where another program changed a measurement's file, it still belongs to this environment.
                belonging: tuple[type[EvidenceTable], ...] = (Measurement, Accuracy, Strategy)
                for rows in belonging:
                    delete_rows(self._session, rows, environment_id=environment.id)
                self._session.delete(environment)
                return
            environment.imported_file_id = others[0]
            self._drop_unsupported(environment)
        else:
            self._restore_strategies(environment)

    def _remove_misplaced(self) -> None:
        """Remove what names this file and an environment that is not there, as another program may have left it."""
        for table in (Measurement, Accuracy):
            delete_rows(self._session, table, imported_file_id=self._file.id)

    def _strategies(self, environment: Environment) -> list[Strategy]:
        return stored_rows(self._session, Strategy, environment_id=environment.id)

    def _restore_strategies(self, environment: Environment) -> None:
        """Give strategies that this file changed their former state; those that it brought go."""
        rows = {(row.subject, row.operator, row.placement): row for row in self._strategies(environment)}
        for entry in noted(self._file, "replaced", {}).get(environment.key, []):
            row = rows.get(_name(entry))
            if row is not None and entry.get("former") is None:
                self._session.delete(row)
            elif row is not None:
                row.sqlmodel_update(entry["former"])
        self._session.flush()

    def _drop_unsupported(self, environment: Environment) -> None:
        """Remove strategies of an environment that other files joined by its name and have no evidence of."""
        for row in self._strategies(environment):
            if not has_measurement(self._session, row.latency_key):
                # Without rounds, another file may bring latencies of it again (`rows_to_document`).
                row.sqlmodel_update({"rounds": 0})
                if not has_accuracy(self._session, row.accuracy_key):
                    self._session.delete(row)

    def _remove_slos(self) -> tuple[str, ...]:
        """Remove targets that only this file brought; of those that others brought as well, the first one's stay."""
        removed = []
        for name in noted(self._file, SLOS, {}):
            heirs = [noted(other, SLOS, {}) for other in self._others]
            targets = next((slos[name] for slos in heirs if isinstance(slos.get(name), dict)), None)
            if targets is not None:
                update_rows(self._session, Slo, targets, name=name)
            elif delete_rows(self._session, Slo, name=name):
                delete_rows(self._session, SubjectSlo, name=name)
                removed.append(name)
        return tuple(removed)

    def _remove_artifacts(self, keys: Collection[str]) -> None:
        """Remove imported artifacts that no strategy has any more; those made here are never among them."""
        used = stored_values(self._session, Strategy, "artifact_key")
        unused = [key for key in keys if key not in used and str(key).startswith(PREFIX)]
        for key in unused:
            delete_rows(self._session, Artifact, key=key)


def _name(entry: Any) -> tuple[str, str, str]:
    return entry["subject"], entry["operator"], entry["placement"]


def _identity(environment: Environment) -> int:
    assert environment.id is not None
    return environment.id
