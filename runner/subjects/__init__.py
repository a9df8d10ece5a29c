"""Subjects: the embedded networks with their data and scores, the study's architectures, datasets in folders."""

from runner.subjects.dataset import Dataset, Metric, Subject
from runner.subjects.declared import resolve_declared
from runner.subjects.embedded.registry import resolve_subject

__all__ = ["Dataset", "Metric", "Subject", "resolve_declared", "resolve_subject"]
