"""Twelve real models of others through all that a user does with one: see `__main__`."""
