"""The passes a catalog may name."""

from collections.abc import Callable, Mapping

from runner.host import Host, this_host
from runner.operators.base import Pass, check_options
from runner.operators.early_exit import EarlyExit
from runner.operators.partition import Partition
from runner.operators.static_ptq import StaticPtq

_FACTORIES: Mapping[str, Callable[[Mapping[str, object], Host], Pass]] = {
    StaticPtq.name: StaticPtq.from_options,
    # Only quantization depends on the host, whose CPU decides whether 8-bit weights saturate.
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
    check_options(name, options)
    return _FACTORIES[name](options, host or this_host())
