// The strategies of an answer as rows, fastest first, whatever came of each; the Pareto front among them.

export function rows(answer) {
  const all = [answer.recommendation, ...answer.alternatives, ...answer.near_misses, ...answer.undecided];
  const found = all.filter(Boolean).map((each) => ({
    operator: each.operator, placement: each.placement, latency: each.latency, predicted: each.latency.predicted ?? false,
    percentile: each.latency.percentile, percentile_s: each.latency.percentile_s, median_s: each.latency.median_s,
    metric: each.accuracy?.metric ?? null, accuracy_pct: each.accuracy?.accuracy_pct ?? null,
    drop_pp: each.accuracy?.drop_pp ?? null, size_bytes: each.size_bytes, sent_bytes: each.sent_bytes, pareto: false,
  }));
  found.sort((a, b) => a.percentile_s - b.percentile_s || (b.accuracy_pct ?? 0) - (a.accuracy_pct ?? 0));
  markFront(found.filter((each) => each.accuracy_pct !== null));
  return found;
}

function markFront(ordered) {
  let best = null;
  for (const each of ordered) {
    const equal = best !== null && each.percentile_s === best.percentile_s && each.accuracy_pct === best.accuracy_pct;
    if (best !== null && each.accuracy_pct <= best.accuracy_pct && !equal) continue;
    each.pareto = true;
    best = each;
  }
}
