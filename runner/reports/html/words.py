"""Words for counts and names in generated sentences."""

from collections.abc import Sequence

METRIC_NAMES = {"top1": "top-1", "top5": "top-5", "miou": "mIoU", "agreement": "agreement with identity"}
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def count(value: int) -> str:
    """`three`, `13`."""
    return _NUMBERS[value] if value < len(_NUMBERS) else str(value)


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def spoken(operator: str) -> str:
    """An operator within a sentence."""
    return operator.replace("_", " ")


def sentence(said: str) -> str:
    """With a capital letter and a full stop."""
    return said[:1].upper() + said[1:] + ("" if said.endswith(".") else ".")


def extent(values: Sequence[float], unit: str = "") -> str:
    """`1.20x`, or `1.20x to 2.40x` where they differ as printed."""
    low, high = f"{min(values):.2f}{unit}", f"{max(values):.2f}{unit}"
    return low if low == high else f"{low} to {high}"


def scope(members: Sequence[str], everyone: Sequence[str], *, note: str = "", again: bool = False) -> str:
    """Whom a statement is about: `in net`, `across four subjects`, `in two of four subjects (a and b)`.

    `note` joins the names in brackets; `again` leaves out of how many, which was said before.
    """
    if len(everyone) == 1:
        return f"in {everyone[0]}"
    if len(members) == len(everyone):
        return f"across {count(len(everyone))} subjects{f' ({note})' if note else ''}"
    total = "" if again else f" of {count(len(everyone))} subjects"
    return f"in {count(len(members))}{total} ({listed(members)}{f'; {note}' if note else ''})"
