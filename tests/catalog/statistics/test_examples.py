"""The examples in the docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import catalog.statistics

MODULES = [module.name for module in pkgutil.iter_modules(catalog.statistics.__path__, "catalog.statistics.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
