"""The architectures of the study behind this project, built as ONNX files (docs/paper.md)."""

from runner.study.files import DUC, EXTRA, RANDOM, TORCHVISION, StudyFile, build, has_torch

__all__ = ["DUC", "EXTRA", "RANDOM", "TORCHVISION", "StudyFile", "build", "has_torch"]
