"""What `status`, the leaderboard and a report show, in set-wise queries.

Beside the strategies a report shows where the time of an inference goes (mean durations by strategy, tier and link),
how far the links were from their declared rates, which verdicts the rounds have and which limits the tiers had.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from catalog.artifact_details import OutputDistance, output_distance
from catalog.evidence.queries import (
    ACCURACY_COUNTS,
    MEASUREMENT_COUNTS,
    Reader,
    exact_mean,
    exact_sum,
    fetch,
    fetch_column,
    fetch_named,
    fetch_stored,
)
from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.statistics.description import chance_remark
from catalog.units import Setting, setting_of


def declared_subjects(reader: Reader) -> set[str]:
    """Return the subjects that have declared strategies, in whichever environment."""
    return set(fetch_column(reader, "SELECT DISTINCT subject FROM strategy WHERE declared"))


def race_departures(reader: Reader) -> Mapping[tuple[str, str, str, str], Mapping[str, Any]]:
    """Return the strategies that left the last race, by subject, environment, operator and placement."""
    query = "SELECT e.key AS environment, r.* FROM race_departure r JOIN environment e ON e.id = r.environment_id"
    rows = fetch_named(reader, query)
    return {(row["subject"], row["environment"], row["operator"], row["placement"]): row for row in rows}


def inapplicable_strategies(reader: Reader, *, subject: str | None = None) -> Sequence[Mapping[str, Any]]:
    """Return declared strategies whose operator the model does not allow: subject, operator, placement, reason."""
    where = "" if subject is None else "AND subject = :subject"
    query = (
        # A strategy may be declared in several environments, which are not told apart here.
        "SELECT DISTINCT subject, operator, placement, reason FROM strategy "
        f"WHERE declared AND status = 'inapplicable' {where} ORDER BY subject, operator, placement"
    )
    return fetch_named(reader, query, **({} if subject is None else {"subject": subject}))


_DRAWING = f"""
SELECT DISTINCT s.subject, m.id FROM measurement m
JOIN strategy s ON s.latency_key = m.latency_key AND s.declared
WHERE m.id IN (SELECT id FROM measurement WHERE {MEASUREMENT_COUNTS}) AND m.inputs_select = 'systematic'
ORDER BY m.id
"""


def drawing_protocols(reader: Reader) -> dict[str, Mapping[str, Any]]:
    """Return by subject how its rounds drew their inputs, as last measured; nothing of those that drew none."""
    newest: dict[str, int] = dict(fetch(reader, _DRAWING))
    protocols = {subject: _protocol(reader, identity) for subject, identity in newest.items()}
    return {subject: protocol for subject, protocol in protocols.items() if protocol.get("strata")}


def _protocol(reader: Reader, measurement_id: int) -> Mapping[str, Any]:
    condition = "WHERE id = :id"
    protocol: Mapping[str, Any] = fetch_stored(
        reader, "measurement", condition, columns=("protocol",), id=measurement_id
    )[0].protocol
    return protocol


# LEFT JOIN keeps subjects without evidence; the cast keeps the sum of PostgreSQL's bigints a whole number.
# DISTINCT, because the join repeats a strategy for each of its rounds.
_COVERAGE = f"""
SELECT s.subject, e.key AS environment, e.launcher, e.scale, COUNT(DISTINCT s.id) AS strategies,
       COUNT(DISTINCT CASE WHEN m.id IS NOT NULL THEN s.id END) AS with_evidence,
       COUNT(m.id) AS rounds, CAST(COALESCE(SUM(m.samples), 0) AS BIGINT) AS samples
FROM strategy s
JOIN environment e ON e.id = s.environment_id
LEFT JOIN (
    SELECT id, latency_key, (SELECT COUNT(*) FROM sample WHERE sample.measurement_id = measurement.id) AS samples
    FROM measurement WHERE {MEASUREMENT_COUNTS}
) m ON m.latency_key = s.latency_key
WHERE s.declared
GROUP BY s.subject, e.id, e.key, e.launcher, e.scale
ORDER BY s.subject, e.id
"""

# A failed or invalid attempt is no longer a trouble once the same round of the same key is known.
# `id <> m.id`, because a DOUBTFUL measurement counts and would hide itself.
_TROUBLES = f"""
SELECT m.subject, m.operator, m.placement, e.launcher, e.scale, m.round, m.status, m.verdict, m.reason, m.log_tail,
       m.started_at
FROM measurement m JOIN environment e ON e.id = m.environment_id
JOIN strategy s ON s.latency_key = m.latency_key AND s.environment_id = m.environment_id AND s.declared
     AND s.subject = m.subject AND s.operator = m.operator AND s.placement = m.placement
WHERE NOT (m.status = 'complete' AND m.verdict = 'VALID')
  AND NOT EXISTS (
    SELECT 1 FROM (SELECT latency_key, round, id FROM measurement WHERE {MEASUREMENT_COUNTS}) known
    WHERE known.latency_key = m.latency_key AND known.round = m.round AND known.id <> m.id
  )
