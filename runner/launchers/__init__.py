"""Launchers: isolated tiers with limited resources, behind one interface."""

from runner.launchers.base import (
    Deployment,
    EngineDescription,
    Launcher,
    LinkLimits,
    Mount,
    Tier,
    TierLimits,
)
from runner.launchers.select import Selection, select_launcher

__all__ = [
    "Deployment",
    "EngineDescription",
    "Launcher",
    "LinkLimits",
    "Mount",
    "Selection",
    "Tier",
    "TierLimits",
    "select_launcher",
]
