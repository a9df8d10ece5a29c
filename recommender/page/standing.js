// The strategies of an answer as rows, fastest first, whatever their outcome.

export function rows(answer) {
  const all = [answer.recommendation, ...answer.alternatives, ...answer.near_misses, ...answer.undecided];
  // What misses a budget has no status.
  const listed = all.filter(Boolean).map((strategy) => ({
    operator: strategy.operator, placement: strategy.placement, predicted: strategy.latency.predicted, percentile: strategy.latency.percentile,
    percentile_s: strategy.latency.percentile_s, median_s: strategy.latency.median_s, metric: strategy.accuracy?.metric ?? null,
    accuracy_pct: strategy.accuracy?.accuracy_pct ?? null, drop_pp: strategy.accuracy?.drop_pp ?? null,
    status: strategy.status ?? "misses", probability: strategy.probability ?? null, distance: strategy.distance ?? null, size_bytes: strategy.size_bytes, sent_bytes: strategy.sent_bytes, pareto: strategy.pareto,
  }));
  return listed.sort((a, b) => a.percentile_s - b.percentile_s || (b.accuracy_pct ?? 0) - (a.accuracy_pct ?? 0));
}
