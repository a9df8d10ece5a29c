"""The environment that a report shows and an answer rests on where the user names none: one rule for both."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

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
