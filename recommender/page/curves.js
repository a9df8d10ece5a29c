// Latency against the bandwidth of one link: a curve per strategy, the fastest in bold, the requested rate, where the choice changes.

import { html, list, svg } from "/page/elements.js";
import { bitRate, duration, percentileName, strategyName } from "/page/words.js";

const MARGIN = { left: 58, right: 12, top: 12, bottom: 42 };

export function range(rate) {
  const value = Number(rate.replace(/mbit$/, ""));
  return { from: `${words(Math.min(1, value / 4))}`, to: `${words(Math.max(200, value * 4))}` };
}

export function draw(sweep, mbit, chosen, width) {
  const size = { width, height: Math.round(Math.min(360, Math.max(240, width * 0.42))) };
  const all = sweep.curves.flatMap((strategy) => strategy.points.map((point) => point.latency_s));
  const rates = sweep.curves[0].points.map((point) => point.bit_per_s);
  const x = scale(rates[0], rates[rates.length - 1], MARGIN.left, size.width - MARGIN.right);
  const y = scale(Math.min(...all) / 1.6, Math.max(...all) * 1.15, size.height - MARGIN.bottom, MARGIN.top);
  const root = svg("svg", { viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-labelledby": "curves-title curves-text" });
  root.append(svg("title", { id: "curves-title" }, `Latency against the bandwidth of ${sweep.link}`));
  root.append(svg("desc", { id: "curves-text" }, changes(sweep).join("; ")));
  root.append(axes(x, y, rates, all, size, sweep));
  const marked = sweep.curves.find((strategy) => chosen && strategy.operator === chosen.operator && strategy.placement === chosen.placement);
  if (marked) root.append(band(marked, x, y));
  for (const strategy of sweep.curves) root.append(curve(strategy, x, y, strategy.predicted ? "curve predicted" : "curve"));
  if (complete(sweep)) root.append(svg("path", { class: "best", d: path(fastest(sweep), x, y) }));
  if (marked) root.append(curve(marked, x, y, "curve marked"));
  for (const crossing of sweep.crossings) root.append(svg("circle", { class: "crossing", cx: x(crossing.bit_per_s), cy: y(crossing.latency_s), r: 5 }));
  const at = x(mbit * 1e6);
  root.append(svg("path", { class: "limit", d: `M${at} ${MARGIN.top}V${size.height - MARGIN.bottom}` }), ...names(sweep, marked, x, y, at, mbit));
  return root;
}

export function below(sweep, chosen) {
  const notes = changes(sweep).map((note) => note.charAt(0).toUpperCase() + note.slice(1));
  const left = sweep.unpredictable.map((strategy) => `No curve for ${strategyName(strategy)}: ${strategy.reason}`);
  return html("div", {}, list([...notes, ...left]), html("p", { class: "unit small" },
    `${percentileName(sweep.percentile)}; dashed: predicted; solid grey: ${sweep.link} is not on its route, measured; ${complete(sweep) ? "bold: the fastest at each rate; " : ""}other links as measured`
    + (chosen ? "; green, with its 95 % interval: the recommended one." : ".")));
}

// Label the requested rate at the top, the recommended strategy at the left, and the fastest at the right if it differs.
function names(sweep, marked, x, y, at, mbit) {
  const middle = (x(sweep.curves[0].points[0].bit_per_s) + x(sweep.curves[0].points.at(-1).bit_per_s)) / 2;
  const left = at > middle;
  const shown = [svg("text", { class: "name", x: at + (left ? -6 : 6), y: MARGIN.top + 12, "text-anchor": left ? "end" : "start" }, `asked: ${bitRate(mbit * 1e6)}`)];
  if (x(sweep.curves[0].points.at(-1).bit_per_s) < 480) return shown;
  if (marked) shown.push(label(marked, 0, x, y, -7, "start"));
  const last = sweep.curves[0].points.length - 1;
  if (complete(sweep) && best(sweep, last) !== marked) shown.push(label(best(sweep, last), last, x, y, 16, "end"));
  return shown;
}

function label(strategy, index, x, y, down, anchor) {
  const at = strategy.points[index];
  const across = x(at.bit_per_s) + (anchor === "start" ? 6 : -2);
  return svg("text", { class: "name", x: across, y: y(at.latency_s) + down, "text-anchor": anchor }, strategyName(named(strategy)));
}

// The fastest of a part of the measured strategies would not be the fastest.
function complete(sweep) {
  return !sweep.unpredictable.some((strategy) => strategy.measured);
}

function changes(sweep) {
  if (!complete(sweep)) return ["which is the fastest is open: not every measured strategy has a curve"];
  const fixed = strategyName(named(best(sweep, 0)));
  if (!sweep.crossings.length) return [`the fastest is ${fixed} at every rate shown, by estimates`];
  return sweep.crossings.map((crossing) => `from ${bitRate(crossing.bit_per_s)} on ${spoken(crossing.above)} is faster than ${spoken(crossing.below)} (${duration(crossing.latency_s)})`);
}

function fastest(sweep) {
  const points = sweep.curves[0].points.map((_, index) => best(sweep, index).points[index]);
  return [...points, ...sweep.crossings].sort((a, b) => a.bit_per_s - b.bit_per_s);
}

function best(sweep, index) {
  return sweep.curves.reduce((a, b) => (b.points[index].latency_s < a.points[index].latency_s ? b : a));
}

function named(strategy) {
  return { operator: strategy.operator, placement: strategy.placement };
}

function spoken(name) {
  return name.replace("@", " on ");
}

function curve(strategy, x, y, style) {
  return svg("g", {}, svg("title", {}, strategyName(named(strategy))), svg("path", { class: style, d: path(strategy.points, x, y) }));
}

function band(strategy, x, y) {
  const bounded = strategy.points.filter((point) => point.low_s !== null && point.high_s !== null);
  if (bounded.length < 2) return svg("g");
  const there = bounded.map((point) => `${x(point.bit_per_s)} ${y(point.high_s)}`);
  const back = bounded.map((point) => `${x(point.bit_per_s)} ${y(point.low_s)}`).reverse();
  return svg("path", { class: "band", d: `M${[...there, ...back].join("L")}Z` });
}

function path(points, x, y) {
  return `M${points.map((point) => `${x(point.bit_per_s)} ${y(point.latency_s)}`).join("L")}`;
}

function axes(x, y, rates, values, size, sweep) {
  const group = svg("g");
  const base = size.height - MARGIN.bottom;
  const few = Math.log10(rates[rates.length - 1] / rates[0]) > 2 || size.width < 500 ? [1] : [1, 2, 5];
  for (const rate of decades(rates[0], rates[rates.length - 1], few)) {
    group.append(svg("path", { class: "grid", d: `M${x(rate)} ${MARGIN.top}V${base}` }));
    group.append(svg("text", { class: "soft", x: x(rate), y: base + 16, "text-anchor": "middle" }, bitRate(rate).replace("bit/s", "")));
  }
  for (const value of decades(Math.min(...values) / 1.6, Math.max(...values) * 1.15, [1, 2, 5])) {
    group.append(svg("path", { class: "grid", d: `M${MARGIN.left} ${y(value)}H${size.width - MARGIN.right}` }));
    group.append(svg("text", { class: "soft", x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, duration(value)));
  }
  group.append(svg("path", { class: "axis", fill: "none", d: `M${MARGIN.left} ${MARGIN.top}V${base}H${size.width - MARGIN.right}` }));
  group.append(svg("text", { x: size.width - MARGIN.right, y: size.height - 6, "text-anchor": "end" }, `bandwidth of ${sweep.link}, bit/s, logarithmic →`));
  return group;
}

function decades(low, high, steps) {
  const marks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) for (const step of steps) marks.push(step * 10 ** power);
  return marks.filter((mark) => mark >= low * 0.999 && mark <= high * 1.001);
}

function scale(low, high, start, end) {
  return (value) => start + ((end - start) * Math.log(value / low)) / Math.log(high / low);
}

function words(mbit) {
  return `${Math.max(0.001, Number(mbit.toFixed(3)))}mbit`;
}
