"""The embedded subjects: their registry, datasets and images."""
