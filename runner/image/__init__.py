"""The tier image: Python, ONNX Runtime, `tc` and the tier server, with a registry or without."""

from runner.image.builder import ImageBuilder, TierImage

__all__ = ["ImageBuilder", "TierImage"]
