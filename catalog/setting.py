"""A setting: the single values at which something was measured of what a catalog lists several values of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catalog.units import rate, size


@dataclass(frozen=True)
class Setting:
    """Single values of what is swept, by a name such as `bandwidth of edge-cloud`."""

    values: Mapping[str, float]

    def __str__(self) -> str:
        """Return the setting in words, as answers and reports print it."""
        return ", ".join(f"{name} {_in_words(name, value)}" for name, value in self.values.items())


def setting_of(details: Mapping[str, Any]) -> Setting | None:
    """Return the setting that the details of an environment hold; another program may have changed them."""
    values = details.get("setting")
    if not isinstance(values, Mapping) or not values:
        return None
    sound = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values())
    return Setting(dict(values)) if sound else None


def _in_words(name: str, value: float) -> str:
    if name.startswith("bandwidth"):
        return rate(value)
    return size(value) if name.startswith("memory") else f"{value:g}"
