"""Importing files: which kind each is, and all of them in one transaction or none."""

import gc
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError
from sqlmodel import Session

from catalog.errors import ExchangeError
from catalog.evidence.allowed import utc_now, utc_text
from catalog.evidence.database import Database
from catalog.evidence.loading import slo_evidence
from catalog.evidence.records import FileRecord
from catalog.evidence.soundness import sound_rows
from catalog.evidence.tables import (
    Artifact,
    Environment,
    ImportedFile,
    Strategy,
    imported_file,
    stored_rows,
    stored_values,
)
from catalog.exchange.content import ContentStream
from catalog.exchange.document import FORMAT, VERSION, Document
from catalog.exchange.import_document import ImportOutcome, store_document
from catalog.exchange.layouts import NO_OPTIONS, RowOptions
from catalog.exchange.lineage import imported_key
from catalog.exchange.row_collector import NAME_RULE, artifact_counts, gather_rows, is_name
from catalog.exchange.rows import first_character, holds_nested_rows, read_rows
from catalog.exchange.rows_to_document import (
    ForeignRows,
    ImportedStrategy,
    environment_key,
    foreign_document,
    renamed,
    rows_digest,
)
from catalog.exchange.serialization import problems_of, read_document
from catalog.keys import content_key
from catalog.printable import printable
from catalog.regular_files import open_regular
from catalog.statistics.families import KNOWN_PASSES


@dataclass(frozen=True)
class Imported:
    """A file and what importing it changed; `remarks` say what its rows cannot be compared by."""

    file: Path
    format: str
    sha256: str
    stored: ImportOutcome
    remarks: tuple[str, ...] = ()


def import_files(
    database: Database,
    files: Sequence[Path],
    *,
    environment: str | None = None,
    options: RowOptions = NO_OPTIONS,
    now: datetime | None = None,
    progress: Callable[[Path, float], None] = lambda file, share: None,
) -> tuple[Imported, ...]:
    """Import files of evidence, all or nothing.

    Parameters
    ----------
    database : Database
    files : sequence of Path
        Documents of `runner export` (JSON, also gzip), CSV or JSON rows of latencies or accuracies, in this order.
    environment : str, optional
        Where CSV or JSON rows without a column `environment` were measured; by default the first file's name without
        its suffixes.
    options : RowOptions, optional
        What the columns of CSV or JSON rows are, where their names do not say it.
    now : datetime, optional
        When they are imported; the present by default.
    progress : callable
        Called with a file and the share of it that is stored.

    Returns
    -------
    tuple of Imported

    Raises
    ------
    ExchangeError
        When any of them cannot be read or contradicts what was imported before; nothing of any is stored then.
    """
    at = utc_text(now or utc_now())
    names = {} if environment is None else {environment: environment}
    if environment is not None and not is_name(environment):
        raise ExchangeError("--environment", [f"{environment!r} is no name; {NAME_RULE}"])
    with database.writing_session() as session, _without_cycles():
        command = _Command(session, environment, _stem(files[0]), at, names, progress, options)
        imported = tuple(command.import_file(file) for file in files)
        imported = tuple(command.remarked(file) for file in imported)
        session.commit()
    return imported


@contextmanager
def _without_cycles() -> Iterator[None]:
    """Pause the search for reference cycles: an import makes millions of objects, none of which refers to itself."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _stem(file: Path) -> str:
    """Return a file's name as a name of an environment: without suffixes, other characters replaced."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", file.name.split(".")[0]).strip("-_.")[:63] or "imported"


