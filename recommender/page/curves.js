// Latency against the bandwidth of one link: a curve per strategy, the fastest in bold, the asked rate, where the choice changes.

import { html, list, svg } from "/page/elements.js";
import { bitRate, duration, percentileName, strategyName } from "/page/words.js";

const MARGIN = { left: 58, right: 12, top: 12, bottom: 42 };

export function range(asked) {
  const value = Number(asked.replace(/mbit$/, ""));
  return { from: `${words(Math.min(1, value / 4))}`, to: `${words(Math.max(200, value * 4))}` };
}

export function draw(found, askedMbit, chosen, width) {
  const size = { width, height: Math.round(Math.min(360, Math.max(240, width * 0.42))) };
  const all = found.curves.flatMap((each) => each.points.map((point) => point.latency_s));
  const rates = found.curves[0].points.map((each) => each.bit_per_s);
  const x = scale(rates[0], rates[rates.length - 1], MARGIN.left, size.width - MARGIN.right);
  const y = scale(Math.min(...all) / 1.6, Math.max(...all) * 1.15, size.height - MARGIN.bottom, MARGIN.top);
  const root = svg("svg", { viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-labelledby": "curves-title curves-text" });
  root.append(svg("title", { id: "curves-title" }, `Latency against the bandwidth of ${found.link}`));
  root.append(svg("desc", { id: "curves-text" }, changes(found).join("; ")));
  root.append(axes(x, y, rates, all, size, found));
  const marked = found.curves.find((each) => chosen && each.operator === chosen.operator && each.placement === chosen.placement);
  if (marked) root.append(band(marked, x, y));
  for (const each of found.curves) root.append(curve(each, x, y, each.predicted ? "curve predicted" : "curve"));
  root.append(svg("path", { class: "best", d: path(fastest(found), x, y) }));
  if (marked) root.append(curve(marked, x, y, "curve marked"));
  for (const each of found.crossings) root.append(svg("circle", { class: "crossing", cx: x(each.bit_per_s), cy: y(each.latency_s), r: 5 }));
  const at = x(askedMbit * 1e6);
  root.append(svg("path", { class: "limit", d: `M${at} ${MARGIN.top}V${size.height - MARGIN.bottom}` }), ...names(found, marked, x, y, at, askedMbit));
  return root;
}

export function below(found, chosen) {
  const notes = changes(found).map((each) => each.charAt(0).toUpperCase() + each.slice(1));
  const left = found.unpredictable.map((each) => `No curve for ${strategyName(each)}: ${each.reason}`);
  return html("div", {}, list([...notes, ...left]), html("p", { class: "unit small" },
    `${percentileName(found.percentile)}; dashed: predicted; solid grey: ${found.link} is not on its route, measured; bold: the fastest at each rate; other links as measured`
    + (chosen ? "; green, with its 95 % interval: the recommended one." : ".")));
}

// The asked rate at the top, the recommended one at the left, and the fastest at the right where it is another.
function names(found, marked, x, y, at, askedMbit) {
  const middle = (x(found.curves[0].points[0].bit_per_s) + x(found.curves[0].points.at(-1).bit_per_s)) / 2;
  const left = at > middle;
  const shown = [svg("text", { class: "name", x: at + (left ? -6 : 6), y: MARGIN.top + 12, "text-anchor": left ? "end" : "start" }, `asked: ${bitRate(askedMbit * 1e6)}`)];
  if (x(found.curves[0].points.at(-1).bit_per_s) < 480) return shown;
  if (marked) shown.push(label(marked, 0, x, y, -7, "start"));
  const last = found.curves[0].points.length - 1;
  if (best(found, last) !== marked) shown.push(label(best(found, last), last, x, y, 16, "end"));
  return shown;
}

function label(each, index, x, y, down, anchor) {
  const at = each.points[index];
  const across = x(at.bit_per_s) + (anchor === "start" ? 6 : -2);
  return svg("text", { class: "name", x: across, y: y(at.latency_s) + down, "text-anchor": anchor }, strategyName(named(each)));
}

function changes(found) {
  const fixed = strategyName(named(best(found, 0)));
  if (!found.crossings.length) return [`the fastest is ${fixed} at every rate shown, by estimates`];
  return found.crossings.map((each) => `from ${bitRate(each.bit_per_s)} on ${spoken(each.above)} is faster than ${spoken(each.below)} (${duration(each.latency_s)})`);
}

function fastest(found) {
  const points = found.curves[0].points.map((_, index) => best(found, index).points[index]);
  return [...points, ...found.crossings].sort((a, b) => a.bit_per_s - b.bit_per_s);
}

function best(found, index) {
  return found.curves.reduce((a, b) => (b.points[index].latency_s < a.points[index].latency_s ? b : a));
}

function named(each) {
  return { operator: each.operator, placement: each.placement };
}

function spoken(name) {
  return name.replace("@", " on ");
}

function curve(each, x, y, style) {
  return svg("g", {}, svg("title", {}, strategyName(named(each))), svg("path", { class: style, d: path(each.points, x, y) }));
}

function band(each, x, y) {
  const known = each.points.filter((point) => point.low_s !== null && point.high_s !== null);
  if (known.length < 2) return svg("g");
  const there = known.map((point) => `${x(point.bit_per_s)} ${y(point.high_s)}`);
  const back = known.map((point) => `${x(point.bit_per_s)} ${y(point.low_s)}`).reverse();
  return svg("path", { class: "band", d: `M${[...there, ...back].join("L")}Z` });
}

function path(points, x, y) {
  return `M${points.map((each) => `${x(each.bit_per_s)} ${y(each.latency_s)}`).join("L")}`;
}

function axes(x, y, rates, values, size, found) {
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
  group.append(svg("text", { x: size.width - MARGIN.right, y: size.height - 6, "text-anchor": "end" }, `bandwidth of ${found.link}, bit/s, logarithmic →`));
  return group;
}

function decades(low, high, steps) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) for (const step of steps) found.push(step * 10 ** power);
  return found.filter((each) => each >= low * 0.999 && each <= high * 1.001);
}

function scale(low, high, start, end) {
  return (value) => start + ((end - start) * Math.log(value / low)) / Math.log(high / low);
}

function words(mbit) {
  return `${Math.max(0.001, Number(mbit.toFixed(3)))}mbit`;
}
