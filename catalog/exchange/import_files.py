"""Importing files, which kind each is, all of them in one transaction or none; and taking one back.

After a file is taken back the database is as if it had never been imported. What a later file contains as well stays
and rests on that file from then on.
"""

import gc
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError
from sqlmodel import Session

from catalog.errors import ExchangeError
from catalog.evidence.allowed import utc_now, utc_text, with_marks
from catalog.evidence.database import Database
from catalog.evidence.loading import slo_evidence
from catalog.evidence.lookups import has_accuracy, has_measurement
from catalog.evidence.records import FileRecord
from catalog.evidence.soundness import sound_rows
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
    imported_file,
    note,
    noted,
    stored_rows,
    stored_values,
    update_rows,
)
from catalog.exchange.document import FORMAT, VERSION, Document
from catalog.exchange.import_document import ImportOutcome, store_document
from catalog.exchange.layouts import NO_OPTIONS, LatenciesFirst, RowOptions
from catalog.exchange.lineage import PREFIX, imported_key
from catalog.exchange.row_collector import gather_rows
from catalog.exchange.rows import (
    NAME_RULE,
    Rows,
    StrategyName,
    StrategyRows,
    artifact_counts,
    first_character,
    holds_objects,
    is_name,
    join_rows,
    read_rows,
)
from catalog.exchange.rows_to_document import (
    ForeignRows,
    ImportedStrategy,
    environment_key,
    foreign_document,
    renamed,
    rows_digest,
)
from catalog.exchange.serialization import ContentStream, problems_of, read_document
from catalog.exchange.spellings import REQUIRED, RunFile, common_name, folded, run_groups
from catalog.foreign import open_regular, printable
from catalog.keys import content_key
from catalog.statistics.families import KNOWN_PASSES


@dataclass(frozen=True)
class Imported:
    """A file and what importing it changed; `remarks` say what its rows cannot be compared by.

    `others` are files with further runs of the same rows, which were imported with it as one.
    """

    file: Path
    format: str
    sha256: str
    stored: ImportOutcome
    remarks: tuple[str, ...] = ()
    others: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """What messages call it."""
        return _name_of([str(file) for file in (self.file, *self.others)])


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
        Tables that differ in the number of a run in their names are one import.
    environment : str, optional
        Where CSV or JSON rows without a column `environment` were measured; by default the first file's name without
        its suffixes, or the name of the folder where the others do not begin with that.
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
        command = _Command(session, environment, _as_name(common_name(files)), at, names, progress, options)
        imported = command.import_groups(run_groups(files, _first_line))
        imported = tuple(command.remarked(file) for file in imported)
        unused = [column for column in options.columns if column not in options.used]
        if unused and any(file.format in REQUIRED for file in imported):
            raise ExchangeError(
                "--column", [f"{options.columns[column]}={column}: no file has it" for column in unused]
            )
        session.commit()
    return imported


_MEMBER = re.compile(rb"\"((?:[^\"\\]|\\.)*)\"\s*:")
# Of the first line of a table, as much as tells it from another one.
_MOST_HEADER = 2**14


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


def _as_name(text: str) -> str:
    """Return a text as a name of an environment: other characters replaced."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.")[:63] or "imported"


def _name_of(files: Sequence[str]) -> str:
    """Return what files that were imported as one are called."""
    return files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def _first_line(file: Path) -> bytes:
    """Return what tells tables of other columns apart: the first line, of JSON the names; nothing of a document."""
    try:
        with opened(file) as raw:
            stream = ContentStream(raw, file=str(file))
            start = bytes(stream.peek())[:_MOST_HEADER]
            first = first_character(stream)
            if first not in (b"[", b"{"):
                return start.split(b"\n")[0].strip()
            if first == b"{" and not holds_objects(stream, Document.model_fields):
                return b""
            return first + b",".join(dict.fromkeys(_MEMBER.findall(start)))
    except ExchangeError:
        # Said when it is imported.
        return b""


@dataclass(frozen=True)
class _Contents:
    """What rows were read from: one file, or several that are runs of the same, by their names below their folder."""

    names: Sequence[str]
    streams: list[ContentStream] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        """The hash of the file; of several, that of a list of their hashes."""
        if len(self.streams) == 1:
            return self.streams[0].sha256
        return hashlib.sha256("".join(f"{file['sha256']}\n" for file in self.files()).encode()).hexdigest()

    def files(self) -> list[dict[str, str]]:
        """Return every file's name and hash."""
        named = zip(self.names, self.streams, strict=False)
        return [{"name": printable(name), "sha256": stream.sha256} for name, stream in named]


