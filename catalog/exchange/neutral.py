"""What else ran on a machine is nobody's business elsewhere: measurements without the names of its processes.

The runner names the busiest strangers beside a measurement, for whoever sits at that machine. Exports carry only how
many they were and what they took, and so does what an import keeps, whoever wrote the file.
"""

from catalog.exchange.document import MeasurementEntry
from catalog.validity import strangers, without_names


def neutral(entry: MeasurementEntry) -> MeasurementEntry:
    """The same measurement, with a number in place of the names.

    Parameters
    ----------
    entry : MeasurementEntry

    Returns
    -------
    MeasurementEntry
        The entry itself where it names nobody. Verdict and figures stay; the findings' notes and the reason are what
        the rules would say of it.
    """
    if not entry.host_load or not entry.host_load.get("others"):
        return entry
    unnamed = without_names(entry.host_load)
    old, new = strangers(entry.host_load), strangers(unnamed)
    if old == new:
        return entry
    changes = {
        "host_load": unnamed,
        "findings": entry.findings and [_noted(each, old, new) for each in entry.findings],
        "reason": entry.reason and entry.reason.replace(old, new) if old else entry.reason,
    }
    return entry.model_copy(update=changes)


def _noted(finding: dict[str, object], old: str, new: str) -> dict[str, object]:
    return {**finding, "note": new} if finding.get("note") == old else finding
