"""Importing files: which kind each is, and all of them in one transaction or none."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlmodel import Session

from catalog.clock import utc_now
from catalog.errors import ExchangeError
from catalog.evidence.database import Database
from catalog.evidence.tables import Environment, Strategy
from catalog.evidence.writing import utc_text
from catalog.exchange.document import FORMAT, VERSION, Document
from catalog.exchange.foreign import Foreign, KnownStrategy, foreign_document
from catalog.exchange.gathering import NAME_RULE, is_name
from catalog.exchange.storing import FileRecord, Stored, store_document
from catalog.exchange.tables import read_rows
from catalog.exchange.text import MAX_BYTES, decompressed, parse_document
from catalog.keys import content_key


@dataclass(frozen=True)
class Imported:
    """A file and what importing it changed."""

    file: Path
    format: str
    sha256: str
    stored: Stored


def import_files(
    database: Database, files: Sequence[Path], *, environment: str | None = None, now: datetime | None = None
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
    now : datetime, optional
        When they are imported; the present by default.

    Returns
    -------
    tuple of Imported

    Raises
    ------
    ExchangeError
        When any of them cannot be read or contradicts what was imported before; nothing of any is stored then.
    """
    at = utc_text(now or utc_now())
    if environment is not None and not is_name(environment):
        raise ExchangeError("--environment", [f"{environment!r} is no name; {NAME_RULE}"])
    with database.session() as session:
        found = [_import(session, file, environment=environment, default=_stem(files[0]), at=at) for file in files]
        session.commit()
    return tuple(found)


def _stem(file: Path) -> str:
    """A file's name as a name of an environment: without suffixes, other characters replaced."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", file.name.split(".")[0]).strip("-_.")[:63] or "imported"


def _import(session: Session, file: Path, *, environment: str | None, default: str, at: str) -> Imported:
    raw = read_bytes(file)
    content = decompressed(raw, file=str(file))
    name = str(file)
    if content.lstrip()[:1] == b"{":
        if environment is not None:
            raise ExchangeError(name, ["names its environments itself; leave out --environment"])
        document, kind = parse_document(content, file=name), f"{FORMAT} {VERSION}"
        key = content_key({"kind": "imported file", "sha256": hashlib.sha256(content).hexdigest()})
        details = _chain(document)
    else:
        rows = read_rows(content, file=name)
        foreign = Foreign(rows, hashlib.sha256(content).hexdigest(), environment or default, at)
        document, kind = foreign_document(foreign, _known_strategies(session), file=name), rows.kind
        places = sorted(each.host for each in document.environments)
        details = {"environments": places}
        key = content_key({"kind": "imported file", "sha256": foreign.sha256, "environments": places})
    record = FileRecord(key, hashlib.sha256(raw).hexdigest(), file.name, kind, at, details)
    return Imported(file, kind, record.sha256, store_document(session, document, record))


def read_bytes(file: Path) -> bytes:
    """The file's bytes, no more than may be imported; raises ExchangeError for a directory or an unreadable file."""
    try:
        with file.open("rb") as reading:
            return reading.read(MAX_BYTES + 1)
    except IsADirectoryError as error:
        raise ExchangeError(str(file), ["is a directory; name a file in it"]) from error
    except OSError as error:
        raise ExchangeError(str(file), [f"cannot be read: {error.strerror}"]) from error


def _chain(document: Document) -> dict[str, object]:
    """Where the exporting database had its evidence from, by the keys of the environments."""
    files = {each.key: each.model_dump() for each in document.files}
    return {
        "environments": {
            each.key: files[each.imported_from] if each.imported_from else "measured" for each in document.environments
        }
    }


def _known_strategies(session: Session) -> dict[tuple[str, str, str, str], KnownStrategy]:
    """Imported strategies by environment key, subject, operator and placement."""
    keys = {row.id: row.key for row in session.execute(select(Environment)).scalars() if row.imported_file_id}
    return {
        (keys[row.environment_id], row.subject, row.operator, row.placement): KnownStrategy(
            row.latency_key, row.accuracy_key, row.task, row.rounds
        )
        for row in session.execute(select(Strategy)).scalars()
        if row.environment_id in keys
    }
