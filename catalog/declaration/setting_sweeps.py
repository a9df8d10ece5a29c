"""Links and tiers declared at several values: `bandwidth: [1mbit, 10mbit]`, `cpus: [1, 2]`, `memory: [1g, 2g]`.

Each combination of the values is a setting. A setting is a catalog with single values, and an environment of its own; a
strategy that no swept link or tier touches has the same content keys in all of them, so that it is measured once.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, PrivateAttr, ValidatorFunctionWrapHandler, model_validator

from catalog.setting import Setting

if TYPE_CHECKING:
    from catalog.declaration.schema import CatalogFile

# Far beyond what anyone measures: every setting is a fill of its own.
MOST_SETTINGS = 50


class Sweepable(BaseModel):
    """A part of the declaration whose fields may list values; the model itself has the first of each.

    `SWEPT` names them as the file does, with the attribute of each. `sweeps` has all values by attribute.
    """

    SWEPT: ClassVar[Mapping[str, str]] = {}
    _sweeps: Mapping[str, Sequence[Any]] = PrivateAttr(default_factory=dict)

    @property
    def sweeps(self) -> Mapping[str, Sequence[Any]]:
        """The listed values by attribute; empty where each field has one."""
        return self._sweeps

    @model_validator(mode="wrap")
    @classmethod
    def _at_first_values(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Self:
        stated = value if isinstance(value, dict) else {}
        listed = {name: stated[name] for name in cls.SWEPT if isinstance(stated.get(name), list)}
        for name, values in listed.items():
            if not values or len(values) > MOST_SETTINGS:
                raise ValueError(f"{name} lists {len(values)} values; list 1 to {MOST_SETTINGS}")
        # Single values first, so that what is wrong beside the lists is said once.
        first = {**value, **{name: values[0] for name, values in listed.items()}} if listed else value
        spec: Self = handler(first)
        if listed:
            spec._sweeps = {
                cls.SWEPT[name]: [getattr(handler({**first, name: single}), cls.SWEPT[name]) for single in values]
                for name, values in listed.items()
            }
            for attribute, numbers in spec._sweeps.items():
                if len(set(numbers)) < len(numbers):
                    raise ValueError(f"{attribute.removesuffix('_bytes')} lists a value twice; list different values")
        return spec


def or_list(schema: dict[str, Any]) -> None:
    """Change the JSON schema of a field to one that takes a list of its values, too."""
    kept = {key: value for key, value in schema.items() if key in ("title", "default", "description")}
    single = {key: value for key, value in schema.items() if key not in kept}
    members = single.get("anyOf", [single])
    schema.clear()
    # The first member: another one stands for a value that is left out.
    schema.update(kept | {"anyOf": [*members, {"type": "array", "items": members[0], "minItems": 1}]})


_NAMES: Mapping[str, str] = {"bandwidth": "bandwidth", "cpus": "CPUs", "memory_bytes": "memory"}


@dataclass(frozen=True)
class _Sweep:
    """The values of one attribute of a link or a tier."""

    section: str
    owner: str
    attribute: str
    values: Sequence[Any]

    @property
    def name(self) -> str:
        return f"{_NAMES[self.attribute]} of {self.owner}"


def _sweeps(declared: "CatalogFile") -> list[_Sweep]:
    sections: Mapping[str, Mapping[str, Sweepable]] = {"tiers": declared.tiers, "links": declared.links}
    return [
        _Sweep(section, owner, attribute, values)
        for section, specs in sections.items()
        for owner, spec in specs.items()
        for attribute, values in spec.sweeps.items()
    ]


def setting_problems(declared: "CatalogFile", used: Mapping[str, set[str]]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the path and a message for sweeps that are too many, and those that no strategy is touched by.

    `used` has the names of the tiers and links that routes of the strategies lead through.
    """
    sweeps = _sweeps(declared)
    count = math.prod(len(sweep.values) for sweep in sweeps)
    if count > MOST_SETTINGS:
        listed = " x ".join(f"{len(sweep.values)} ({sweep.name})" for sweep in sweeps)
        yield (sweeps[0].section, sweeps[0].owner), f"{listed} are {count} settings; allowed are {MOST_SETTINGS}"
    for sweep in sweeps:
        if sweep.owner not in used[sweep.section] and len(sweep.values) > 1:
            message = f"no strategy passes {sweep.owner}, so that all settings would be the same; list one value"
            yield (sweep.section, sweep.owner), message


def at_settings(declared: "CatalogFile") -> Iterator[tuple[Setting | None, "CatalogFile"]]:
    """Yield each setting with the declaration at its values; without sweeps, no setting and the file itself."""
    sweeps = _sweeps(declared)
    if not sweeps:
        yield None, declared
        return
    for values in product(*(sweep.values for sweep in sweeps)):
        changed: dict[str, dict[str, Sweepable]] = {"tiers": dict(declared.tiers), "links": dict(declared.links)}
        for sweep, value in zip(sweeps, values, strict=True):
            spec = changed[sweep.section][sweep.owner]
            changed[sweep.section][sweep.owner] = spec.model_copy(update={sweep.attribute: value})
        setting = Setting({sweep.name: value for sweep, value in zip(sweeps, values, strict=True)})
        yield setting, declared.model_copy(update=changed)
