"""Tools that quantize one model file: what they share, and one module per tool."""

from runner.operators.quantizers.preparation import Feeds

__all__ = ["Feeds"]
