"""The passes a catalog may name."""

import difflib
from collections.abc import Callable, Mapping

from pydantic import ValidationError

from runner.errors import OperatorError
from runner.operators.base import Pass
from runner.operators.early_exit import EarlyExit
from runner.operators.partition import Partition
from runner.operators.static_ptq import StaticPtq

_FACTORIES: Mapping[str, Callable[[Mapping[str, object]], Pass]] = {
    StaticPtq.name: StaticPtq.from_options,
    EarlyExit.name: EarlyExit.from_options,
    Partition.name: Partition.from_options,
}


def known_passes() -> tuple[str, ...]:
    """Names that `operators:` of a catalog may use."""
    return tuple(_FACTORIES)


def make_pass(name: str, options: Mapping[str, object]) -> Pass:
    """Build a pass from its declaration.

    Raises
    ------
    OperatorError
        When the pass or one of its options is unknown, with what is allowed.
    """
    factory = _FACTORIES.get(name)
    if factory is None:
        near = difflib.get_close_matches(name, _FACTORIES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise OperatorError(f"unknown pass {name!r}; this version has: {', '.join(_FACTORIES)}.{hint}")
    try:
        return factory(options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise OperatorError(f"pass {name!r}, option {where!r}: {first['msg']}, got {first.get('input')!r}") from error
