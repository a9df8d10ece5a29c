"""The SQL views for people (docs/sql.md): their one, present definition.

Inputs that are drawn more often than others, or measured for certain, would count for more than they stand for: the
percentiles leave them out.

`env.py` drops them before a migration touches a table and creates them once the schema is the newest, so a migration
never mentions them. A change here alone needs an (empty) revision, because only a new revision reaches old databases.

`strategy_summary` and `leaderboard` have the percentiles that the stored analysis estimates, as all commands print
them, and say so in `percentiles_from`. Without an analysis of the present evidence, and in the view `percentiles`, they
are those of the samples: taken within each round and averaged over the rounds. Ranks are found with integers
(`90 * (n - 1) / 100` is the lower neighbour of numpy's p90), which SQLite and PostgreSQL do alike.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from catalog.evidence.queries import exact_mean, in_dialect

_MEASUREMENT_COUNTS = "status = 'complete' AND verdict <> 'INVALID'"
_ACCURACY_COUNTS = "status = 'complete'"
_SPREAD = "(stratum IS NULL OR stratum = 'body')"
_PERCENTILES = (50, 75, 90, 95, 99)


def _percentile(percent: int) -> str:
    """Return numpy's linear percentile of the ranked latencies of a group; without `%`, a parameter to drivers."""
    product = f"{percent} * (count_in_round - 1)"
    lower = f"({product} / 100)"
    hundredths = f"({product} - 100 * {lower})"
    return (
        f"SUM(CASE WHEN place = {lower} THEN latency_s * ((100 - {hundredths}) / 100.0) "
        f"WHEN place = {lower} + 1 THEN latency_s * ({hundredths} / 100.0) "
        f"ELSE 0.0 END) AS p{percent}_latency_s"
    )


def _round_percentiles(percents: Sequence[int], *, count_inputs: bool) -> str:
    """Return the percentiles of every round that counts, in the order of the rounds of a key."""
    # Samples are ranked and grouped by the measurement's number: a key is a long text, and every comparison reads it.
    ranked_input = ", s.input_id" if count_inputs else ""
    inputs = ", COUNT(DISTINCT input_id) AS inputs" if count_inputs else ""
    return f"""
    SELECT m.latency_key, m.round, m.testbed, m.verdict, m.finished_at, r.samples{", r.inputs" if count_inputs else ""},
           {", ".join(f"r.p{percent}_latency_s" for percent in percents)}
    FROM measurement m
    JOIN (
        SELECT measurement_id, MAX(count_in_round) AS samples{inputs},
               {", ".join(_percentile(percent) for percent in percents)}
        FROM (
            SELECT s.measurement_id, s.latency_s, n.count_in_round{ranked_input},
                   ROW_NUMBER() OVER (PARTITION BY s.measurement_id ORDER BY s.latency_s) - 1 AS place
            FROM sample s
            JOIN (
                SELECT measurement_id, COUNT(*) AS count_in_round FROM sample
                WHERE {_SPREAD} AND measurement_id IN (SELECT id FROM measurement WHERE {_MEASUREMENT_COUNTS})
                GROUP BY measurement_id
            ) n ON n.measurement_id = s.measurement_id
            WHERE {_SPREAD}
        ) ranked
        GROUP BY measurement_id
    ) r ON r.measurement_id = m.id
    ORDER BY m.latency_key, m.round
"""


_LATENCY = f"""
    SELECT latency_key, MAX(finished_at) AS finished_at,
           COUNT(*) AS rounds,
           CAST(SUM(samples) AS INTEGER) AS samples,
           {exact_mean("p50_latency_s")} AS median_latency_s,
           {exact_mean("p90_latency_s")} AS p90_latency_s,
           CASE WHEN MAX(CASE WHEN verdict = 'DOUBTFUL' THEN 1 ELSE 0 END) = 1 THEN 'DOUBTFUL' ELSE 'VALID' END
               AS verdict
    FROM ({_round_percentiles((50, 90), count_inputs=False)}) per_round
    GROUP BY latency_key
"""

# What the newest analysis estimates for a strategy, unless the strategy was measured since. A percentile of a round's
# samples is not it: where rounds draw their inputs, those of all rounds together are weighed by what they stand for.
_ESTIMATED = """
    SELECT n.subject, n.environment_id, r.operator, r.placement, r.p50_s, r.p90_s, n.created_at
    FROM analysis_strategy r
    JOIN (SELECT id, subject, environment_id, created_at,
                 ROW_NUMBER() OVER (PARTITION BY subject, environment_id ORDER BY created_at DESC, id DESC) AS place
          FROM analysis) n ON n.id = r.analysis_id AND n.place = 1
    WHERE r.p50_s IS NOT NULL
"""

