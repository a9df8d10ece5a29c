"""Content keys: evidence belongs to the SHA-256 of everything that determines it.

Three things are determined by different things, hence three keys. Change one link and only the latencies of the
strategies whose route has that link get another key. Rounds are in no key: more rounds add to the same evidence.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

from catalog.errors import ContentKeyError


def content_key(mapping: Mapping[str, object]) -> str:
    """Hash a mapping by content.

    Parameters
    ----------
    mapping : mapping
        Text keys; values of JSON's kinds (tuples count as lists). The order of keys does not matter, that of lists
        does. Floats with a whole value equal the integer: `1.0` and `1` give one key, as they do in YAML.

    Returns
    -------
    str
        SHA-256 of the canonical JSON, 64 hexadecimal digits.

    Raises
    ------
    ContentKeyError
        For NaN, infinity, keys that are not text, and values that JSON does not know.

    Examples
    --------
    >>> content_key({"b": 1.0, "a": (True, None)}) == content_key({"a": [True, None], "b": 1})
    True
    """
    # File names that are no UTF-8 come as lone surrogates, which strict UTF-8 refuses.
    return hashlib.sha256(canonical_json(mapping).encode("utf-8", "surrogatepass")).hexdigest()


def canonical_json(value: object) -> str:
    """Return the text that a content key is the hash of; raises as `content_key` does."""
    # Every stored key depends on these bytes: another spelling would make all evidence look missing.
    return json.dumps(_canonical_other(value, "$"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


# By exact type: a subclass may be written otherwise.
_UNCHANGED = frozenset({type(None), bool, str, int})


def _canonical(value: object, parent: str, place: str | int) -> object:
    """Return what a mapping or a sequence holds at a place as its key has it."""
    kind = type(value)
    if kind in _UNCHANGED:
        return value
    if kind is float and isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() else value
    # The path is put together here: most values are plain and never need theirs.
    return _canonical_other(value, f"{parent}[{place}]" if isinstance(place, int) else f"{parent}.{place}")


def _canonical_other(value: object, where: str) -> object:
    # Before numbers, because a bool is an int and `true` must not share a key with 1.
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ContentKeyError(f"{where} is {value!r}; a content key takes finite numbers only")
        return int(value) if value.is_integer() else float(value)
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise ContentKeyError(f"{where} has the key {wrong[0]!r}; a content key takes text as keys only")
        return {key: _canonical(item, where, key) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [
            item if type(item) in _UNCHANGED else _canonical(item, where, index) for index, item in enumerate(value)
        ]
    raise ContentKeyError(f"{where} is a {type(value).__name__}; a content key takes JSON values only")


def artifact_key(
    *, model_sha256: str, passes: object, pass_versions: object, calibration_fingerprint: str | None, tools: object
) -> str:
    """Return the key of what an operator makes of a model.

    Parameters
    ----------
    model_sha256 : str
        Of the model's bytes.
    passes : sequence
        `{"name": ..., "options": {...}}` in order.
    pass_versions : mapping
        Version of each pass's implementation.
    calibration_fingerprint : str or None
        Of the calibration data, None where no pass uses any.
    tools : mapping
        Versions of the libraries that rewrite the model.

    Returns
    -------
    str
    """
    return content_key(
        {
            # `kind` keeps the three keys apart, whatever their other fields are.
            "kind": "artifact",
            "model_sha256": model_sha256,
            "passes": passes,
            "pass_versions": pass_versions,
            "calibration_fingerprint": calibration_fingerprint,
            "tools": tools,
        }
    )


def accuracy_key(
    *,
    artifact_key: str,
    dataset_fingerprint: str,
    preprocess: object,
    postprocess: object,
    provider: object,
    runtime: object,
    cpu_model: str,
) -> str:
    """Return the key of an accuracy: the artifact, the validation data, and what may change its arithmetic.

    Parameters
    ----------
    artifact_key, dataset_fingerprint, cpu_model : str
    preprocess, postprocess : JSON values
    provider : str or sequence of str
        The resolved execution provider(s).
    runtime : str or mapping
        Version(s) of the inference runtime.

    Returns
    -------
    str
    """
    # `locals()` are the arguments alone: a variable set before this line would enter the key.
    return content_key({"kind": "accuracy", **locals()})


def latency_key(
    *,
    artifact_key: str,
    inputs_fingerprint: str,
    input_ids: object,
    preprocess: object,
    postprocess: object,
    placement: object,
    tiers: object,
    links: object,
    warmup: object,
    repetitions: object,
    protocol_version: object,
    launcher: object,
    scale: object,
    runtime: object,
    host: object,
    codec: str = "raw",
) -> str:
    """Return the key of a latency: everything along the route of one strategy, and nothing off it.

    Parameters
    ----------
    artifact_key, inputs_fingerprint : str
    input_ids : sequence of str, or mapping
        In the order they are sent; where every round draws its own from the pool, the rule of the draw.
    preprocess, postprocess : JSON values
    placement : sequence of str
        Tiers that run the parts.
    tiers, links : sequence of mappings
        Resolved limits along the route, relays included, at the scale of the run.
    warmup : int or str
    repetitions, protocol_version : int
    launcher, scale : str
    runtime, host : JSON values
    codec : str
        How tensors travel; `raw` leaves no trace in the key.

    Returns
    -------
    str
    """
    # First, for the same reason as in `accuracy_key`.
    determining = locals()
    if codec == "raw":  # keys from before there was a choice stay what they are
        del determining["codec"]
    return content_key({"kind": "latency", **determining})
