"""Artifacts: what an operator makes of a model, verified, and kept under its content key."""
