"""Rows of one environment for a report: its links, the verdicts on its rounds, the limits of its tiers."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

_LINK_CHECKS = """
SELECT link, direction, declared_bit_per_s, AVG(measured_bit_per_s) AS mean_bit_per_s, MIN(deviation_pct) AS least_pct,
       MAX(deviation_pct) AS most_pct, MIN(tolerance_pct) AS tolerance_pct, AVG(rtt_s) AS rtt_s, COUNT(*) AS probes
FROM link_check WHERE environment = :environment AND verdict <> 'INVALID'
GROUP BY link, direction, declared_bit_per_s ORDER BY link, direction DESC
"""
_ROUND_VERDICTS = """
SELECT subject, operator, placement, round, status, verdict, reason, host_load FROM measurement
WHERE environment_id = :environment AND latency_key IN (SELECT latency_key FROM strategy WHERE declared)
ORDER BY subject, operator, placement, round, id
"""
# A tier that only relays has the provider `none`: it sets no limit to a model.
_TIER_LIMITS = """
SELECT DISTINCT t.tier, t.cpus, t.memory_bytes, t.threads, t.provider
FROM tier_run t JOIN measurement m ON m.id = t.measurement_id
WHERE m.environment_id = :environment AND m.status = 'complete' AND t.provider <> 'none' ORDER BY t.cpus, t.tier
"""


def link_checks(session: Session, environment_key: str) -> tuple[Mapping[str, Any], ...]:
    """Return per link and direction how far the probed rates were from the declared one."""
    return _rows(session, _LINK_CHECKS, environment=environment_key)


def round_verdicts(session: Session, environment_id: int) -> tuple[Mapping[str, Any], ...]:
    """Return every attempt at a declared strategy with its verdict and what else ran on the host."""
    return _rows(session, _ROUND_VERDICTS, environment=environment_id)


def tier_limits(session: Session, environment_id: int) -> tuple[Mapping[str, Any], ...]:
    """Return the limits that each computing tier had, the smallest tier first."""
    return _rows(session, _TIER_LIMITS, environment=environment_id)


def _rows(session: Session, query: str, **values: object) -> tuple[Mapping[str, Any], ...]:
    return tuple(dict(row) for row in session.execute(text(query), values).mappings())
