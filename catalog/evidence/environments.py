"""Environments: which one a report and an answer take where the user names none, and the rows of one for a report."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from catalog.evidence.strategy_evidence import StrategyEvidence


@dataclass(frozen=True)
class EnvironmentStanding:
    """What decides between environments; `finished_at` is the end of the latest round."""

    key: str
    id: int
    imported: bool
    measured: bool
    complete: bool
    finished_at: str


def environment_standing(strategies: Sequence[StrategyEvidence]) -> EnvironmentStanding:
    """Return the standing of the environment that the strategies share; `complete` is said of all of them."""
    environment = strategies[0].environment
    finished = [round_evidence.finished_at for strategy in strategies for round_evidence in strategy.rounds]
    measured = any(strategy.measured for strategy in strategies)
    return EnvironmentStanding(
        key=environment.key,
        id=environment.id,
        imported=environment.origin is not None,
        measured=measured,
        complete=measured and all(strategy.complete for strategy in strategies),
        # Stored moments are UTC in one spelling, so that text compares as time does.
        finished_at=max(finished, default=environment.created_at),
    )


def preferred_environment(
    standings: Sequence[EnvironmentStanding], keys: Collection[str] | None = None
) -> EnvironmentStanding:
    """Choose the environment to answer from.

    Parameters
    ----------
    standings : sequence of EnvironmentStanding
        At least one.
    keys : collection of str, optional
        Of all environments with evidence, where `standings` are only some of them.

    Returns
    -------
    EnvironmentStanding
        A complete environment before one with any evidence before one without; of equal ones, one that was measured
        here before an imported one, then the newest. An environment of a file that claims another one's key is chosen
        only where there is no other.

    Examples
    --------
    >>> old = EnvironmentStanding("a", 1, False, True, True, "2026-11-24T06:00:00.000+00:00")
    >>> new = EnvironmentStanding("b", 2, False, True, False, "2026-11-25T06:00:00.000+00:00")
    >>> preferred_environment([old, new]).key
    'a'
    """
    own_keys = {key.removeprefix("imported:") for key in keys or [standing.key for standing in standings]}
    first_claims = [standing for standing in standings if not claims_another(standing.key, own_keys)]
    return max(
        first_claims or standings,
        key=lambda standing: (
            standing.complete,
            standing.measured,
            not standing.imported,
            standing.finished_at,
            # Of equal moments, the one that was stored last.
            standing.id,
        ),
    )


def claims_another(key: str, keys: Collection[str]) -> bool:
    """Tell whether an environment's file claims the key of another environment, and was kept apart from it.

    Parameters
    ----------
    key : str
        As stored.
    keys : collection of str
        Of all environments in question, without the prefix of imported ones.

    Examples
    --------
    >>> claims_another("imported:ab12.3fa9c1d2e4b5", {"ab12", "ab12.3fa9c1d2e4b5"})
    True
    """
    claimed, _, suffix = key.removeprefix("imported:").rpartition(".")
    return bool(suffix) and claimed in keys


# Directions descend, so that `up` stands before `down`.
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
