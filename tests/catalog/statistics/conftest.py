"""What is slow to import, imported once a test takes it: every process of the suite collects every file."""

from importlib import import_module
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def scikit_posthocs() -> ModuleType:
    return import_module("scikit_posthocs")
