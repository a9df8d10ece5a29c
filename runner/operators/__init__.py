"""Operators: pipelines of passes that turn a model into the artifact a strategy runs."""
