"""The files that a catalog names: which model is a file, and where a path leads."""

import os
from pathlib import Path

_SCHEMES = ("builtin:", "torchvision:", "study:")
_ROOTS = ("./", "../", "/", "~/")


def is_own_model(model: str, base: Path) -> bool:
    """Return whether a declared model is a file of the user's, and not the name of a known one.

    A file that is not there must at least look like one. `base` is where relative paths start.

    Examples
    --------
    >>> models = ("a:b.onnx", "./builtin:x.onnx", "./my.pt", "study:duc@./DUC-7.onnx", "builtin:fcn")
    >>> [is_own_model(model, Path("/nowhere")) for model in models]
    [True, True, False, False, False]
    """
    rooted = model.startswith(_ROOTS)
    if model.lower().endswith(".onnx"):
        return rooted or not model.startswith(_SCHEMES)
    return rooted and user_path(base, model).is_file()


def user_path(base: Path, text: str) -> Path:
    """Return where a path in a catalog leads; `base` is where relative ones start, and `~/` the user's home.

    Examples
    --------
    >>> user_path(Path("/data"), "~.onnx")
    PosixPath('/data/~.onnx')
    """
    # Of a text and not of a Path: that would take `./~` for the home, and raise for a user who does not exist.
    return base / os.path.expanduser(text)  # noqa: PTH111
