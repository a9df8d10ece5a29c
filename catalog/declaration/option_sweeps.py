"""Operators declared at several values of a pass option: `early_exit: {blocks: [1, 2, 3]}` is three operators.

Each variant is an operator of its own, `early_exit-blocks-1` and so on, wherever the declared one is placed. Its passes
hold a single value, so that its content keys are those of an operator that was declared by hand.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from pydantic import JsonValue

from catalog.declaration.schema import CatalogFile, PassSpec

# Far beyond what anyone measures: every variant is measured on every placement.
_MOST_VARIANTS = 100
# The options that take one value each, so that a list can only mean a sweep.
SWEPT: Mapping[str, str] = {"early_exit": "blocks", "partition": "cut"}


def with_variants(declared: CatalogFile) -> CatalogFile:
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


def sweep_problems(declared: CatalogFile) -> Iterator[tuple[str, str]]:
    """Yield the operator and a message for every sweep that cannot be expanded."""
    seen: dict[str, str] = {}
    for name, passes in declared.operators.items():
        sweeps = list(_sweeps(passes))
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


def _sweeps(passes: Sequence[PassSpec]) -> Iterator[tuple[str, str, list[JsonValue]]]:
    for step in passes:
        option = SWEPT.get(step.name)
        values = None if option is None else step.options.get(option)
        if option is not None and isinstance(values, list):
            yield step.name, option, values


def _variants(name: str, passes: Sequence[PassSpec]) -> Iterator[tuple[str, tuple[PassSpec, ...]]]:
    """Yield the variants of an operator by name, or the operator itself."""
    sweeps = list(_sweeps(passes))
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
