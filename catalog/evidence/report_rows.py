"""What a report shows beside the strategies, in set-wise queries.

Where the time of an inference goes (mean durations by strategy, tier and link), how far the links were from their
declared rates, which verdicts the rounds have and which limits the tiers had.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from catalog.evidence.queries import MEASUREMENT_COUNTS, Reader, exact_mean, exact_sum, fetch, fetch_named
from catalog.evidence.strategy_evidence import StrategyEvidence


def tier_costs(reader: Reader, *, subject: str | None = None) -> Sequence[Mapping[str, Any]]:
    """Return rows of the view `tier_costs`: what each strategy costs each tier of its route."""
    where = "" if subject is None else "WHERE subject = :subject"
    query = f"SELECT * FROM tier_costs {where} ORDER BY subject, environment, operator, placement, tier"
    return _rows(reader, query, **({} if subject is None else {"subject": subject}))


# Directions descend, so that `up` stands before `down`.
_LINK_CHECKS = f"""
SELECT link, direction, declared_bit_per_s, {exact_mean("measured_bit_per_s", scale="1")} AS mean_bit_per_s,
       MIN(deviation_pct) AS least_pct, MAX(deviation_pct) AS most_pct, MIN(tolerance_pct) AS tolerance_pct,
       {exact_mean("rtt_s")} AS rtt_s, COUNT(*) AS probes,
       MIN(CASE WHEN tolerance_pct IS NULL AND moment IS NOT NULL THEN 1 ELSE 0 END) AS real
FROM link_check WHERE environment = :environment AND verdict <> 'INVALID'
GROUP BY link, direction, declared_bit_per_s ORDER BY link, direction DESC, declared_bit_per_s
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


def link_checks(reader: Reader, environment_key: str) -> tuple[Mapping[str, Any], ...]:
    """Return per link and direction how far the probed rates were from the declared one, and whether it is real."""
    return _rows(reader, _LINK_CHECKS, environment=environment_key)


def round_verdicts(reader: Reader, environment_id: int) -> tuple[Mapping[str, Any], ...]:
    """Return every attempt at a declared strategy with its verdict and what else ran on the host."""
    return _rows(reader, _ROUND_VERDICTS, environment=environment_id)


def tier_limits(reader: Reader, environment_id: int) -> tuple[Mapping[str, Any], ...]:
    """Return the limits that each computing tier had, the smallest tier first."""
    return _rows(reader, _TIER_LIMITS, environment=environment_id)


_PROTOCOLS = f"""
SELECT subject, latency_key, protocol FROM measurement
WHERE environment_id = :environment AND {MEASUREMENT_COUNTS} ORDER BY id
"""
_POOLS = f"""
SELECT DISTINCT m.subject, p.input_id, p.size FROM pool_input p JOIN input_pool i ON i.id = p.pool_id
JOIN measurement m ON m.pool_key = i.key WHERE m.environment_id = :environment AND {MEASUREMENT_COUNTS}
"""


def input_sizes(reader: Reader, environment_id: int) -> Mapping[str, Mapping[str, int]]:
    """Return the bytes of every input, as sent, by subject and input id; without subjects of which none is known."""
    sizes: dict[str, dict[str, int]] = defaultdict(dict)
    for subject, input_id, size in fetch(reader, _POOLS, environment=environment_id):
        sizes[subject][input_id] = int(size)
    for subject, _, protocol in _protocols(reader, environment_id):
        stated = protocol.get("input_bytes")
        # Evidence from elsewhere may hold anything in its protocol.
        if isinstance(stated, Mapping):
            sizes[subject].update({name: size for name, size in stated.items() if isinstance(size, int) and size > 0})
    return {subject: by_id for subject, by_id in sizes.items() if by_id}


def provider_nodes(reader: Reader, environment_id: int) -> Mapping[str, Mapping[str, Mapping[str, int]]]:
    """Return by latency key and tier how many nodes each execution provider got, of the newest round that says so."""
    return {
        key: nodes
        for _, key, protocol in _protocols(reader, environment_id)
        if (nodes := _counts_by_tier(protocol.get("provider_nodes")))
    }


def _counts_by_tier(stated: object) -> Mapping[str, Mapping[str, int]]:
    """Return counts by tier and provider, without what is no count."""
    if not isinstance(stated, Mapping):
        return {}
    return {
        tier: {name: count for name, count in counts.items() if isinstance(count, int) and count >= 0}
        for tier, counts in stated.items()
        if isinstance(counts, Mapping)
    }


def _protocols(reader: Reader, environment_id: int) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for subject, key, protocol in fetch(reader, _PROTOCOLS, environment=environment_id):
        # SQLite keeps JSON as text.
        content = json.loads(protocol) if isinstance(protocol, str) else protocol
        yield subject, key, content if isinstance(content, Mapping) else {}


def _rows(reader: Reader, query: str, **values: object) -> tuple[Mapping[str, Any], ...]:
    return tuple(fetch_named(reader, query, **values))


