// The strategies of an answer as rows, fastest first, whatever came of each.

export function rows(answer) {
  const all = [answer.recommendation, ...answer.alternatives, ...answer.near_misses, ...answer.undecided];
  const found = all.filter(Boolean).map((each) => ({
    operator: each.operator, placement: each.placement, predicted: each.latency.predicted, percentile: each.latency.percentile,
    percentile_s: each.latency.percentile_s, median_s: each.latency.median_s, metric: each.accuracy?.metric ?? null,
    accuracy_pct: each.accuracy?.accuracy_pct ?? null, drop_pp: each.accuracy?.drop_pp ?? null,
    distance: each.distance ?? null, size_bytes: each.size_bytes, sent_bytes: each.sent_bytes, pareto: each.pareto,
  }));
  return found.sort((a, b) => a.percentile_s - b.percentile_s || (b.accuracy_pct ?? 0) - (a.accuracy_pct ?? 0));
}