ORDER BY m.id
"""


# Imported rounds are left out: their time was spent elsewhere.
_PROBING = """
SELECT m.started_at, m.finished_at, m.probing_s FROM measurement m
WHERE m.status = 'complete' AND m.probing_s IS NOT NULL AND m.imported_file_id IS NULL
"""


def probing_share(reader: Reader) -> float | None:
    """Return the share of the measurements' time that went into probing links; None where that was not recorded."""
    total_s = probing_s = 0.0
    for started_at, finished_at, spent_s in fetch(reader, _PROBING):
        total_s += (datetime.fromisoformat(finished_at) - datetime.fromisoformat(started_at)).total_seconds()
        probing_s += spent_s
    return probing_s / total_s if total_s else None


# The mean of an input's repetitions is one value. Only sums, which both databases compute alike and quickly.
_ROUND_MOMENTS = f"""
SELECT m.subject, m.latency_key, m.round, m.started_at, m.finished_at, i.inputs, i.mean_s, i.square_s, i.total_s
FROM measurement m
JOIN (
    SELECT measurement_id, COUNT(*) AS inputs, AVG(mean_s) AS mean_s, AVG(mean_s * mean_s) AS square_s,
           SUM(total_s) AS total_s
    FROM (
        SELECT measurement_id, input_id, AVG(latency_s) AS mean_s, SUM(latency_s) AS total_s
        FROM sample GROUP BY measurement_id, input_id
    ) repetitions
    GROUP BY measurement_id
) i ON i.measurement_id = m.id
WHERE {MEASUREMENT_COUNTS} AND m.imported_file_id IS NULL
  AND EXISTS (SELECT 1 FROM strategy s WHERE s.latency_key = m.latency_key AND s.declared)
ORDER BY m.subject, m.latency_key, m.round
"""


def round_moments(reader: Reader) -> Sequence[Mapping[str, Any]]:
    """Return for each round that was measured here how its inputs' latencies spread, and how long it took."""
    return fetch_named(reader, _ROUND_MOMENTS)


# DISTINCT, because several strategies may share one accuracy.
_FAILED_ACCURACIES = f"""
SELECT DISTINCT a.subject, a.operator, e.launcher, e.scale, a.provider, a.status, a.reason, a.started_at
FROM accuracy a JOIN environment e ON e.id = a.environment_id
JOIN strategy s ON s.accuracy_key = a.key AND s.environment_id = a.environment_id AND s.declared
WHERE a.status = 'failed'
  AND NOT EXISTS (SELECT 1 FROM (SELECT key FROM accuracy WHERE {ACCURACY_COUNTS}) known WHERE known.key = a.key)
ORDER BY a.started_at
"""


def failed_accuracies(reader: Reader) -> Sequence[Mapping[str, Any]]:
    """Return accuracies of declared strategies whose attempts failed without a later success."""
    return fetch_named(reader, _FAILED_ACCURACIES)


def environment_settings(reader: Reader) -> Mapping[str, Setting]:
    """Return by key the settings of the environments that have one."""
    rows = fetch_stored(reader, "environment", columns=("key", "details"))
    settings = {row.key: setting_of(row.details if isinstance(row.details, dict) else {}) for row in rows}
    return {key: setting for key, setting in settings.items() if setting is not None}


def coverage(reader: Reader) -> Sequence[Mapping[str, Any]]:
    """Return per subject and environment: their names, the launcher, the scale, and counts of what there is."""
    return fetch_named(reader, _COVERAGE)


def troubles(reader: Reader) -> Sequence[Mapping[str, Any]]:
    """Return attempts at declared strategies that failed, are INVALID or DOUBTFUL and have no valid successor."""
    return fetch_named(reader, _TROUBLES)


def leaderboard(reader: Reader, *, subject: str | None = None) -> Sequence[Mapping[str, Any]]:
    """Return the view `leaderboard` by subject, environment and rank; `source` names every imported file."""
    where = "" if subject is None else "WHERE subject = :subject"
    # Ordered again: what a view orders by is no promise to the statement that reads it.
    query = f"SELECT * FROM leaderboard {where} ORDER BY subject, environment, rank, operator, placement"
    return fetch_named(reader, query, **({} if subject is None else {"subject": subject}))


def link_summary(reader: Reader) -> Sequence[Mapping[str, Any]]:
    """Return per link, direction and environment: declared rate, measured rates of what counts, RTT, whether real."""
    query = (
        "SELECT e.launcher, e.scale, l.link, l.direction, l.declared_bit_per_s, COUNT(*) AS probes, "
        "MIN(l.measured_bit_per_s) AS least_bit_per_s, "
        f"{exact_mean('l.measured_bit_per_s', scale='1')} AS mean_bit_per_s, "
        f"MAX(l.measured_bit_per_s) AS most_bit_per_s, {exact_mean('l.rtt_s')} AS mean_rtt_s, "
        # A real link is probed at both moments, as an emulated one, but has no tolerance.
        "MIN(CASE WHEN l.tolerance IS NULL AND l.moment IS NOT NULL THEN 1 ELSE 0 END) AS real FROM link_probe l "
        f"JOIN (SELECT id, environment_id FROM measurement WHERE {MEASUREMENT_COUNTS}) m ON m.id = l.measurement_id "
        "JOIN environment e ON e.id = m.environment_id "
        "GROUP BY e.id, e.launcher, e.scale, l.link, l.direction, l.declared_bit_per_s "
        "ORDER BY e.id, l.link, l.direction DESC, l.declared_bit_per_s"
    )
    return [{**row, "real": bool(row["real"])} for row in fetch_named(reader, query)]