_INPUTS = f"""
    SELECT m.latency_key, COUNT(DISTINCT s.input_id) AS inputs, MIN(m.inputs_select) AS inputs_select
    FROM sample s
    JOIN (SELECT id, latency_key, inputs_select FROM measurement WHERE {_MEASUREMENT_COUNTS}) m
        ON m.id = s.measurement_id
    GROUP BY m.latency_key
"""

# All links together, median over all samples of a key, which its first measurement stands for; without links nothing is
# sent. Rows from elsewhere (launcher `imported`) do not tell what was sent.
_SENT = f"""
    SELECT m.latency_key, AVG(CAST(sent_bytes AS DOUBLE PRECISION)) AS sent_bytes
    FROM (
        SELECT first_id, sent_bytes,
               ROW_NUMBER() OVER (PARTITION BY first_id ORDER BY sent_bytes) - 1 AS place,
               COUNT(*) OVER (PARTITION BY first_id) AS samples
        FROM (
            SELECT m.first_id,
                   COALESCE((SELECT SUM(l.sent_bytes) FROM sample_link l WHERE l.sample_id = s.id), 0) AS sent_bytes
            FROM sample s
            JOIN (
                SELECT id, MIN(id) OVER (PARTITION BY latency_key) AS first_id
                FROM measurement WHERE {_MEASUREMENT_COUNTS}
            ) m ON m.id = s.measurement_id
        ) totals
    ) ranked
    JOIN measurement m ON m.id = ranked.first_id
    WHERE place = (samples - 1) / 2 OR place = samples / 2
    GROUP BY m.latency_key
"""

_PLACE = """
    SELECT e.id, e.key AS environment, e.launcher, e.scale, e.host,
           CASE WHEN e.imported_file_id IS NULL THEN 'measured' ELSE 'imported' END AS provenance, f.name AS source
    FROM environment e LEFT JOIN imported_file f ON f.id = e.imported_file_id
"""

# All files that brought evidence of a subject in an environment, in the order of their import, as answers call them:
# told apart by their SHA-256 where two have one name. Joined by recursion: the databases aggregate text differently.
_SOURCES = """
called AS (
    SELECT f.id, CASE WHEN COUNT(*) OVER (PARTITION BY f.name) = 1 THEN f.name
                      ELSE f.name || ' (SHA-256 ' || SUBSTR(f.sha256, 1, 12) || '…)' END AS label
    FROM imported_file f
),
brought AS (
    SELECT b.environment_id, b.subject, called.label,
           ROW_NUMBER() OVER (PARTITION BY b.environment_id, b.subject ORDER BY called.id) AS place,
           COUNT(*) OVER (PARTITION BY b.environment_id, b.subject) AS files
    FROM (SELECT environment_id, subject, imported_file_id FROM measurement
          UNION SELECT environment_id, subject, imported_file_id FROM accuracy) b
    JOIN called ON called.id = b.imported_file_id
),
sources AS (
    SELECT environment_id, subject, place, files, CAST(label AS TEXT) AS source FROM brought WHERE place = 1
    UNION ALL
    SELECT b.environment_id, b.subject, b.place, b.files, s.source || ', ' || b.label
    FROM sources s
    JOIN brought b ON b.environment_id = s.environment_id AND b.subject = s.subject AND b.place = s.place + 1
)"""

