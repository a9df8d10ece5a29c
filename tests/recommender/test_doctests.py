"""Every example in a docstring of the ranking and of the what-if model is true."""

import doctest
import importlib
import pkgutil

import pytest

from recommender import ranking, whatif

MODULES = [
    module.name
    for package in (ranking, whatif)
    for module in pkgutil.iter_modules(package.__path__, prefix=f"{package.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
