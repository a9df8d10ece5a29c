"""What a library's error says in one line that a user can read."""

import re

_PREFIX = re.compile(
    r"^(?:\[ONNXRuntimeError\] : \d+ : \w+ : )?(?:Load model from \S+ failed:)?"
    r"(?:/\S+\.(?:cc|h):\d+: \w+: Assertion `[^`]*` failed: )?\s*"
)


def brief(error: Exception) -> str:
    """Return the first line of an error's message, without the engine's prefix and without paths of our own files.

    Examples
    --------
    >>> brief(RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Load model from /tmp/model.onnx failed:Type Error\\nmore"))
    'Type Error'
    >>> brief(KeyError())
    'KeyError'
    """
    lines = str(error).strip().splitlines()
    text = _PREFIX.sub("", lines[0]) if lines else ""
    return text or type(error).__name__