@dataclass(frozen=True)
class _Command:
    """One command's files; `names` maps environments that rows claim to those that the user put them in.

    Rows join what stands under a name when the user named it, or when a file of the same command brought it.
    """

    session: Session
    environment: str | None
    default: str
    at: str
    names: dict[str, str]
    progress: Callable[[Path, float], None]
    options: RowOptions
    # Of which subjects each file of rows is, and those of which one of them, or an earlier one, has an identity.
    subjects: dict[Path, set[str]] = field(default_factory=dict)
    identities: set[str] = field(default_factory=set)

    def remarked(self, imported: Imported) -> Imported:
        """Return what a file brought with the subjects that nothing is compared with, once all files are there."""
        lacking = self.subjects.get(imported.file, set()) - self.identities
        if not lacking:
            return imported
        text = f"{', '.join(sorted(lacking))}: no operator is called `identity`, with which all others are compared"
        return replace(imported, remarks=(*imported.remarks, text))

    def import_file(self, file: Path) -> Imported:
        """Import one file into the command's transaction."""
        with opened(file) as raw:
            stream = ContentStream(raw, file=str(file))
            # A document is an object; rows are CSV, a list, or objects that lead to numbers.
            if first_character(stream) == b"{" and not holds_nested_rows(stream, Document.model_fields):
                return self._import_document(file, stream)
            return self._import_rows(file, stream)

    def _import_document(self, file: Path, stream: ContentStream) -> Imported:
        if self.environment is not None:
            raise ExchangeError(str(file), ["names its environments itself; leave out --environment"])
        document = read_document(stream, file=str(file))
        # Of the content, so that an export is the same file whether compressed or not.
        key = content_key({"kind": "imported file", "sha256": stream.content_sha256})
        record = self._record(file, key, stream, f"{FORMAT} {VERSION}", _chain(document))
        stored = store_document(self.session, document, record, progress=partial(self.progress, file))
        return Imported(file, record.format, record.sha256, stored)

    def _import_rows(self, file: Path, stream: ContentStream) -> Imported:
        rows = read_rows(stream, file=str(file), options=self.options, placements=self._placements)
        gathered = gather_rows(rows, self.environment or self.default, file=str(file))
        digest = rows_digest(gathered)
        claimed = sorted({strategy.environment for strategy in gathered})
        # Of the rows, not of the file: in another order or spelling they are the same import.
        key = content_key({"kind": "imported rows", "digest": digest})
        # Before, the order of the rows was in the key.
        former = {"kind": "imported file", "sha256": stream.content_sha256, "environments": claimed}
        present = imported_file(self.session, key) or imported_file(self.session, content_key(former))
        if present is not None:
            # Later files of the command join the environments that this one got when it was imported.
            self.names.update({name: name for name in claimed})
            self.names.update(_names_given(present))
            return Imported(file, rows.kind, present.sha256, ImportOutcome(known_before=True))
        apart = self._named_apart(claimed, digest)
        try:
            with sound_rows(self.session):
                imported = _imported_strategies(self.session)
                targets = slo_evidence(self.session)
            percentiles = tuple(percentile for slo in targets for percentile in slo.latency_s)
            foreign = ForeignRows(renamed(gathered, self.names), digest, self.at, percentiles)
            document = foreign_document(foreign, imported, file=str(file))
        except ValidationError as error:  # what rows may hold by themselves and evidence may not
            raise ExchangeError(str(file), problems_of(error)) from error
        details: dict[str, object] = {"environments": sorted(entry.host for entry in document.environments)}
        if apart:
            details["named"] = {name: self.names[name] for name in claimed}
        record = self._record(file, key, stream, rows.kind, details)
        storing = partial(self.progress, file)
        stored = store_document(self.session, document, record, named_by_user=True, progress=storing)
        remarks = (*rows.remarks, *_remarks(document))
        self.subjects[file] = {strategy.subject for strategy in document.strategies}
        self.identities.update(subject for _, subject, operator, _ in imported if operator == "identity")
        self.identities.update(entry.subject for entry in document.strategies if entry.operator == "identity")
        return Imported(file, rows.kind, record.sha256, replace(stored, apart=apart), remarks)

    def _placements(self) -> dict[tuple[str, str], list[str]]:
        """Return the placements with latencies, by subject and operator, of the environments that rows may join."""
        joined = {imported_key(environment_key(name)) for name in self.names.values()}
        placements: dict[tuple[str, str], list[str]] = defaultdict(list)
        with sound_rows(self.session):
            for (environment, subject, operator, placement), strategy in _imported_strategies(self.session).items():
                if environment in joined and strategy.rounds:
                    placements[subject, operator].append(placement)
        return placements

    def _record(self, file: Path, key: str, stream: ContentStream, kind: str, details: dict[str, object]) -> FileRecord:
        name, sha256 = printable(file.name), stream.sha256
        return FileRecord(key=key, name=name, sha256=sha256, format=kind, imported_at=self.at, details=details)

    def _named_apart(self, claimed: Sequence[str], digest: str) -> tuple[str, ...]:
        """Find a name for every claimed one; says which are not the claimed ones because these are taken."""
        taken = stored_values(self.session, Environment, "key")
        said = []
        for name in claimed:
            if name in self.names:
                continue
            self.names[name] = name
            if imported_key(environment_key(name)) in taken:
                # 63 characters with the hyphen, as `is_name` allows.
                others = (f"{name[: 62 - length]}-{digest[:length]}" for length in range(8, len(digest)))
                self.names[name] = next(
                    other
                    for other in others
                    if imported_key(environment_key(other)) not in taken and other not in claimed
                )
                said.append(
                    f"an earlier file brought an environment {name!r}; this one is kept apart as {self.names[name]!r}. "
                    f"To join them, import both files in one command or with --environment {name}"
                )
        return tuple(said)