# Every declared strategy's accuracy beside identity's of the same subject and environment: on the same placement,
# else with the same provider.
_KNOWN_ACCURACY = f"""
    SELECT id, key, provider, metric_primary AS metric, items,
           CASE metric_primary WHEN 'miou' THEN miou_pct ELSE top1_pct END AS accuracy_pct
    FROM accuracy WHERE {_ACCURACY_COUNTS}
"""
_IDENTITY = """
    SELECT i.subject, i.environment_id, i.placement, r.metric, r.provider, r.id, r.accuracy_pct,
           ROW_NUMBER() OVER (PARTITION BY i.subject, i.environment_id, r.metric, i.placement ORDER BY i.id)
               AS at_placement,
           ROW_NUMBER() OVER (PARTITION BY i.subject, i.environment_id, r.metric, r.provider ORDER BY i.placement, i.id)
               AS with_provider
    FROM strategy i JOIN known_accuracy r ON r.key = i.accuracy_key
    WHERE i.declared AND CAST(i.passes AS TEXT) = '[]'
"""
_COMPARED_ACCURACY = """
    SELECT s.id AS strategy_id, a.id AS accuracy_id, a.metric, a.items, a.accuracy_pct,
           COALESCE(p.id, q.id) AS identity_id, COALESCE(p.accuracy_pct, q.accuracy_pct) AS identity_pct,
           CASE WHEN a.metric <> 'agreement' THEN COALESCE(p.accuracy_pct, q.accuracy_pct) - a.accuracy_pct END
               AS drop_pp
    FROM strategy s
    JOIN known_accuracy a ON a.key = s.accuracy_key
    LEFT JOIN identity p ON p.subject = s.subject AND p.environment_id = s.environment_id
         AND p.metric = a.metric AND p.placement = s.placement AND p.at_placement = 1
    LEFT JOIN identity q ON q.subject = s.subject AND q.environment_id = s.environment_id
         AND q.metric = a.metric AND q.provider = a.provider AND q.with_provider = 1
    WHERE s.declared
"""
_ACCURACIES = f"""
known_accuracy AS ({_KNOWN_ACCURACY}),
identity AS ({_IDENTITY}),
compared AS ({_COMPARED_ACCURACY})"""

_STRATEGY_SUMMARY = f"""
WITH RECURSIVE latency AS ({_LATENCY}),
estimated AS ({_ESTIMATED}),
inputs AS ({_INPUTS}),
sent AS ({_SENT}),
place AS ({_PLACE}),
{_SOURCES},
{_ACCURACIES}
SELECT s.subject, s.operator, s.placement,
       e.environment, e.launcher, e.scale, e.host, s.task,
       latency.rounds, s.rounds AS rounds_declared, inputs.inputs, latency.samples,
       COALESCE(estimated.p50_s, latency.median_latency_s) AS median_latency_s,
       COALESCE(estimated.p90_s, latency.p90_latency_s) AS p90_latency_s,
       CASE WHEN estimated.p50_s IS NULL THEN 'samples' ELSE 'analysis' END AS percentiles_from, inputs.inputs_select,
       a.metric, a.accuracy_pct, a.drop_pp,
       artifact.size_bytes, CASE WHEN e.launcher <> 'imported' THEN sent.sent_bytes END AS sent_bytes,
       latency.verdict, e.provenance, COALESCE(sources.source, e.source) AS source
FROM strategy s
JOIN place e ON e.id = s.environment_id
JOIN latency ON latency.latency_key = s.latency_key
LEFT JOIN estimated ON estimated.subject = s.subject AND estimated.environment_id = s.environment_id
     AND estimated.operator = s.operator AND estimated.placement = s.placement
     AND estimated.created_at >= latency.finished_at
JOIN inputs ON inputs.latency_key = s.latency_key
JOIN sent ON sent.latency_key = s.latency_key
LEFT JOIN compared a ON a.strategy_id = s.id
LEFT JOIN artifact ON artifact.key = s.artifact_key
LEFT JOIN sources ON sources.environment_id = s.environment_id AND sources.subject = s.subject
     AND sources.place = sources.files
WHERE s.declared
ORDER BY s.subject, e.environment, s.operator, s.placement
"""

_LEADERBOARD = """
SELECT RANK() OVER (PARTITION BY subject, environment ORDER BY median_latency_s) AS rank, strategy_summary.*
FROM strategy_summary
ORDER BY subject, environment, rank, operator, placement
"""

_PERCENTILES_BY_ROUND = f"""
WITH per_round AS ({_round_percentiles(_PERCENTILES, count_inputs=True)}), place AS ({_PLACE})
SELECT s.subject, s.operator, s.placement, e.environment, e.provenance, r.round, r.verdict, r.inputs, r.samples,
       {", ".join(f"r.p{percent}_latency_s" for percent in _PERCENTILES)}, r.testbed
FROM strategy s
JOIN place e ON e.id = s.environment_id
JOIN per_round r ON r.latency_key = s.latency_key
WHERE s.declared
ORDER BY s.subject, e.environment, s.operator, s.placement, r.round
"""

_LINK_CHECK = f"""
WITH place AS ({_PLACE})
SELECT m.id AS measurement_id, m.subject, m.operator, m.placement, e.environment, e.provenance, m.round,
       m.verdict, l.link, l.direction, l.declared_bit_per_s, l.measured_bit_per_s,
       100.0 * (l.measured_bit_per_s / l.declared_bit_per_s - 1) AS deviation_pct, 100.0 * l.tolerance AS tolerance_pct,
       l.rtt_s, l.moment, l.discarded_bit_per_s, m.testbed
FROM link_probe l
JOIN measurement m ON m.id = l.measurement_id
JOIN place e ON e.id = m.environment_id
ORDER BY l.id
"""

