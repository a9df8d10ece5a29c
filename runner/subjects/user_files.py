"""The files that a catalog names: which model is a file, and where a path leads."""

import os
from pathlib import Path

_SCHEMES = ("builtin:", "torchvision:", "study:")
_ROOTS = ("./", "../", "/", "~/")


def is_own_model(model: str) -> bool:
    """Return whether a declared model is a file of the user's, and not the name of a known one.

    Examples
    --------
    >>> [is_own_model(model) for model in ("a:b.onnx", "./builtin:x", "study:duc@./DUC-7.onnx", "builtin:fcn")]
    [True, True, False, False]
    """
    return model.startswith(_ROOTS) or (model.lower().endswith(".onnx") and not model.startswith(_SCHEMES))


def user_path(base: Path, text: str) -> Path:
    """Return where a path in a catalog leads; `base` is where relative ones start, and `~/` the user's home.

    Examples
    --------
    >>> user_path(Path("/data"), "~.onnx")
    PosixPath('/data/~.onnx')
    """
    # Of a text and not of a Path: that would take `./~` for the home, and raise for a user who does not exist.
    return base / os.path.expanduser(text)  # noqa: PTH111
