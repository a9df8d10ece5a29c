"""Subjects: the embedded networks with their data and scores, the study's architectures, datasets in folders."""
