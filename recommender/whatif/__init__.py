"""Latency on links other than the measured ones: a model on the measured parts, pure functions over arrays.

What a tier computes does not depend on the link, and what a link carries does not depend on its rate. So only the time
on the wire is exchanged, sample by sample: out goes what the bytes took at the probed rate, in comes what they would
take at the asked one. Everything else, the waiting included, stays as it was measured.
"""

from catalog.evidence.link_samples import LinkedSamples, LinkedStrategy, LinkRate
from recommender.whatif.model import (
    Prediction,
    UnpredictableStrategy,
    WhatIf,
    burst_bytes,
    estimate_s,
    grain_bytes,
    predict,
    refusal,
    what_if,
    wire_s,
)

__all__ = [
    "LinkRate",
    "LinkedSamples",
    "LinkedStrategy",
    "Prediction",
    "UnpredictableStrategy",
    "WhatIf",
    "burst_bytes",
    "estimate_s",
    "grain_bytes",
    "predict",
    "refusal",
    "what_if",
    "wire_s",
]
