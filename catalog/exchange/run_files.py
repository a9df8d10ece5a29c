"""What the names of an import's files say together: the files of a folder, their environment, and which are runs.

`identity_mobile_run1.csv`, `identity_mobile_run2.csv` or `run1/identity_mobile.csv`, `run2/identity_mobile.csv` differ
in the number of a run alone: they are one table in several files.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catalog.errors import ExchangeError
from catalog.exchange.spellings import read_label

_SUFFIXES = frozenset((".csv", ".tsv", ".json", ".txt", ".log"))
# Files that lie beside evidence and hold none.
_ABOUT = re.compile(r"(readme|licen[cs]e|notes?|requirements)\b", re.I)
_WORDS = "run|rep|repetition|iteration|iter|trial|round"
_RUN = re.compile(rf"(?:^|(?<=[\W_]))({_WORDS})[\s_-]*([0-9]{{1,6}})(?=[\W_]|$)", re.I)
# Without a word for it, a number is that of a run at the end of a name, or where it is all of the name.
_NUMBER = re.compile(r"(?:^|(?<=[\s_-]))()([0-9]{1,6})$")


@dataclass(frozen=True)
class RunFile:
    """A file, the path without the number of its run, and the number by the word for it, such as `run` or `round`."""

    file: Path
    named: str
    run: Mapping[str, str] = field(default_factory=dict)


def files_in(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return files and those that folders hold, in the order of their names and numbers.

    Raises
    ------
    ExchangeError
        Where a folder holds no file that may be evidence.
    """
    files: dict[Path, None] = {}
    for path in paths:
        members = [path] if not path.is_dir() else sorted(_members(path), key=_natural)
        if not members:
            raise ExchangeError(str(path), [f"holds no file of evidence: {', '.join(sorted(_SUFFIXES))}, also as .gz"])
        files |= dict.fromkeys(members)
    return tuple(files)


def _members(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or _ABOUT.match(path.name) or not path.is_file():
            continue
        if Path(_without_gz(path)).suffix.lower() in _SUFFIXES:
            yield path


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return what sorts `run2` before `run10`."""
    parts = re.split(r"([0-9]+)", str(path))
    return [(int(part), "") if position % 2 else (0, part) for position, part in enumerate(parts)]


def common_name(files: Sequence[Path]) -> str:
    """Return what the environment of files is called: as the first of a pair or a set, or as the folder of many.

    Examples
    --------
    >>> common_name([Path("phone.csv"), Path("phone-accuracy.csv")])
    'phone'
    >>> common_name([Path("lab/resnet_mobile.csv"), Path("lab/fcn_mobile.csv")])
    'lab'
    """
    first, *others = (file.name.split(".")[0] for file in files)
    # Latencies and their accuracies, or a file and others that add to its name.
    added = len(others) < 2 or all(stem == first or re.match(rf"{re.escape(first)}[\W_]", stem) for stem in others)
    if added and not (others and read_label(first).names):
        return first
    return _folder(files).name


def _folder(files: Sequence[Path]) -> Path:
    """Return the folder below which all files are."""
    return Path(os.path.commonpath([file.absolute().parent for file in files]))


def run_groups(files: Sequence[Path], first_line: Callable[[Path], bytes]) -> tuple[tuple[RunFile, ...], ...]:
    """Return files as they are imported together: those that differ in the number of a run and have the same columns.

    Parameters
    ----------
    files : sequence of Path
    first_line : callable
        Returns what a file begins with, empty where it is no table of rows.
    """
    depth = len(_folder(files).parts)
    groups: dict[str, list[RunFile]] = defaultdict(list)
    for file in files:
        groups[_split(file, _RUN, depth).named].append(_split(file, _RUN, depth))
    alone = [members[0].file for members in groups.values() if len(members) == 1]
    groups = {named: members for named, members in groups.items() if len(members) > 1}
    numbered: dict[str, list[RunFile]] = defaultdict(list)
    for file in alone:
        # What nothing else shares is no run of several; a number may be one without a word.
        numbered[_split(file, _NUMBER, depth).named].append(_split(file, _NUMBER, depth))
    places = {file: position for position, file in enumerate(files)}
    divided = (part for members in (*groups.values(), *numbered.values()) for part in _divided(members, first_line))
    return tuple(sorted(divided, key=lambda part: places[part[0].file]))


def _divided(members: Sequence[RunFile], first_line: Callable[[Path], bytes]) -> Iterator[tuple[RunFile, ...]]:
    """Yield files together where they are runs with the same columns, else one by one."""
    runs = {tuple(member.run.items()) for member in members}
    if () not in runs and 1 < len(members) == len(runs):
        # Without numbers: a log begins with one, and so do rows without a header.
        lines = {re.sub(rb"[0-9.]+", b"", first_line(member.file)) for member in members}
        if len(lines) == 1 and lines != {b""}:
            yield tuple(members)
            return
    for member in members:
        yield (RunFile(member.file, str(member.file)),)


def _split(file: Path, pattern: re.Pattern[str], depth: int) -> RunFile:
    """Take the number of a run out of a path; the first folders have those of none, because all files are in them."""
    run: dict[str, str] = {}
    parts = []
    path = Path(_without_gz(file)).with_suffix("")
    above = depth - len(file.absolute().parts) + len(path.parts)
    for position, part in enumerate(path.parts):
        if position >= above and (match := pattern.search(part)):
            run[match[1].lower() or "run"] = str(int(match[2]))
            part = f"{part[: match.start()]}{part[match.end() :]}".strip(" _-.") or "-"
        parts.append(part)
    return RunFile(file, str(Path(*parts)), run)


def _without_gz(file: Path) -> str:
    return str(file).removesuffix(".gz")
