"""SQL views for people. Percentiles are taken within each round (linear interpolation), then averaged over rounds."""

_PERCENTILE = """
SELECT latency_key, AVG(value) AS value FROM (
  SELECT latency_key, measurement_id,
         SUM(CASE WHEN n = lower THEN latency_s * (1 - fraction) ELSE 0 END)
         + SUM(CASE WHEN n = lower + 1 THEN latency_s * fraction ELSE 0 END) AS value
  FROM (
    SELECT latency_key, measurement_id, latency_s, n,
           CAST((count - 1) * {p} AS INTEGER) AS lower,
           (count - 1) * {p} - CAST((count - 1) * {p} AS INTEGER) AS fraction
    FROM (
      SELECT m.latency_key, m.id AS measurement_id, s.latency_s,
             ROW_NUMBER() OVER (PARTITION BY m.id ORDER BY s.latency_s) - 1 AS n,
             COUNT(*) OVER (PARTITION BY m.id) AS count
      FROM measurement m JOIN sample s ON s.measurement_id = m.id
      WHERE m.status = 'complete' AND m.verdict <> 'INVALID'
    ) AS ordered
  ) AS placed GROUP BY latency_key, measurement_id
) AS by_round GROUP BY latency_key
"""

STRATEGY_SUMMARY = f"""
CREATE VIEW strategy_summary AS
WITH median AS ({_PERCENTILE.format(p=0.5)}),
     p90 AS ({_PERCENTILE.format(p=0.9)}),
     counted AS (
       SELECT m.latency_key, COUNT(DISTINCT m.id) AS rounds, COUNT(DISTINCT s.input_id) AS inputs, COUNT(*) AS samples,
              MIN(m.inputs_select) AS inputs_select, MAX(m.verdict) AS verdict, MAX(m.finished_at) AS measured_at
       FROM measurement m JOIN sample s ON s.measurement_id = m.id
       WHERE m.status = 'complete' AND m.verdict <> 'INVALID' GROUP BY m.latency_key
     ),
     sent AS (
       SELECT m.latency_key, SUM(l.sent_bytes) * 1.0 / COUNT(DISTINCT s.id) AS sent_bytes
       FROM measurement m JOIN sample s ON s.measurement_id = m.id JOIN sample_link l ON l.sample_id = s.id
       WHERE m.status = 'complete' AND m.verdict <> 'INVALID' GROUP BY m.latency_key
     ),
     identity AS (
       SELECT DISTINCT st.subject, st.environment_id, ac.provider, ac.metric, ac.accuracy_pct
       FROM strategy st JOIN accuracy ac ON ac.key = st.accuracy_key
       WHERE st.declared AND CAST(st.passes AS TEXT) = '[]'
     )
SELECT st.subject, st.operator, st.placement, e.launcher, e.scale, e.host, st.environment_id,
       c.rounds, c.inputs, c.samples, c.inputs_select, median.value AS median_latency_s, p90.value AS p90_latency_s,
       ac.metric, ac.accuracy_pct, i.accuracy_pct - ac.accuracy_pct AS drop_pp, a.size_bytes,
       COALESCE(sent.sent_bytes, 0) AS sent_bytes, c.verdict, c.measured_at, st.latency_key
FROM strategy st
JOIN environment e ON e.id = st.environment_id
JOIN counted c ON c.latency_key = st.latency_key
JOIN median ON median.latency_key = st.latency_key
JOIN p90 ON p90.latency_key = st.latency_key
LEFT JOIN sent ON sent.latency_key = st.latency_key
LEFT JOIN artifact a ON a.key = st.artifact_key
LEFT JOIN accuracy ac ON ac.key = st.accuracy_key
LEFT JOIN identity i ON i.subject = st.subject AND i.environment_id = st.environment_id
     AND i.provider = ac.provider AND i.metric = ac.metric
WHERE st.declared
"""

LEADERBOARD = """
CREATE VIEW leaderboard AS
SELECT RANK() OVER (PARTITION BY subject, environment_id ORDER BY median_latency_s) AS rank, strategy_summary.*
FROM strategy_summary ORDER BY subject, environment_id, median_latency_s
"""

VIEWS = {"strategy_summary": STRATEGY_SUMMARY, "leaderboard": LEADERBOARD}
