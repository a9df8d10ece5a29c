"""One true question with its answer, for the OpenAPI document and docs/recommend.md.

`tests/recommender/test_example.py` keeps both true: the answer is what the evidence in docs/ gives.
"""

import json
from importlib.resources import files
from typing import Any

QUESTION = {
    "subject": "fashion-resnet",
    "max_latency_s": 0.02,
    "max_accuracy_drop_pp": 1.0,
    "forbid_tiers": ["cloud"],
}


def answer() -> dict[str, Any]:
    """Return the answer to `QUESTION` as JSON."""
    document: dict[str, Any] = json.loads((files(__package__) / "answer.json").read_text(encoding="utf-8"))
    return document
