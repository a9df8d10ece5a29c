"""Verbs of the command line beyond those of a catalog's filling."""
