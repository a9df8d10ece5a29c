"""Operators: pipelines of passes that turn a model into the artifact a strategy runs."""

from runner.operators.base import AppliedPass, Context, Pass, PassRefusal
from runner.operators.early_exit import EarlyExit, choose_exit
from runner.operators.partition import Partition, choose_cut
from runner.operators.registry import known_passes, make_pass
from runner.operators.static_ptq import StaticPtq

__all__ = [
    "AppliedPass",
    "Context",
    "EarlyExit",
    "Partition",
    "Pass",
    "PassRefusal",
    "StaticPtq",
    "choose_cut",
    "choose_exit",
    "known_passes",
    "make_pass",
]
