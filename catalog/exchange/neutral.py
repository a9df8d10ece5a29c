"""What else ran on a machine is nobody's business elsewhere: measurements without the names of its processes.

The runner names the busiest strangers beside a measurement, for whoever sits at that machine. Exports carry only how
many they were and what they took, and so does what an import keeps, whoever wrote the file.
"""

from collections.abc import Mapping
from typing import Any

from catalog.exchange.document import MeasurementEntry
from catalog.validity import without_names, without_names_in


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
    load = entry.host_load
    if not load or not load.get("others"):
        return entry
    changes = {
        "host_load": without_names(load),
        "findings": entry.findings and [_neutral_finding(each, load) for each in entry.findings],
        "reason": entry.reason and without_names_in(entry.reason, load),
    }
    return entry.model_copy(update=changes)


def _neutral_finding(finding: Mapping[str, Any], load: Mapping[str, Any]) -> dict[str, Any]:
    note = finding.get("note")
    return {**finding, "note": without_names_in(note, load)} if isinstance(note, str) else dict(finding)
