// Sliders beside the two numbers: latency on a logarithmic scale over what was measured, accuracy on a linear one.

import { field } from "/page/question.js";

// A step is more than what its number is rounded by, so that an arrow key always moves both.
const LATENCY_STEPS = 200;
const ACCURACY_STEPS = 100;
let latencySpan = [1, 1000];
let accuracySpan = [0, 5];

export function fit(strategies) {
  const latencies = strategies.map((strategy) => strategy.percentile_s * 1e3);
  if (latencies.length) latencySpan = [Math.min(...latencies) / 2, Math.max(...latencies) * 2];
  const judged = strategies.filter((strategy) => strategy.accuracy_pct !== null);
  if (field("accuracy-kind").value === "floor") {
    const values = judged.map((strategy) => strategy.accuracy_pct);
    accuracySpan = values.length ? [Math.floor(Math.min(...values) - 1), Math.ceil(Math.max(...values) + 0.5)] : [0, 100];
  } else accuracySpan = [0, Math.max(1, ...judged.map((strategy) => Math.ceil((strategy.drop_pp ?? 0) * 1.25)))];
  follow();
}

// A slider at its loosest end says "no limit", an empty number; numbers have the steps before it.
export function follow() {
  const share = Math.log(Number(field("latency").value) / latencySpan[0]) / Math.log(latencySpan[1] / latencySpan[0]);
  field("latency-slider").value = field("latency").value === "" ? LATENCY_STEPS : place(share, LATENCY_STEPS - 1);
  field("latency-slider").setAttribute("aria-valuetext", field("latency").value ? `${field("latency").value} ms` : "no limit");
  const floor = field("accuracy-kind").value === "floor";
  const part = (Number(field("accuracy").value) - accuracySpan[0]) / (accuracySpan[1] - accuracySpan[0]);
  const end = floor ? 0 : ACCURACY_STEPS;
  field("accuracy-slider").value = field("accuracy").value === "" ? end : place(part, ACCURACY_STEPS - 1) + (floor ? 1 : 0);
  field("accuracy-slider").setAttribute("aria-valuetext", field("accuracy").value || "no limit");
}

function place(share, steps) {
  return Math.min(steps, Math.max(0, Math.round(steps * share)));
}

export function lead(slider) {
  const at = Number(slider.value);
  if (slider.id === "latency-slider") {
    const share = at / (LATENCY_STEPS - 1);
    field("latency").value = at === LATENCY_STEPS ? "" : Number((latencySpan[0] * (latencySpan[1] / latencySpan[0]) ** share).toPrecision(4));
  } else {
    const floor = field("accuracy-kind").value === "floor";
    const share = (at - (floor ? 1 : 0)) / (ACCURACY_STEPS - 1);
    field("accuracy").value = at === (floor ? 0 : ACCURACY_STEPS) ? "" : Number((accuracySpan[0] + share * (accuracySpan[1] - accuracySpan[0])).toFixed(2));
  }
  follow();
}
