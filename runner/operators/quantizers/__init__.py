"""Tools that quantize one model file: what they share, and one module per tool."""

from runner.operators.quantizers.preparation import Feeds
from runner.operators.quantizers.settings import Settings

__all__ = ["Feeds", "Settings"]
