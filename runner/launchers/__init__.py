"""Launchers: isolated tiers with limited resources, behind one interface."""

from runner.launchers.base import (
    Deployment,
    EngineDescription,
    Launcher,
    LinkLimits,
    Mount,
    RunningTier,
    TierLimits,
)
from runner.launchers.select import Selection, select_launcher

__all__ = [
    "Deployment",
    "EngineDescription",
    "Launcher",
    "LinkLimits",
    "Mount",
    "RunningTier",
    "Selection",
    "TierLimits",
    "select_launcher",
]
