"""A document as text, the same bytes for the same evidence, one entry a line; and back, with each problem's place."""

import gzip
import json
import zlib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from catalog.errors import ExchangeError
from catalog.exchange.consistency import inconsistencies
from catalog.exchange.document import FORMAT, VERSION, Document

_GZIP = b"\x1f\x8b"
MAX_BYTES = 2**29


class _Head(BaseModel):
    """What tells a document of ours from any other JSON."""

    format: Any = None
    version: Any = None


def document_bytes(document: Document, *, compress: bool = False) -> bytes:
    """Write a document.

    Parameters
    ----------
    document : Document
    compress : bool
        Whether to gzip (without a time stamp, so that equal documents give equal files).

    Returns
    -------
    bytes
        UTF-8 JSON: every entry on a line of its own, keys sorted, defaults left out.
    """
    values = document.model_dump(mode="json", exclude_defaults=True)
    sections = [f'"format":{_compact(FORMAT)}', f'"version":{VERSION}']
    for name in Document.model_fields:
        if name in values and name not in ("format", "version"):
            sections.append(f'"{name}":{_lines(values[name])}')
    content = ("{" + ",\n".join(sections) + "}\n").encode()
    return gzip.compress(content, compresslevel=9, mtime=0) if compress else content


def parse_document(content: bytes, *, file: str) -> Document:
    """Read what `document_bytes` wrote, or anyone who follows docs/exchange.md.

    Parameters
    ----------
    content : bytes
        JSON, not compressed.
    file : str
        What errors call it.

    Returns
    -------
    Document

    Raises
    ------
    ExchangeError
        With each problem's place: malformed JSON, another format, a later version, a field that is missing, unknown or
        out of range, a reference that leads nowhere.
    """
    try:
        head = _Head.model_validate_json(content)
        if head.format != FORMAT:
            raise ExchangeError(file, [f"format is {_shown(head.format)}; expected {FORMAT!r} (docs/exchange.md)"])
        if head.version != VERSION:
            message = f"version is {_shown(head.version)}; this Tierwise reads {VERSION}. Upgrade it, or export again"
            raise ExchangeError(file, [message])
        document = Document.model_validate_json(content)
    except ValidationError as error:
        raise ExchangeError(file, problems_of(error)) from error
    problems = list(inconsistencies(document))
    if problems:
        raise ExchangeError(file, problems)
    return document


def problems_of(error: ValidationError) -> Sequence[str]:
    """Pydantic's findings with their places, `measurements[3].samples.latency_s[4]`."""
    found = []
    for each in error.errors(include_url=False, include_input=True):
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in each["loc"]).lstrip(".")
        got = "" if each["type"] in ("missing", "json_invalid") else f", got {_shown(each['input'])}"
        found.append(f"{place or 'the document'}: {each['msg']}{got}")
    return found


def decompressed(content: bytes, *, file: str) -> bytes:
    """The content of a gzip file, or the bytes themselves; raises ExchangeError when damaged or far too large."""
    if content.startswith(_GZIP):
        reading = zlib.decompressobj(wbits=31)
        try:
            content = reading.decompress(content, MAX_BYTES + 1)
        except zlib.error as error:
            raise ExchangeError(file, [f"a damaged gzip file ({error}); copy it again"]) from error
        if len(content) <= MAX_BYTES and not reading.eof:
            raise ExchangeError(file, ["a gzip file that ends too early; copy it again"])
    if len(content) > MAX_BYTES:
        raise ExchangeError(file, [f"larger than {MAX_BYTES >> 20} MiB; export fewer subjects at once (--subject)"])
    return content


def _lines(section: Any) -> str:
    if isinstance(section, list):
        return "[\n" + ",\n".join(map(_compact, section)) + "\n]"
    return "{\n" + ",\n".join(f"{_compact(key)}:{_compact(section[key])}" for key in sorted(section)) + "\n}"


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
