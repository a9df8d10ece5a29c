"""Launchers: isolated tiers with limited resources, behind one interface."""