@dataclass(frozen=True)
class _EvidenceBefore:
    """What rows join: imported strategies by environment key, subject, operator and placement, and the targets."""

    strategies: dict[tuple[str, str, str, str], ImportedStrategy]
    percentiles: tuple[float, ...]


@dataclass
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
    before: _EvidenceBefore | None = None
    all_latencies_there: bool = True

    def remarked(self, imported: Imported) -> Imported:
        """Return what a file brought with the subjects that nothing is compared with, once all files are there."""
        subjects = self.subjects.get(imported.file, set())
        remarks = list(imported.remarks)
        if lacking := subjects - self.identities:
            names = ", ".join(sorted(lacking))
            remarks.append(f"{names}: no operator is called `identity`, with which all others are compared")
        timed = (
            {subject for subject, _ in self._placements()} if imported.format != "latencies" and self.before else set()
        )
        if timed and (untimed := sorted(name for name in subjects if folded(name) not in timed)):
            remarks.append(
                f"{', '.join(untimed)}: no latencies are called so in this environment; where those of another name "
                "are meant, call both alike in the files, or in a file of one subject with --set subject=NAME"
            )
        return replace(imported, remarks=tuple(remarks))

    def import_groups(self, groups: Sequence[Sequence[RunFile]]) -> tuple[Imported, ...]:
        """Import all files, those last that need the placements of latencies."""
        imported, last = [], []
        self.all_latencies_there = False
        for group in groups:
            try:
                imported.append(self._import_group(group))
            except LatenciesFirst:
                last.append(group)
        self.all_latencies_there = True
        return (*imported, *map(self._import_group, last))

    def _import_group(self, group: Sequence[RunFile]) -> Imported:
        """Import one file, or several that are runs of the same, into the command's transaction."""
        files = [member.file for member in group]
        if len(files) == 1:
            return self._import_file(files[0])
        folder = os.path.commonpath([file.parent for file in files])
        contents = _Contents([os.path.relpath(file, folder) for file in files])
        rows = join_rows(self._parts(group, contents), contents.names)
        imported = replace(self._import_rows(files[0], rows, contents), others=tuple(files[1:]))
        for file in files[1:]:
            self.progress(file, 1.0)
        return imported

    def _parts(self, group: Sequence[RunFile], contents: _Contents) -> Iterator[Rows]:
        """Yield the rows of the files, one of which is open at a time."""
        for member in group:
            with opened(member.file) as raw:
                contents.streams.append(ContentStream(raw, file=str(member.file)))
                yield self._rows(contents.streams[-1], member)

    def _rows(self, stream: ContentStream, member: RunFile) -> Rows:
        named, file = member.named, str(member.file)
        placements = self._placements if self.all_latencies_there else dict
        return read_rows(stream, file=file, options=self.options, placements=placements, named=named, run=member.run)

    def _import_file(self, file: Path) -> Imported:
        with opened(file) as raw:
            stream = ContentStream(raw, file=str(file))
            # A document is an object; rows are CSV, a list, or objects with other names.
            if first_character(stream) == b"{" and not holds_objects(stream, Document.model_fields):
                return self._import_document(file, stream)
            rows = self._rows(stream, RunFile(file, str(file)))
            return self._import_rows(file, rows, _Contents([file.name], [stream]))

    def _import_document(self, file: Path, stream: ContentStream) -> Imported:
        if self.environment is not None:
            raise ExchangeError(str(file), ["names its environments itself; leave out --environment"])
        document = read_document(stream, file=str(file))
        # Of the content, so that an export is the same file whether compressed or not.
        key = content_key({"kind": "imported file", "sha256": stream.content_sha256})
        record = self._record(file.name, key, stream.sha256, f"{FORMAT} {VERSION}", _chain(document))
        stored = store_document(self.session, document, record, progress=partial(self.progress, file))
        self.before = None
        return Imported(file, record.format, record.sha256, stored)

    def _import_rows(self, file: Path, rows: Rows, contents: _Contents) -> Imported:
        gathered = gather_rows(rows, self.environment or self.default, file=str(file))
        digest = rows_digest(gathered)
        claimed = sorted({strategy.environment for strategy in gathered})
        # Of the rows, not of the file: in another order or spelling they are the same import.
        key = content_key({"kind": "imported rows", "digest": digest})
        # Before, the order of the rows was in the key.
        former = {"kind": "imported file", "sha256": contents.streams[0].content_sha256, "environments": claimed}
        present = imported_file(self.session, key) or imported_file(self.session, content_key(former))
        if present is not None:
            # Later files of the command join the environments that this one got when it was imported.
            self.names.update({name: name for name in claimed})
            self.names.update(_names_given(present))
            return Imported(file, rows.kind, present.sha256, ImportOutcome(known_before=True))
        apart = self._named_apart(claimed, digest)
        try:
            before = self._evidence_before()
            named, renamings = _named_as_before(renamed(gathered, self.names), before.strategies)
            foreign = ForeignRows(named, digest, self.at, before.percentiles)
            document = foreign_document(foreign, before.strategies, file=str(file))
        except ValidationError as error:  # what rows may hold by themselves and evidence may not
            raise ExchangeError(str(file), problems_of(error)) from error
        details: dict[str, object] = {"environments": sorted(entry.host for entry in document.environments)}
        if apart:
            details["named"] = {name: self.names[name] for name in claimed}
        if rows.files:
            details["files"] = contents.files()
        record = self._record(_name_of(contents.names), key, contents.sha256, rows.kind, details)
        storing = partial(self.progress, file)
        stored = store_document(self.session, document, record, named_by_user=True, progress=storing)
        # To read and judge all rows again after every file takes longer than to store it.
        before.strategies.update(_strategies_of(document, before.strategies))
        remarks = (*rows.remarks, *renamings, *_remarks(document))
        self.subjects[file] = {strategy.subject for strategy in document.strategies}
        self.identities.update(subject for _, subject, operator, _ in before.strategies if operator == "identity")
        self.identities.update(entry.subject for entry in document.strategies if entry.operator == "identity")
        return Imported(file, rows.kind, record.sha256, replace(stored, apart=apart), remarks)

    def _evidence_before(self) -> _EvidenceBefore:
        """Return what is imported already; read once, until a document is imported."""
        if self.before is None:
            with sound_rows(self.session):
                strategies, targets = _imported_strategies(self.session), slo_evidence(self.session)
            percentiles = tuple(percentile for slo in targets for percentile in slo.latency_s)
            self.before = _EvidenceBefore(strategies, percentiles)
        return self.before

    def _placements(self) -> dict[tuple[str, str], list[str]]:
        """Return the placements with latencies, by subject and operator, of the environments that rows may join."""
        joined = {imported_key(environment_key(name)) for name in self.names.values()}
        placements: dict[tuple[str, str], list[str]] = defaultdict(list)
        for (environment, subject, operator, placement), strategy in self._evidence_before().strategies.items():
            if environment in joined and strategy.rounds:
                placements[folded(subject), folded(operator)].append(placement)
        return placements

    def _record(self, name: str, key: str, sha256: str, kind: str, details: dict[str, object]) -> FileRecord:
        name = printable(name)
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


