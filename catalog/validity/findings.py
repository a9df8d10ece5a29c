"""What a rule says: the figure it looked at, the threshold, the verdict, and what to do."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from catalog.evidence.records import Verdict

_ORDER: tuple[Verdict, ...] = ("VALID", "DOUBTFUL", "INVALID")


@dataclass(frozen=True)
class Finding:
    """One rule applied to one measurement.

    Attributes
    ----------
    rule : str
        Its name in docs/verdicts.md.
    where : str
        The tier, the link and its direction, or empty for the whole measurement.
    figure : float
        In `unit`.
    threshold : float
        Where the rule begins to doubt, in `unit`; NaN-free, so that it travels as JSON.
    unit : str
        `%`, `s`, `inputs`, or a plural noun for counts.
    verdict : str
    advice : str
        What to do about it if it is not valid.
    note : str
        What the figure was made of, where that helps.
    """

    rule: str
    where: str
    figure: float
    threshold: float
    unit: str
    verdict: Verdict
    advice: str = ""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """As the evidence keeps it."""
        return asdict(self)

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        limits = f"{amount(self.figure, self.unit)}, limit {amount(self.threshold, self.unit)}"
        return f"{self.rule}{place}: {limits}" + (f" ({self.note})" if self.note else "")


def amount(value: float, unit: str) -> str:
    """A figure with its unit, as people write it.

    Examples
    --------
    >>> amount(12.345, "%"), amount(0.0123, "s"), amount(3.0, "faults")
    ('12.3 %', '12 ms', '3 faults')
    """
    if unit == "s":
        return f"{1000 * value:.0f} ms" if abs(value) < 1 else f"{value:.1f} s"
    return f"{value:.1f} %" if unit == "%" else f"{value:g} {unit}"


def reason(findings: Iterable[Finding]) -> str | None:
    """Every broken rule, the worst first, in one line; None where there is none."""
    broken = [finding for finding in findings if finding.verdict != "VALID"]
    broken.sort(key=lambda finding: -_ORDER.index(finding.verdict))
    return "; ".join(map(str, broken)) or None


def worst(findings: Iterable[Finding]) -> Verdict:
    """The verdict of all findings together; VALID where there is none.

    Examples
    --------
    >>> worst([])
    'VALID'
    """
    return max((finding.verdict for finding in findings), key=_ORDER.index, default="VALID")
