"""The passes a catalog may name."""

import difflib
from collections.abc import Callable, Mapping

from pydantic import ValidationError

from runner.errors import OperatorError
from runner.host import Host, this_host
from runner.operators.base import Pass
from runner.operators.early_exit import EarlyExit
from runner.operators.partition import Partition
from runner.operators.static_ptq import StaticPtq

_FACTORIES: Mapping[str, Callable[[Mapping[str, object], Host], Pass]] = {
    StaticPtq.name: StaticPtq.from_options,
    EarlyExit.name: lambda options, _: EarlyExit.from_options(options),
    Partition.name: lambda options, _: Partition.from_options(options),
}


def known_passes() -> tuple[str, ...]:
    """Return the names that `operators:` of a catalog may use."""
    return tuple(_FACTORIES)


def make_pass(name: str, options: Mapping[str, object], *, host: Host | None = None) -> Pass:
    """Build a pass from its declaration, for the CPU that will run the result (without `host`: this machine's).

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
        return factory(options, host or this_host())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise OperatorError(f"pass {name!r}, option {where!r}: {first['msg']}, got {first.get('input')!r}") from error
