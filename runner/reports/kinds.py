"""Messages of one kind in one line: what differs between them are figures, processes and names."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_VARYING = re.compile(r"\([^()]*\)|[-+±]?\d[\d.,e]*")


@dataclass(frozen=True)
class MessageGroup:
    """Messages of one kind: the first of them, how many there are, and what they are about, in their order."""

    first: str
    count: int
    names: tuple[str, ...]
    alike: bool

    @property
    def words(self) -> str:
        """Return the first message, and that others have other figures where they do."""
        return self.first if self.alike else f"{self.first} (the first; figures differ)"


def grouped_messages(messages: Iterable[tuple[str, str]]) -> Iterator[MessageGroup]:
    """Group messages, given with the name of what they are about, by their kind; the most frequent kind comes first.

    Examples
    --------
    >>> groups = grouped_messages([("a", "steal: 2.6 %"), ("b", "gone"), ("c", "steal: 3.1 %")])
    >>> [(group.words, group.count, group.names) for group in groups]
    [('steal: 2.6 % (the first; figures differ)', 2, ('a', 'c')), ('gone', 1, ('b',))]
    """
    kinds: dict[str, list[tuple[str, str]]] = {}
    for name, message in messages:
        kinds.setdefault(_VARYING.sub("#", message), []).append((name, message))
    for members in sorted(kinds.values(), key=len, reverse=True):
        texts = {message for _, message in members}
        names = tuple(dict.fromkeys(name for name, _ in members))
        yield MessageGroup(members[0][1], len(members), names, len(texts) == 1)
