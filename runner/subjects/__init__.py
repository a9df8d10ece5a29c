"""The embedded subjects: two small networks, their data and what they score."""

from runner.subjects.dataset import Dataset, Subject
from runner.subjects.registry import resolve_subject

__all__ = ["Dataset", "Subject", "resolve_subject"]
