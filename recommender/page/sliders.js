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

// A slider at its end says "no limit" when the number is empty.
export function follow() {
  const latency = field("latency").value === "" ? latencySpan[1] : Number(field("latency").value);
  const place = Math.log(latency / latencySpan[0]) / Math.log(latencySpan[1] / latencySpan[0]);
  field("latency-slider").value = Math.round(LATENCY_STEPS * place);
  field("latency-slider").setAttribute("aria-valuetext", field("latency").value ? `${field("latency").value} ms` : "no limit");
  const loosest = field("accuracy-kind").value === "floor" ? accuracySpan[0] : accuracySpan[1];
  const accuracy = field("accuracy").value === "" ? loosest : Number(field("accuracy").value);
  field("accuracy-slider").value = Math.round((ACCURACY_STEPS * (accuracy - accuracySpan[0])) / (accuracySpan[1] - accuracySpan[0]));
  field("accuracy-slider").setAttribute("aria-valuetext", field("accuracy").value || "no limit");
}

// The loosest end of a slider is no limit at all: an empty number.
export function lead(slider) {
  if (slider.id === "latency-slider") {
    const share = Number(slider.value) / LATENCY_STEPS;
    field("latency").value = share === 1 ? "" : Number((latencySpan[0] * (latencySpan[1] / latencySpan[0]) ** share).toPrecision(4));
  } else {
    const share = Number(slider.value) / ACCURACY_STEPS;
    const end = field("accuracy-kind").value === "floor" ? 0 : 1;
    field("accuracy").value = share === end ? "" : Number((accuracySpan[0] + share * (accuracySpan[1] - accuracySpan[0])).toFixed(2));
  }
  follow();
}
