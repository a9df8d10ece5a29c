"""The inference server inside every tier: it ships alone, so it imports no other package of the project."""

from __future__ import annotations

__all__: list[str] = []