_COUNTING = (
    f"SELECT id, latency_key, round FROM measurement WHERE {MEASUREMENT_COUNTS} "
    "AND latency_key IN (SELECT latency_key FROM strategy WHERE declared)"
)
# Sums and counts by round, so that rounds which `evidence` leaves out can be dropped before the mean is taken.
_WHOLE = f"""
SELECT m.latency_key, m.round, COUNT(*), {exact_sum("s.latency_s")}, {exact_sum("s.transmission_s")}
FROM sample s JOIN ({_COUNTING}) m ON m.id = s.measurement_id
GROUP BY m.latency_key, m.round
ORDER BY m.latency_key, m.round
"""
_SUMS = ", ".join(exact_sum(f"p.{name}_s") for name in ("preprocess", "compute", "postprocess", "serialise"))
_PARTS = f"""
SELECT m.latency_key, m.round, p.tier, {_SUMS}
FROM sample_part p JOIN sample s ON s.id = p.sample_id JOIN ({_COUNTING}) m ON m.id = s.measurement_id
GROUP BY m.latency_key, m.round, p.tier
ORDER BY m.latency_key, m.round, p.tier
"""
_BYTES = f"""
SELECT m.latency_key, m.round, l.link, SUM(l.sent_bytes), SUM(l.received_bytes)
FROM sample_link l JOIN sample s ON s.id = l.sample_id JOIN ({_COUNTING}) m ON m.id = s.measurement_id
GROUP BY m.latency_key, m.round, l.link
ORDER BY m.latency_key, m.round, l.link
"""
# No time follows from a probe that carried nothing.
_RATES = f"""
SELECT m.latency_key, p.link, p.direction, {exact_mean("p.measured_bit_per_s", scale="1")}
FROM link_probe p JOIN ({_COUNTING}) m ON m.id = p.measurement_id WHERE p.measured_bit_per_s > 0
GROUP BY m.latency_key, p.link, p.direction
"""


@dataclass(frozen=True)
class LinkTime:
    """Mean seconds of the transmission that a link's bytes take at its probed rate, both directions."""

    link: str
    wire_s: float


@dataclass(frozen=True)
class TierTimes:
    """Mean seconds a tier spends on one inference."""

    tier: str
    preprocess_s: float
    compute_s: float
    postprocess_s: float
    serialise_s: float


@dataclass(frozen=True)
class Breakdown:
    """Mean seconds of one inference; `tiers` is in the order of the placement, empty where parts were not recorded.

    `links` splits `transmission_s` by the bytes on each link; what they leave is waiting and protocol. Together they
    never exceed it: links of one route work at the same time, and a token bucket lets a burst pass at once.
    """

    latency_s: float
    transmission_s: float
    tiers: tuple[TierTimes, ...]
    links: tuple[LinkTime, ...] = ()

    @property
    def other_transmission_s(self) -> float:
        """Transmission that no link's bytes explain."""
        return self.transmission_s - sum(link.wire_s for link in self.links)


def mean_breakdowns(reader: Reader, evidence: Sequence[StrategyEvidence]) -> Mapping[str, Breakdown]:
    """Return means over all samples of the rounds that `evidence` has, by latency key."""
    rounds = {(strategy.latency_key, row.round) for strategy in evidence for row in strategy.rounds}
    wholes: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for key, number, *sums in fetch(reader, _WHOLE):
        if (key, number) in rounds:
            wholes[key].append(tuple(sums))
    parts: dict[str, dict[str, list[tuple[float, ...]]]] = defaultdict(lambda: defaultdict(list))
    for key, number, tier, *sums in fetch(reader, _PARTS):
        if (key, number) in rounds:
            parts[key][tier].append(tuple(sums))
    wires = _wires(reader, rounds)
    order = {strategy.latency_key: strategy.tiers for strategy in evidence}
    return {key: _breakdown(rows, parts[key], order[key], wires[key]) for key, rows in wholes.items()}


def _wires(reader: Reader, rounds: Set[tuple[str, int]]) -> Mapping[str, Mapping[str, float]]:
    """Return the seconds that a strategy's bytes take on each link at its probed rates; unprobed ones are left out."""
    rates = {(key, link, way): rate for key, link, way, rate in fetch(reader, _RATES)}
    wires: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for key, number, link, sent, received in fetch(reader, _BYTES):
        up, down = (rates.get((key, link, way)) for way in ("up", "down"))
        if (key, number) in rounds and up and down:
            # Bits of requests at the rate up, of answers at the rate down.
            wires[key][link] += 8 * (sent / up + received / down)
    return wires


def _breakdown(
    rows: Sequence[tuple[float, ...]],
    parts: Mapping[str, Sequence[tuple[float, ...]]],
    placement: Sequence[str],
    wires: Mapping[str, float],
) -> Breakdown:
    count, latency_s, transmission_s = (sum(column) for column in zip(*rows, strict=True))
    # Relays are not in the placement and come last.
    tiers = sorted(parts, key=lambda tier: (placement.index(tier) if tier in placement else len(placement), tier))
    # Where links overlap they explain more than there is: all are then shortened alike.
    fits = min(1.0, max(0.0, transmission_s) / (sum(wires.values()) or 1.0))
    return Breakdown(
        latency_s / count,
        transmission_s / count,
        tuple(TierTimes(tier, *(sum(column) / count for column in zip(*parts[tier], strict=True))) for tier in tiers),
        tuple(LinkTime(link, fits * wire_s / count) for link, wire_s in wires.items()),
    )