_ACCURACY_DROP = f"""
WITH place AS ({_PLACE}),
{_ACCURACIES},
flips AS (
    SELECT pair.accuracy_id, pair.identity_id, COUNT(*) AS paired_items,
           SUM(CASE WHEN i.top1 AND NOT a.top1 THEN 1 ELSE 0 END) AS lost_items,
           SUM(CASE WHEN a.top1 AND NOT i.top1 THEN 1 ELSE 0 END) AS gained_items
    FROM (SELECT DISTINCT accuracy_id, identity_id FROM compared) pair
    JOIN accuracy_item a ON a.accuracy_id = pair.accuracy_id
    JOIN accuracy_item i ON i.accuracy_id = pair.identity_id AND i.item_id = a.item_id
    GROUP BY pair.accuracy_id, pair.identity_id
)
SELECT s.subject, s.operator, s.placement, e.environment, e.provenance, c.metric, c.items,
       c.accuracy_pct, c.identity_pct, c.drop_pp,
       flips.paired_items, flips.lost_items, flips.gained_items
FROM compared c
JOIN strategy s ON s.id = c.strategy_id
JOIN place e ON e.id = s.environment_id
LEFT JOIN flips ON flips.accuracy_id = c.accuracy_id AND flips.identity_id = c.identity_id
ORDER BY s.subject, e.environment, s.operator, s.placement
"""

# An analysis is stored once per subject, environment and percentile; storing it again replaces it.
_ANALYSED = """
    SELECT a.id, a.subject, e.key AS environment, e.launcher, e.scale, a.percentile, a.equivalent_within,
           a.confidence_level, a.adjustment, a.created_at
    FROM analysis a JOIN environment e ON e.id = a.environment_id
"""

_RANKING = f"""
SELECT a.subject, a.environment, a.launcher, a.scale, a.percentile, r.rank, r.worst_rank, r.letters, r.operator,
       r.placement, r.estimate_s, r.low_s, r.high_s, a.confidence_level, r.ratio_to_best, r.samples, r.rounds, r.inputs,
       r.effective_samples, r.rounds_share, r.inputs_share, r.rest_share, r.mean_s AS pooled_mean_s,
       r.median_s AS pooled_median_s, r.iqr_s AS pooled_iqr_s, r.outliers,
       r.shapiro_statistic, r.shapiro_pvalue, r.refusal
FROM analysis_strategy r JOIN ({_ANALYSED}) a ON a.id = r.analysis_id
ORDER BY a.subject, a.environment, a.percentile, r.id
"""

_PAIRWISE = f"""
SELECT a.subject, a.environment, a.launcher, a.scale, p.family, f.kind, f.pvalue AS kruskal_wallis_pvalue,
       p.left_strategy, p.right_strategy, p.conover_pvalue, a.adjustment, p.significant, p.delta, p.magnitude,
       a.percentile, p.ratio, p.low, p.high, a.confidence_level, a.equivalent_within, p.verdict, p.rounds_needed,
       p.inputs_needed, p.refusal, p.disagreement
FROM analysis_pair p
JOIN ({_ANALYSED}) a ON a.id = p.analysis_id
JOIN analysis_family f ON f.analysis_id = p.analysis_id AND f.family = p.family
ORDER BY a.subject, a.environment, a.percentile, p.id
"""

