"""Who else was busy on the host: by name where it was measured, as a number in what leaves it."""

from collections.abc import Mapping, Sequence
from typing import Any


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
