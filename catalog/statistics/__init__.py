"""Pure functions over arrays: the paper's tests, and the analysis by rounds and inputs that decides."""

import importlib.util
import sys

import numpy


def _import_at_first_use(name: str) -> None:
    """Make a module of numpy's that is executed at the first use of anything in it, by Python's own loader."""
    spec = importlib.util.find_spec(f"numpy.{name}")
    if f"numpy.{name}" in sys.modules or spec is None or spec.loader is None:
        return
    loader = importlib.util.LazyLoader(spec.loader)
    spec.loader = loader
    module = sys.modules[f"numpy.{name}"] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    # As the attribute too, or numpy would import it when it is asked for it.
    setattr(numpy, name, module)


# SciPy's special functions ask numpy for everything that it has, and with it for a Fortran compiler's front end and a
# test framework: two fifths of what their import costs a command.
_import_at_first_use("f2py")
_import_at_first_use("testing")
