"""A question resolved against the evidence, and its ranked answer put into fields and words."""