def _named_as_before(
    gathered: Mapping[StrategyName, StrategyRows], before: Iterable[tuple[str, str, str, str]]
) -> tuple[Mapping[StrategyName, StrategyRows], Sequence[str]]:
    """Return the rows with subjects and operators called as in other files of their environment, and what to say of it.

    `ResNet-50` is `resnet_50` there; a name that is there as it is, or that could be several, stays.
    """
    stored_names: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for environment, subject, operator, _ in before:
        for column, name in (("subject", subject), ("operator", operator)):
            stored_names[environment, column][folded(name)].add(name)
    own = {column: {getattr(strategy, column) for strategy in gathered} for column in ("subject", "operator")}
    remarks: dict[str, None] = {}

    def here(strategy: StrategyName, column: str) -> str:
        name = str(getattr(strategy, column))
        there = stored_names[imported_key(environment_key(strategy.environment)), column].get(folded(name), {name})
        if name in there or len(there) > 1 or sum(folded(other) == folded(name) for other in own[column]) > 1:
            return name
        stored = next(iter(there))
        remarks[f"{column} {name} is taken for {stored}, as another file of the environment calls it"] = None
        return stored

    named = {
        replace(strategy, subject=here(strategy, "subject"), operator=here(strategy, "operator")): members
        for strategy, members in gathered.items()
    }
    return named, list(remarks)


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


