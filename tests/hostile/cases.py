"""One thing that a user may hand over and that cannot be used: how it is made, how it is tried, what must be said."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.door import Said

Make = Callable[[Path], object]
Attempt = Callable[[Path], Said]


@dataclass(frozen=True)
class Case:
    """A row of docs/errors.md.

    Attributes
    ----------
    name : str
        What is wrong, as the table names it.
    make : callable
        Spoils a directory that holds a sound catalog, model, pictures, labels and evidence (`project.py`).
    says : str
        What the message must hold, whatever else it says.
    command : tuple of str
        What the user types in that directory.
    attempt : callable, optional
        What is done instead of typing the command once, where that takes more: it is given the spoilt directory.
    code : int
        How the command ends.
    spoils_evidence : bool
        Whether the database itself is what is spoilt; otherwise the test checks that nothing of it changed.
    """

    name: str
    make: Make
    says: str
    command: tuple[str, ...] = ("validate",)
    spoils_evidence: bool = False
    attempt: Attempt | None = None
    code: int = 1


@dataclass(frozen=True)
class Section:
    """A table of docs/errors.md."""

    title: str
    text: str
    head: tuple[str, str]
    cases: Sequence[Case]
