"""What each tier spent on a strategy, and how its rounds were judged: sums that SQL makes, per latency key."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import text
from sqlmodel import Session

from catalog.evidence.tables import MEASUREMENT_COUNTS

# CPU of the window between warm-up and last sample, over the rounds that recorded it and their inferences alone.
_USE = f"""
WITH counted AS (
    SELECT m.id, m.latency_key, (SELECT COUNT(*) FROM sample s WHERE s.measurement_id = m.id) AS inferences
    FROM measurement m WHERE {MEASUREMENT_COUNTS}
)
SELECT c.latency_key, t.tier, MAX(t.memory_peak_bytes) AS cgroup_bytes, MAX(t.peak_rss_bytes) AS resident_bytes,
       SUM(t.window_cpu_seconds) AS cpu_s,
       SUM(CASE WHEN t.window_cpu_seconds IS NULL THEN 0 ELSE c.inferences END) AS inferences
FROM counted c JOIN tier_run t ON t.measurement_id = c.id
GROUP BY c.latency_key, t.tier
"""
_VERDICTS = """
SELECT latency_key, verdict, COUNT(*) FROM measurement WHERE status = 'complete' GROUP BY latency_key, verdict
"""


@dataclass(frozen=True)
class TierUse:
    """A tier's share in a strategy, over the rounds that count.

    Attributes
    ----------
    memory_bytes : int or None
        The largest peak of any round: the cgroup's or the process's, whichever is larger. None where neither was
        recorded.
    cpu_s : float or None
        CPU seconds per inference, after warm-up.
    """

    memory_bytes: int | None
    cpu_s: float | None


def tier_use(session: Session) -> Mapping[str, Mapping[str, TierUse]]:
    """Load what every tier of every strategy used.

    Parameters
    ----------
    session : Session

    Returns
    -------
    mapping of latency key to mapping of tier name to TierUse
        Tiers that only relay are there too.
    """
    found: dict[str, dict[str, TierUse]] = defaultdict(dict)
    for key, tier, cgroup_bytes, resident_bytes, cpu_s, inferences in session.execute(text(_USE)):
        peaks = [int(each) for each in (cgroup_bytes, resident_bytes) if each is not None]
        spent = float(cpu_s) / int(inferences) if cpu_s is not None and inferences else None
        found[key][tier] = TierUse(max(peaks, default=None), spent)
    return found


def verdict_counts(session: Session) -> Mapping[str, Mapping[str, int]]:
    """How many completed rounds of each latency key are VALID, DOUBTFUL and INVALID; those repeated later included."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for key, verdict, count in session.execute(text(_VERDICTS)):
        found[key][verdict] = count
    return found
