"""From the declaration of a pass to the pass."""

from collections.abc import Iterator, Mapping

from runner.operators.base import EarlyExitOptions
from runner.operators.early_exit import EarlyExit
from runner.operators.registry import known_passes, make_pass


class CountedMapping(Mapping[str, object]):
    """Options that count how often they are read."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self.values_, self.reads = values, 0

    def __getitem__(self, name: str) -> object:
        return self.values_[name]

    def __iter__(self) -> Iterator[str]:
        self.reads += 1
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


def test_options_are_checked_once() -> None:
    read = {name: CountedMapping({}) for name in known_passes()}
    for name, options in read.items():
        make_pass(name, options)
    assert {name: options.reads for name, options in read.items()} == dict.fromkeys(read, 1)


def test_a_pass_has_the_options_that_were_checked() -> None:
    assert make_pass("early_exit", {"blocks": 3}) == EarlyExit(EarlyExitOptions(blocks=3))
