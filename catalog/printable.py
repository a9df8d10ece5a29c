"""What of a text may reach a terminal: names and reasons come from files that others wrote.

A terminal obeys escape sequences wherever they come from: they move the cursor, rename the window, fill the clipboard.
Bidirectional controls show a text in another order than it is. Bytes of a file name that are no UTF-8 are read as lone
surrogates, which no output can encode.
"""

import json
import re

_SEQUENCES = (
    # ECMA-48: two characters after ESC, or one of C1. First those that begin strings, whose content is no text either.
    r"(?:\x1b[PX\]^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)",
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]",
    r"\x1b[ -/]*[0-~]",
)
_CHARACTERS = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"
    # Marks, embeddings, overrides and isolates of direction; separators of lines; annotations and tags.
    r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
)
_SURROGATES = r"\ud800-\udfff"
UNPRINTABLE = re.compile("|".join((*_SEQUENCES, f"[{_CHARACTERS}{_SURROGATES}]")))
_IN_JSON = re.compile(f"[{_CHARACTERS}{_SURROGATES}]")


def printable(text: str) -> str:
    r"""Return a text without what a terminal would obey; line breaks and tabs stay.

    Examples
    --------
    >>> printable("a\x1b[31mb\x1b]0;title\x07c\u202ed")
    'abcd'
    >>> printable("caf\udce9.png")
    'caf\\xe9.png'
    """
    return UNPRINTABLE.sub(substitute, text)


def substitute(unprintable: re.Match[str]) -> str:
    """Return what is printed for a match of `UNPRINTABLE`: a surrogate as it is escaped, nothing for the rest."""
    first = unprintable[0][0]
    if not "\ud800" <= first <= "\udfff":
        return ""
    # As `surrogateescape` reads a byte of a file name (PEP 383).
    return f"\\x{ord(first) - 0xDC00:02x}" if "\udc80" <= first <= "\udcff" else f"\\u{ord(first):04x}"


def printable_json(document: str) -> str:
    r"""Return a JSON document of the same value whose strings escape what a terminal would obey.

    Examples
    --------
    >>> print(printable_json('"é\x9b\u202e"'))
    "é\u009b\u202e"
    """
    return _IN_JSON.sub(lambda character: json.dumps(character[0])[1:-1], document)
