// Numbers and names in words, the same in the chart, the answer and the tables; figures as catalog/units.py prints them.

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0) return `-${duration(-seconds)}`;
  if (seconds < 0.9995) return `${Number((seconds * 1e3).toPrecision(3))} ms`;
  if (seconds < 59.995) return `${seconds.toFixed(2).replace(".00", "")} s`;
  if (!(seconds < 1e7)) return `${Number(seconds.toPrecision(3))} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
}

export function percent(value) {
  return value === null || value === undefined ? "–" : `${value.toFixed(2)} %`;
}

export function points(value) {
  return value === null || value === undefined ? "–" : `${(Math.abs(value) < 0.005 ? 0 : value).toFixed(2)} pp`;
}

// Of the outputs against identity's, as a relative error; the mark is a warning.
export function difference(distance) {
  if (distance === null) return "–";
  const error = distance.relative_error;
  const share = error === null ? "not finite" : `${error >= 0.0995 ? (100 * error).toFixed(0) : Number((100 * error).toPrecision(2))} %`;
  return distance.warning ? `${share} !` : share;
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  for (const [unit, factor, digits] of [["GiB", 2 ** 30, 2], ["MiB", 2 ** 20, 2], ["KiB", 2 ** 10, 1]]) {
    if (value >= factor) return `${(value / factor).toFixed(digits).replace(/\.0+$/, "")} ${unit}`;
  }
  return `${Math.round(value)} B`;
}

export function bitRate(value) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) if (value >= size * 0.9995) return `${Number((value / size).toPrecision(3))} ${unit}bit/s`;
  return `${Math.round(value)} bit/s`;
}

export function strategyName(strategy) {
  if (typeof strategy === "string") return strategy;
  if (strategy?.operator) return `${strategy.operator} on ${strategy.placement}`;
  return strategy?.strategy ? strategyName(strategy.strategy) : (strategy?.name ?? strategy?.id ?? "a strategy");
}

// How sure it is that all budgets hold, as recommender/answer/wording.py says it; rounded down, for no estimate is a certainty.
export function chance(probability) {
  if (probability > 0.999) return "> 99.9 %";
  if (probability < 0.01) return "< 1 %";
  const whole = Math.floor(100 * probability + 1e-9);
  return whole < 99 ? `${whole} %` : `${(Math.floor(1000 * probability + 1e-9) / 10).toFixed(1)} %`;
}

export function howSure(status, probability) {
  return ["proven", "estimated"].includes(status) || probability === null ? status : `${status}, ${chance(probability)}`;
}

export function percentileName(percentile) {
  return `p${Number(percentile)}`;
}

// Without an interval, because too little was measured, the spread over the rounds is described.
export function interval(latency) {
  if (latency.low_s !== null && latency.high_s !== null) return { low: latency.low_s, high: latency.high_s, kind: latency.predicted ? "95 % interval, the model's error included" : "95 % interval" };
  const rounds = latency.percentile_s_by_round;
  if (rounds.length < 2) return null;
  return { low: Math.min(...rounds), high: Math.max(...rounds), kind: `lowest to highest of ${rounds.length} rounds` };
}