# What a strategy costs each tier of its route. A tier sends requests over the link that starts at it and answers over
# the one that ends there.
_TIER_COSTS = f"""
WITH place AS ({_PLACE}),
counted AS (
    SELECT m.id, m.latency_key, (SELECT COUNT(*) FROM sample s WHERE s.measurement_id = m.id) AS inferences
    FROM measurement m WHERE {_MEASUREMENT_COUNTS}
),
moved AS (
    SELECT s.measurement_id, l.link, CAST(SUM(l.sent_bytes) AS DOUBLE PRECISION) AS sent_bytes,
           CAST(SUM(l.received_bytes) AS DOUBLE PRECISION) AS received_bytes
    FROM sample s JOIN sample_link l ON l.sample_id = s.id
    GROUP BY s.measurement_id, l.link
),
per_round AS (
    SELECT c.latency_key, t.tier, t.provider, t.cold_start_s, t.first_inference_s, t.peak_rss_bytes,
           t.window_cpu_seconds / c.inferences AS cpu_s_per_inference,
           COALESCE((SELECT SUM(x.sent_bytes) FROM moved x JOIN tier_run o ON o.measurement_id = c.id
                     WHERE x.measurement_id = c.id AND x.link = t.tier || '-' || o.tier), 0.0) / c.inferences
           + COALESCE((SELECT SUM(x.received_bytes) FROM moved x JOIN tier_run o ON o.measurement_id = c.id
                       WHERE x.measurement_id = c.id AND x.link = o.tier || '-' || t.tier), 0.0) / c.inferences
               AS sent_bytes_per_inference
    FROM counted c JOIN tier_run t ON t.measurement_id = c.id
    WHERE c.inferences > 0
)
SELECT s.subject, s.operator, s.placement, e.environment, e.provenance, r.tier, MIN(r.provider) AS provider,
       COUNT(*) AS rounds, {exact_mean("r.cold_start_s")} AS cold_start_s,
       {exact_mean("r.first_inference_s")} AS first_inference_s, MAX(r.peak_rss_bytes) AS peak_rss_bytes,
       {exact_mean("r.cpu_s_per_inference")} AS cpu_s_per_inference,
       {exact_mean("r.sent_bytes_per_inference", scale="1")} AS sent_bytes_per_inference
FROM strategy s
JOIN place e ON e.id = s.environment_id
JOIN per_round r ON r.latency_key = s.latency_key
WHERE s.declared
GROUP BY s.id, s.subject, s.operator, s.placement, e.environment, e.provenance, r.tier
ORDER BY s.subject, e.environment, s.operator, s.placement, r.tier
"""

# Latency over size: every sample of what is declared and counts, with the size of its input where a pool is stored.
_SAMPLE_SIZES = f"""
WITH place AS ({_PLACE})
SELECT s.subject, s.operator, s.placement, e.environment, e.provenance, m.round, m.verdict, x.seq, x.input_id,
       x.repetition, x.latency_s, x.stratum, i.size, p.unit, i.media, m.testbed
FROM strategy s
JOIN place e ON e.id = s.environment_id
JOIN (SELECT * FROM measurement WHERE {_MEASUREMENT_COUNTS}) m ON m.latency_key = s.latency_key
JOIN sample x ON x.measurement_id = m.id
LEFT JOIN input_pool p ON p.key = m.pool_key
LEFT JOIN pool_input i ON i.pool_id = p.id AND i.input_id = x.input_id
WHERE s.declared
"""

# What the evidence answered to each target; a later measurement of the subject there makes the answer an old one.
_SLO_STATUS = f"""
WITH place AS ({_PLACE})
SELECT a.slo, a.subject, e.environment, e.launcher, e.scale, e.provenance, a.status, a.probability, a.operator,
       a.placement, a.percentile, a.latency_s, a.proven_operator, a.proven_placement, a.confidence_level,
       a.created_at AS answered_at,
       CASE WHEN EXISTS (SELECT 1 FROM measurement m WHERE m.environment_id = a.environment_id
                         AND m.subject = a.subject AND m.finished_at > a.created_at)
              OR EXISTS (SELECT 1 FROM accuracy c WHERE c.environment_id = a.environment_id
                         AND c.subject = a.subject AND c.finished_at > a.created_at)
            THEN 'outdated' ELSE 'current' END AS standing
FROM analysis_slo a
JOIN place e ON e.id = a.environment_id
JOIN slo t ON t.name = a.slo
ORDER BY a.slo, a.subject, e.environment
"""

# In the order of creation: a view may use those above it.
VIEWS: dict[str, str] = {
    "strategy_summary": _STRATEGY_SUMMARY,
    "leaderboard": _LEADERBOARD,
    "percentiles": _PERCENTILES_BY_ROUND,
    "sample_sizes": _SAMPLE_SIZES,
    "link_check": _LINK_CHECK,
    "tier_costs": _TIER_COSTS,
    "accuracy_drop": _ACCURACY_DROP,
    "ranking": _RANKING,
    "pairwise": _PAIRWISE,
    "slo_status": _SLO_STATUS,
}


def create_views(connection: sa.Connection) -> None:
    """Create all views again."""
    drop_views(connection)
    for name, query in VIEWS.items():
        connection.exec_driver_sql(f"CREATE VIEW {name} AS {in_dialect(query, connection.dialect.name)}")


def drop_views(connection: sa.Connection) -> None:
    """Drop those that exist, dependants first."""
    for name in reversed(VIEWS):
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")
