"""Several values where a catalog usually has one: pass options, links and tiers.

`early_exit: {blocks: [1, 2, 3]}` is three operators, `early_exit-blocks-1` and so on, wherever the declared one is
placed. The passes of each hold a single value, so that its content keys are those of an operator that was declared by
hand.

`bandwidth: [1mbit, 10mbit]`, `cpus: [1, 2]` and `memory: [1g, 2g]` are settings, one for each combination of values. A
setting is a catalog with single values, and an environment of its own; a strategy that no swept link or tier touches
has the same content keys in all of them, so that it is measured once.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, JsonValue, PrivateAttr, ValidatorFunctionWrapHandler, model_validator

from catalog.units import Setting

if TYPE_CHECKING:
    from catalog.declaration.schema import CatalogFile, PassSpec

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


# Far beyond what anyone measures: every variant is measured on every placement.
_MOST_VARIANTS = 100
# The options that take one value each, so that a list can only mean a sweep.
SWEPT: Mapping[str, str] = {"early_exit": "blocks", "partition": "cut"}


def with_variants(declared: "CatalogFile") -> "CatalogFile":
    """Replace every operator with a list of option values by its variants.

    Parameters
    ----------
    declared : CatalogFile
        Checked (`sweep_problems`).

    Returns
    -------
    CatalogFile
        The same object where nothing is swept.
    """
    variants = {name: dict(_variants(name, passes)) for name, passes in declared.operators.items()}
    if all(list(operators) == [name] for name, operators in variants.items()):
        return declared
    strategies = tuple(
        entry.model_copy(update={"operators": tuple(name for one in entry.operators for name in variants[one])})
        for entry in declared.strategies
    )
    operators = {name: passes for by_name in variants.values() for name, passes in by_name.items()}
    return declared.model_copy(update={"operators": operators, "strategies": strategies})


def sweep_problems(declared: "CatalogFile") -> Iterator[tuple[str, str]]:
    """Yield the operator and a message for every sweep that cannot be expanded."""
    seen: dict[str, str] = {}
    for name, passes in declared.operators.items():
        sweeps = list(_swept_options(passes))
        # Before any variant is made, because a few long lists would make millions.
        if math.prod(len(values) for _, _, values in sweeps) > _MOST_VARIANTS:
            yield name, f"operator {name!r} has more than {_MOST_VARIANTS} variants; list fewer values"
            return
        if len({step for step, _, _ in sweeps}) < len(sweeps):
            yield name, f"operator {name!r} lists values in two passes of one name; list them in one"
            return
        for step, option, values in sweeps:
            if not values or len({str(value) for value in values}) < len(values):
                stated = ", ".join(map(str, values)) or "none"
                yield name, f"operator {name!r}: {option} of {step} lists {stated}; list one or more different values"
                return
        for variant, _ in _variants(name, passes):
            if variant in seen or (variant != name and variant in declared.operators):
                yield name, f"operator {name!r}: its variant {variant!r} is declared as well; rename one of the two"
            if len(variant) > 63:
                yield name, f"operator {name!r}: its variant {variant!r} is longer than 63 characters; shorten the name"
            seen[variant] = name


def _swept_options(passes: Sequence["PassSpec"]) -> Iterator[tuple[str, str, list[JsonValue]]]:
    for step in passes:
        option = SWEPT.get(step.name)
        values = None if option is None else step.options.get(option)
        if option is not None and isinstance(values, list):
            yield step.name, option, values


def _variants(name: str, passes: Sequence["PassSpec"]) -> Iterator[tuple[str, tuple["PassSpec", ...]]]:
    """Yield the variants of an operator by name, or the operator itself."""
    sweeps = list(_swept_options(passes))
    for values in product(*(listed for _, _, listed in sweeps)):
        chosen = {step: (option, value) for (step, option, _), value in zip(sweeps, values, strict=True)}
        suffix = "".join(f"-{option}-{value}" for option, value in chosen.values())
        yield (
            f"{name}{suffix}",
            tuple(
                step.model_copy(update={"options": {**step.options, chosen[step.name][0]: chosen[step.name][1]}})
                if step.name in chosen
                else step
                for step in passes
            ),
        )
