"""What a rule says: the figure, the threshold, the verdict, what to do, and which other processes were busy."""

from collections.abc import Iterable, Mapping, Sequence
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
        """Return the finding as the evidence keeps it."""
        return asdict(self)

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        # What a unit adds in words (`inferences, the last ones still falling`) is said of the figure alone.
        limits = f"{amount(self.figure, self.unit)}, limit {amount(self.threshold, self.unit.partition(',')[0])}"
        return f"{self.rule}{place}: {limits}" + (f" ({self.note})" if self.note else "")


def amount(value: float, unit: str) -> str:
    """Format a figure with its unit, as people write it.

    Examples
    --------
    >>> amount(12.345, "%"), amount(0.0123, "s"), amount(3.0, "faults")
    ('12.3 %', '12 ms', '3 faults')
    """
    # Not `catalog.units`: the text is stored with the verdict, and another format would make old verdicts look changed.
    if unit == "s":
        return f"{1000 * value:.0f} ms" if abs(value) < 1 else f"{value:.1f} s"
    return f"{value:.1f} %" if unit == "%" else f"{value:g} {unit}"


def reason(findings: Iterable[Finding]) -> str | None:
    """Return every broken rule, the worst first, in one line; None where there is none."""
    broken = [finding for finding in findings if finding.verdict != "VALID"]
    broken.sort(key=lambda finding: -_ORDER.index(finding.verdict))
    return "; ".join(map(str, broken)) or None


def worst(findings: Iterable[Finding]) -> Verdict:
    """Return the verdict of all findings together; VALID where there is none.

    Examples
    --------
    >>> worst([])
    'VALID'
    """
    return max((finding.verdict for finding in findings), key=_ORDER.index, default="VALID")


@dataclass(frozen=True)
class Thresholds:
    """Where a rule begins to doubt, and where it rejects. Shares are percentages of what the comment says."""

    # A wall clock that moves against the monotonic one was set, or the machine slept. Slewing by NTP moves it by at
    # most 0.05 % of the time that passes.
    clock_jump_s: float = 0.1
    clock_slew_pct: float = 0.1

    # How far a real link's rate moves from before the samples to after, if the looks of the two moments do not overlap.
    # The time on the wire moves as much, and where half of a latency is spent there, the latency by half of it.
    link_drift_pct: float = 20.0

    # Of the measured window, beyond what the declared quota makes of the CPU time used: the quota in force is another.
    throttled_doubtful_pct: float = 10.0
    throttled_invalid_pct: float = 30.0

    # Of the window that a client without a part of its own is throttled: its work is little, so the clock that is read
    # there reads late. Doubtful at most: a slow device may have been declared on purpose.
    client_throttled_pct: float = 20.0

    # How long a tier's threads waited for a CPU while their quota allowed one, of the CPU time they used in the window.
    # Waiting that is little of the window disturbs nothing, however little CPU was used. Like the two below doubtful at
    # most: on a host that is always busy a fill could otherwise never finish.
    waited_pct: float = 100.0
    waited_least_pct: float = 10.0

    # Of all CPUs of the host, used by others during the window.
    others_pct: float = 40.0

    # Of all CPUs of the host, taken by the hypervisor.
    steal_pct: float = 2.0

    # Major page faults per 100 inferences: each is a read from disk inside a latency.
    faults_doubtful_pct: float = 20.0
    faults_invalid_pct: float = 100.0

    # A sample is an outlier when the same input in another pass (or inputs of its size, where each was sent once) took
    # less than half as long, and at least two periods of the CPU controller less, which throttling alone can add. Of
    # all samples of the measurement.
    outlier_factor: float = 2.0
    outlier_s: float = 0.02
    outliers_pct: float = 10.0

    # How much slower the last third of the warm-up was than the same inputs afterwards (median over inputs), if a sign
    # test says that this is no chance. After a warm-up of one input until steady the first third of the samples is
    # compared with later ones of their size.
    warmup_pct: float = 20.0
    warmup_pvalue: float = 0.01
    warmup_pairs: int = 8
    # A warm-up until steady gives up after so many inferences (or 150 ms, if these are more). It was too short where
    # the latency of its repeated input fell so that chance would do it in less than this share.
    warmup_inferences: int = 10
    falling_pvalue: float = 0.05

    # How far a round is from the median of all, median over inputs. Only ever doubtful: to reject a round because it
    # differs would make the rounds look more alike than they are.
    drift_pct: float = 20.0


DEFAULTS = Thresholds()


def strangers(host_load: Mapping[str, Any] | None) -> str:
    """Return which processes were busy meanwhile.

    Parameters
    ----------
    host_load : mapping or None
        As a measurement stores it.

    Returns
    -------
    str
        Empty where that is not known.

    Examples
    --------
    >>> strangers({"others": [{"name": "make", "pid": 7, "cpus": 0.5}, {"name": "cc", "pid": 9, "cpus": 0.25}]})
    'make 7: 0.50 CPUs, cc 9: 0.25 CPUs'
    >>> strangers({"others": [{"cpus": 0.5}, {"cpus": 0.25}]})
    '2 other processes: 0.75 CPUs'
    """
    others = _others(host_load)
    if all("name" in other for other in others):
        return ", ".join(f"{other['name']} {other.get('pid', '?')}: {other['cpus']:.2f} CPUs" for other in others)
    processes = "1 other process" if len(others) == 1 else f"{len(others)} other processes"
    return f"{processes}: {sum(other['cpus'] for other in others):.2f} CPUs"


def without_names(host_load: Mapping[str, Any]) -> dict[str, Any]:
    """Return a host's load without the names of its processes; what they took stays.

    Examples
    --------
    >>> without_names({"cpus": 2, "others": [{"name": "make", "pid": 7, "cpus": 0.5}]})
    {'cpus': 2, 'others': [{'cpus': 0.5}]}
    """
    if "others" not in host_load:
        return dict(host_load)
    return {**host_load, "others": [{"cpus": other["cpus"]} for other in _others(host_load)]}


def without_names_in(text: str, host_load: Mapping[str, Any] | None) -> str:
    """Return a reason or a note that names processes, with their number instead.

    Examples
    --------
    >>> load = {"others": [{"name": "make", "pid": 7, "cpus": 0.5}]}
    >>> without_names_in(f"host load: 25.0 % ({strangers(load)})", load)
    'host load: 25.0 % (1 other process: 0.50 CPUs)'
    """
    named = strangers(host_load)
    # The text was made by `strangers` from the same load, so its words occur literally.
    return text.replace(named, strangers(without_names(host_load))) if host_load and named else text


def _others(host_load: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    """Return what has the form that the runner writes; evidence from elsewhere may hold anything here."""
    others = (host_load or {}).get("others")
    entries = others if isinstance(others, list) else []
    return [entry for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("cpus"), int | float)]