def _strategies_of(
    document: Document, before: Mapping[tuple[str, str, str, str], ImportedStrategy]
) -> Iterator[tuple[tuple[str, str, str, str], ImportedStrategy]]:
    """Yield the strategies of rows as they are stored once their document is."""
    artifacts = {entry.key: artifact_counts(entry.size_bytes, entry.details) for entry in document.artifacts}
    for entry in document.strategies:
        place = (imported_key(entry.environment), entry.subject, entry.operator, entry.placement)
        former = before[place].counts if place in before else {}
        yield (
            place,
            ImportedStrategy(
                imported_key(entry.latency_key),
                imported_key(entry.accuracy_key),
                entry.task,
                entry.rounds,
                imported_key(entry.artifact_key),
                tuple(str(step["name"]) for step in entry.passes),
                artifacts.get(entry.artifact_key, former),
            ),
        )


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
        [row for row in rows if name in (row.name, *_run_names(row))],
        [row for row in rows if str(row.id) == name],
        [row for row in rows if len(digits) >= _FEWEST_DIGITS and str(row.sha256).startswith(digits)],
    )
    matches: list[ImportedFile] = next((matching for matching in ways if matching), [])
    if len(matches) == 1:
        return matches[0]
    listed = with_marks("; ".join(f"id {row.id}: {row.name}, SHA-256 {row.sha256!s:.12}…" for row in matches or rows))
    if matches:
        raise ExchangeError(
            "forget", [f"{len(matches)} imported files are called {name!r}; say the id of one: {listed}"]
        )
    if not listed:
        raise ExchangeError("forget", [f"no imported file {name!r}: nothing was imported into this database"])
    raise ExchangeError("forget", [f"no imported file {name!r}; there are: {listed}"])


def _run_names(file: ImportedFile) -> list[str]:
    """Return the names of files that were imported as one; another program may have changed them."""
    files = file.details.get("files") if isinstance(file.details, dict) else None
    return [str(entry.get("name")) for entry in files if isinstance(entry, dict)] if isinstance(files, list) else []


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
        name, sha256 = with_marks(str(self._file.name)), str(self._file.sha256)
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
        # A file of sizes brings no row of its own: it changed strategies.
        changed = noted(self._file, "replaced", {})
        return [
            row
            for row in rows
            if row.key in changed or self._file.id in contributing_files(self._session, _identity(row))
        ]

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