def rankings(reader: Reader) -> Mapping[tuple[str, str, str, str], Mapping[str, Any]]:
    """Return by subject, environment, operator and placement the row of the view `ranking`.

    Of the ranking by the median, as last stored; strategies measured since are not in it.
    """
    rows = fetch_named(reader, "SELECT * FROM ranking WHERE percentile = 50")
    return {(row["subject"], row["environment"], row["operator"], row["placement"]): row for row in rows}


@dataclass(frozen=True)
class SloStanding:
    """How the strategies of a subject in an environment stand to a declared target.

    Attributes
    ----------
    latency, accuracy : mapping of str to float
        Its limits as declared: seconds by percentile, percent.
    statuses : mapping of str to str
        By `operator@placement`, of the strategies whose estimates keep it: proven, likely, open or estimated.
    recommended : str or None
        The strategy that the answer names.
    """

    latency: Mapping[str, float]
    accuracy: Mapping[str, float]
    statuses: Mapping[str, str]
    recommended: str | None


def slo_standings(reader: Reader) -> Mapping[tuple[str, str], Mapping[str, SloStanding]]:
    """Return by subject and environment the standing to each declared target, by its name, as last answered.

    Answers that rest on older evidence are left out.
    """
    answered = fetch_named(reader, "SELECT slo, subject, environment FROM slo_status WHERE standing = 'current'")
    current = {(row["slo"], row["subject"], row["environment"]) for row in answered}
    keys = _environment_keys(reader)
    targets = {row.name: row for row in fetch_stored(reader, "slo")}
    own = {(row.subject, row.name): row for row in fetch_stored(reader, "subject_slo")}
    standings: dict[tuple[str, str], dict[str, SloStanding]] = {}
    for row in fetch_stored(reader, "analysis_slo", "ORDER BY slo"):
        environment, target = keys.get(row.environment_id), own.get((row.subject, row.slo), targets.get(row.slo))
        if environment is None or target is None or (row.slo, row.subject, environment) not in current:
            continue
        place = row.subject, environment
        best = None if row.operator is None else f"{row.operator}@{row.placement}"
        standings.setdefault(place, {})[row.slo] = SloStanding(target.latency, target.accuracy, row.statuses, best)
    return standings


def output_distances(reader: Reader) -> Mapping[tuple[str, str, str, str], OutputDistance]:
    """Return by subject, environment, operator and placement how far the outputs are from identity's, where known.

    Operators without passes are left out: they are identity, whatever a catalog calls them.
    """
    keys = _environment_keys(reader)
    artifacts = {row.key: row.details for row in fetch_stored(reader, "artifact", columns=("key", "details"))}
    strategies = fetch_stored(reader, "strategy", "WHERE declared")
    distances = {
        (row.subject, keys[row.environment_id], row.operator, row.placement): output_distance(
            artifacts[row.artifact_key] or {}
        )
        for row in strategies
        if row.passes and row.artifact_key in artifacts
    }
    return {name: distance for name, distance in distances.items() if distance is not None}


def _environment_keys(reader: Reader) -> Mapping[int, str]:
    return {row.id: row.key for row in fetch(reader, "SELECT id, key FROM environment")}


def accuracy_remarks(reader: Reader) -> Mapping[tuple[str, str, str, str], str]:
    """Return by subject, environment, operator and placement what keeps an accuracy from saying anything."""
    keys = _environment_keys(reader)
    remarks = {}
    for row in fetch_stored(reader, "accuracy", f"WHERE {ACCURACY_COUNTS} AND class_counts IS NOT NULL ORDER BY id"):
        primary = row.miou_pct if row.metric_primary == "miou" else row.top1_pct
        if primary is not None and row.class_counts is not None:
            remarks[row.key] = chance_remark(row.metric_primary, primary, row.items, row.class_counts)
    strategies = fetch(
        reader, "SELECT subject, environment_id, operator, placement, accuracy_key FROM strategy WHERE declared"
    )
    return {
        (row.subject, keys[row.environment_id], row.operator, row.placement): remark
        for row in strategies
        if (remark := remarks.get(row.accuracy_key))
    }


def family_members(reader: Reader) -> Mapping[str, frozenset[tuple[str, str, str]]]:
    """Return by family the subject, environment and `operator@placement` that it compares, as last stored."""
    families: dict[str, set[tuple[str, str, str]]] = {}
    for row in fetch_named(reader, "SELECT subject, environment, family, left_strategy, right_strategy FROM pairwise"):
        members = families.setdefault(row["family"], set())
        members |= {(row["subject"], row["environment"], row[side]) for side in ("left_strategy", "right_strategy")}
    return {family: frozenset(members) for family, members in families.items()}


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
