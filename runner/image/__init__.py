"""The tier image: Python, ONNX Runtime, `tc` and the tier server, built where a registry answers and where none does."""

from runner.image.builder import ImageBuilder, TierImage

__all__ = ["ImageBuilder", "TierImage"]