def opened(file: Path) -> BinaryIO:
    """Open a file to be read; raises ExchangeError where it cannot be."""
    try:
        return open_regular(file)
    except IsADirectoryError as error:
        raise ExchangeError(str(file), ["is a directory; name a file in it"]) from error
    except OSError as error:
        raise ExchangeError(str(file), [f"cannot be read: {error.strerror}"]) from error


def _remarks(document: Document) -> Iterator[str]:
    """Yield which names in rows keep their strategies from being compared."""
    unknown = {
        strategy.operator
        for strategy in document.strategies
        if not {str(step["name"]) for step in strategy.passes} <= set(KNOWN_PASSES)
    }
    if unknown:
        yield (
            f"{', '.join(sorted(unknown))}: no column `passes` says what is done to the model, so that no research "
            f"question compares it; allowed: {', '.join(KNOWN_PASSES)}, joined by '+'"
        )


def _chain(document: Document) -> dict[str, object]:
    """Return where the exporting database had its evidence from, by the keys of the environments."""
    files = {file.key: file.model_dump() for file in document.files}
    return {
        "environments": {
            environment.key: files[environment.imported_from] if environment.imported_from else "measured"
            for environment in document.environments
        }
    }


def _names_given(file: ImportedFile) -> dict[str, str]:
    """Return the names that environments got which an imported file claims; another program may have changed them."""
    named = file.details.get("named") if isinstance(file.details, dict) else None
    return named if isinstance(named, dict) else {}


def _imported_strategies(session: Session) -> dict[tuple[str, str, str, str], ImportedStrategy]:
    """Return imported strategies by environment key, subject, operator and placement."""
    keys = {row.id: row.key for row in stored_rows(session, Environment) if row.imported_file_id}
    artifacts = {row.key: artifact_counts(row.size_bytes, row.details) for row in stored_rows(session, Artifact)}
    return {
        (keys[row.environment_id], row.subject, row.operator, row.placement): ImportedStrategy(
            row.latency_key,
            row.accuracy_key,
            row.task,
            row.rounds,
            row.artifact_key,
            tuple(str(step.get("name")) for step in row.passes),
            artifacts.get(row.artifact_key, {}),
        )
        for row in stored_rows(session, Strategy)
        if row.environment_id in keys
    }
