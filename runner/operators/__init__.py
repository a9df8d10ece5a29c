"""Operators: pipelines of passes that turn a model into the artifact a strategy runs."""

from runner.operators.base import Context, Pass, Refusal
from runner.operators.registry import known_passes, make_pass
from runner.operators.static_ptq import StaticPtq

__all__ = ["Context", "Pass", "Refusal", "StaticPtq", "known_passes", "make_pass"]
