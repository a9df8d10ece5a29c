// Latency against accuracy: every measured strategy and how sure it is, the region within the budgets, the Pareto front.

import { svg } from "/page/elements.js";
import { duration, howSure, interval, percent, percentileName, strategyName } from "/page/words.js";

const KINDS = { mobile: "mobile alone", edge: "edge", cloud: "cloud", split: "split over two tiers" };
// The shape says where a strategy computes, its filling how sure it is.
const STATUSES = { proven: "proven", likely: "likely", open: "open", estimated: "estimated", misses: "misses a budget" };
const MARGIN = { left: 52, right: 14, top: 14, bottom: 44 };

export function draw(strategies, answer, width) {
  const placed = strategies.filter((strategy) => strategy.accuracy_pct !== null);
  const size = { width, height: Math.round(Math.min(440, Math.max(300, width * 0.52))) };
  const limits = budgets(placed, answer);
  const spread = answer.recommendation && interval(answer.recommendation.latency);
  const scales = scaled(placed, limits, spread, size);
  const best = placed.find((strategy) => same(strategy, answer.recommendation));
  const root = svg("svg", { viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-labelledby": "chart-title chart-text" });
  root.append(svg("title", { id: "chart-title" }, "Latency against accuracy of the strategies"));
  root.append(svg("desc", { id: "chart-text" }, inWords(placed, limits, best)));
  root.append(region(limits, scales, size), axes(scales, size, placed, answer), front(placed, scales));
  for (const strategy of [...placed].reverse()) root.append(point(strategy, scales));
  if (best) root.append(chosen(best, spread, scales, size));
  return root;
}

export function legend(strategies, bounded) {
  const predicted = strategies.some((strategy) => strategy.predicted);
  const marks = Object.entries(KINDS).map(([kind, words]) => [svg("g", { class: kind }, shape(kind, 8, 8, "point proven")), words]);
  const statuses = Object.keys(STATUSES).filter((status) => bounded && strategies.some((strategy) => strategy.status === status));
  for (const status of statuses) marks.push([svg("g", { class: "split" }, ...marked("mobile", status, 8, 8)), STATUSES[status]]);
  if (predicted) marks.push([svg("g", { class: "edge" }, svg("circle", { class: "foreseen", cx: 8, cy: 8, r: 7 }), shape("edge", 8, 8, "point proven")), "ringed: predicted"]);
  marks.push([svg("path", { d: "M1 12H7V4H15", class: "front" }), "Pareto front"]);
  marks.push([svg("rect", { x: 1, y: 1, width: 14, height: 14, class: "region" }), "within the budgets"]);
  return marks.map(([mark, words]) => {
    const item = document.createElement("li");
    item.append(svg("svg", { viewBox: "0 0 16 16" }, mark), words);
    return item;
  });
}

export function budgets(placed, answer) {
  const requested = answer.budgets ?? {};
  const percentile = placed[0] ? answer.shown_percentile : null;
  const latency = (requested.latency ?? []).filter((limit) => limit.percentile === percentile).map((limit) => limit.max_s);
  const identity = placed.find((strategy) => strategy.drop_pp !== null);
  const floors = [requested.min_accuracy_pct ?? null];
  if (identity && typeof requested.max_accuracy_drop_pp === "number") {
    floors.push(identity.accuracy_pct + identity.drop_pp - requested.max_accuracy_drop_pp);
  }
  const declared = floors.filter((floor) => floor !== null);
  return { latency: latency.length ? Math.min(...latency) : null, accuracy: declared.length ? Math.max(...declared) : null };
}

function scaled(placed, limits, spread, size) {
  const times = [...placed.map((strategy) => strategy.percentile_s), ...(limits.latency === null ? [] : [limits.latency])];
  if (spread) times.push(spread.low, spread.high);
  const low = Math.log10(Math.min(...times)) - 0.12;
  const high = Math.log10(Math.max(...times)) + 0.15;
  const values = placed.map((strategy) => strategy.accuracy_pct);
  const range = Math.max(1, Math.max(...values) - Math.min(...values));
  const near = limits.accuracy !== null && limits.accuracy > Math.min(...values) - 2 * range && limits.accuracy < Math.max(...values) + 2 * range;
  if (near) values.push(limits.accuracy);
  const pad = 0.14 * Math.max(1, Math.max(...values) - Math.min(...values));
  const bottom = Math.min(...values) - pad, top = Math.min(101, Math.max(...values) + pad);
  const inner = { width: size.width - MARGIN.left - MARGIN.right, height: size.height - MARGIN.top - MARGIN.bottom };
  return {
    low, high, bottom, top,
    x: (seconds) => MARGIN.left + (inner.width * (Math.log10(seconds) - low)) / (high - low),
    y: (value) => MARGIN.top + (inner.height * (top - value)) / (top - bottom),
  };
}

function region(limits, { x, y }, size) {
  const right = limits.latency === null ? size.width - MARGIN.right : clamp(x(limits.latency), MARGIN.left, size.width - MARGIN.right);
  const floor = limits.accuracy === null ? size.height - MARGIN.bottom : clamp(y(limits.accuracy), MARGIN.top, size.height - MARGIN.bottom);
  const group = svg("g", {}, svg("rect", {
    class: "region", x: MARGIN.left, y: MARGIN.top, width: right - MARGIN.left, height: floor - MARGIN.top,
  }));
  if (limits.latency !== null) group.append(svg("path", { class: "limit", d: `M${right} ${MARGIN.top}V${size.height - MARGIN.bottom}` }));
  if (limits.accuracy !== null) group.append(svg("path", { class: "limit", d: `M${MARGIN.left} ${floor}H${size.width - MARGIN.right}` }));
  return group;
}

function axes({ low, high, bottom, top, x, y }, size, placed, answer) {
  const group = svg("g");
  const base = size.height - MARGIN.bottom;
  let last = -99;
  for (const seconds of ticks(low, high)) {
    if (x(seconds) - last < 44) continue;
    last = x(seconds);
    group.append(svg("path", { class: "grid", d: `M${last} ${MARGIN.top}V${base}` }));
    group.append(svg("text", { class: "soft", x: last, y: base + 17, "text-anchor": "middle" }, duration(seconds)));
  }
  for (const value of levels(bottom, top)) {
    group.append(svg("path", { class: "grid", d: `M${MARGIN.left} ${y(value)}H${size.width - MARGIN.right}` }));
    group.append(svg("text", { class: "soft", x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, String(value)));
  }
  group.append(svg("path", { class: "axis", fill: "none", d: `M${MARGIN.left} ${MARGIN.top}V${base}H${size.width - MARGIN.right}` }));
  const metric = placed[0]?.metric ?? "accuracy";
  group.append(svg("text", { x: size.width - MARGIN.right, y: size.height - 8, "text-anchor": "end" },
    `${percentileName(answer.shown_percentile)} latency, logarithmic →`));
  group.append(svg("text", { x: 4, y: size.height - 8 }, `↑ ${metric}, %`));
  return group;
}

function front(placed, { x, y }) {
  const members = placed.filter((strategy) => strategy.pareto).sort((a, b) => a.percentile_s - b.percentile_s);
  const steps = members.map((strategy, index) => index === 0 ? `M${x(strategy.percentile_s)} ${y(strategy.accuracy_pct)}`
    : `H${x(strategy.percentile_s)}V${y(strategy.accuracy_pct)}`);
  return svg("path", { class: "front", d: steps.join("") });
}

function point(strategy, { x, y }) {
  const sure = strategy.status === "misses" ? STATUSES.misses : howSure(strategy.status, strategy.probability);
  const words = `${strategyName(strategy)}: ${duration(strategy.percentile_s)}${strategy.predicted ? ", predicted" : ""}, ${percent(strategy.accuracy_pct)}, ${sure}`;
  const marks = marked(kind(strategy), strategy.status, x(strategy.percentile_s), y(strategy.accuracy_pct));
  const ring = strategy.predicted ? svg("circle", { class: "foreseen", cx: x(strategy.percentile_s), cy: y(strategy.accuracy_pct), r: 8.5 }) : null;
  return svg("g", { class: kind(strategy) }, svg("title", {}, words), ring, ...marks);
}

// An open one has a dot in its middle, so that it is told from one that misses without colour.
function marked(name, status, x, y) {
  const dot = status === "open" ? [svg("circle", { class: "dot", cx: x, cy: y, r: 1.8 })] : [];
  return [shape(name, x, y, `point ${status}`), ...dot];
}

function chosen(best, spread, { x, y }, size) {
  const [across, down] = [x(best.percentile_s), y(best.accuracy_pct)];
  const group = svg("g");
  if (spread) group.append(svg("path", { class: "whisker", d: `M${x(spread.low)} ${down}H${x(spread.high)}` }));
  group.append(svg("circle", { class: "halo", cx: across, cy: down, r: 11 }));
  const left = across > size.width / 2;
  group.append(svg("text", { class: "name", x: clamp(across + (left ? -14 : -4), MARGIN.left + 4, size.width), y: down < 60 ? down + 28 : down - 18,
    "text-anchor": left ? "end" : "start" }, strategyName(best)));
  return group;
}

function shape(name, x, y, style) {
  if (name === "mobile") return svg("circle", { class: style, cx: x, cy: y, r: 5 });
  if (name === "edge") return svg("rect", { class: style, x: x - 4.5, y: y - 4.5, width: 9, height: 9 });
  if (name === "cloud") return svg("path", { class: style, d: `M${x} ${y - 6}L${x + 6} ${y + 5}H${x - 6}Z` });
  return svg("path", { class: style, d: `M${x} ${y - 6}L${x + 6} ${y}L${x} ${y + 6}L${x - 6} ${y}Z` });
}

function inWords(placed, limits, best) {
  const within = placed.filter((strategy) => (limits.latency === null || strategy.percentile_s <= limits.latency)
    && (limits.accuracy === null || strategy.accuracy_pct >= limits.accuracy - 1e-9)).length;
  const members = placed.filter((strategy) => strategy.pareto).map(strategyName).join(", ");
  const foreseen = placed.filter((strategy) => strategy.predicted).length;
  const source = foreseen ? `${foreseen} of ${placed.length} latencies are predicted, the others measured. ` : "";
  return source + `${within} of ${placed.length} strategies lie within the budgets. Pareto front: ${members}. `
    + (best ? `Recommended: ${strategyName(best)}, ${howSure(best.status, best.probability)}.` : "None is recommended.") + " The table below has every number.";
}

function kind(strategy) {
  return strategy.placement in KINDS ? strategy.placement : "split";
}

function same(strategy, other) {
  return other && strategy.operator === other.operator && strategy.placement === other.placement;
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

function ticks(low, high) {
  const marks = [];
  for (let power = Math.floor(low); power <= high; power += 1) {
    for (const step of high - low > 2 ? [1] : [1, 2, 5]) marks.push(step * 10 ** power);
  }
  return marks.filter((mark) => Math.log10(mark) >= low && Math.log10(mark) <= high);
}

function levels(bottom, top) {
  const rough = (top - bottom) / 5;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((width) => width >= rough);
  const marks = [];
  for (let index = Math.ceil(bottom / step); index * step <= top; index += 1) marks.push(Number((index * step).toPrecision(8)));
  return marks;
}
