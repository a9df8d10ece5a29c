"""Content keys: evidence belongs to the SHA-256 of everything that determines it (DESIGN section 3)."""

import hashlib
import json
from collections.abc import Mapping, Sequence


def content_key(value: Mapping[str, object]) -> str:
    """SHA-256 of a mapping's canonical JSON.

    Parameters
    ----------
    value
        JSON-like content; the order of its keys does not matter.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    ValueError
        For NaN and infinities, which JSON cannot carry.

    Examples
    --------
    >>> content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def artifact_key(
    *,
    model_sha256: str,
    passes: Sequence[Mapping[str, object]],
    pass_versions: Mapping[str, int],
    calibration_fingerprint: str | None,
    tools: Mapping[str, str],
) -> str:
    """Key of an artifact: model bytes, operator pipeline and its versions, calibration data."""
    return content_key(
        {
            "kind": "artifact",
            "model_sha256": model_sha256,
            "passes": list(passes),
            "pass_versions": dict(pass_versions),
            "calibration": calibration_fingerprint,
            "tools": dict(tools),
        }
    )


def accuracy_key(
    *,
    artifact_key: str,
    dataset_fingerprint: str,
    preprocess: Mapping[str, object],
    postprocess: Mapping[str, object],
    provider: str,
    runtime: str,
    cpu_model: str,
) -> str:
    """Key of an accuracy: artifact, validation data as the tier sees it, provider, runtime, CPU type."""
    return content_key(
        {
            "kind": "accuracy",
            "artifact": artifact_key,
            "dataset": dataset_fingerprint,
            "preprocess": dict(preprocess),
            "postprocess": dict(postprocess),
            "provider": provider,
            "runtime": runtime,
            "cpu_model": cpu_model,
        }
    )


def latency_key(
    *,
    artifact_key: str,
    inputs_fingerprint: str,
    input_ids: Sequence[str],
    preprocess: Mapping[str, object],
    postprocess: Mapping[str, object],
    conditions: Mapping[str, object],
) -> str:
    """Key of a latency: artifacts, inputs, and the conditions (tiers and links of the route, protocol, host)."""
    return content_key(
        {
            "kind": "latency",
            "artifact": artifact_key,
            "inputs": inputs_fingerprint,
            "input_ids": list(input_ids),
            "preprocess": dict(preprocess),
            "postprocess": dict(postprocess),
            "conditions": dict(conditions),
        }
    )
