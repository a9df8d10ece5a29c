// The question: in the form, in the address, and as the service expects it.

import { html } from "/page/elements.js";
import * as links from "/page/links.js";

const form = document.getElementById("question");
export const field = (name) => document.getElementById(name);
const FIELDS = ["subject", "slo", "latency", "percentile", "accuracy", "accuracy-kind", "objective", "confidence", "raw", "environment"];
const DEFAULTS = { percentile: "90", "accuracy-kind": "drop", objective: "latency", confidence: "95" };
const TIERS = "tiers";
let allowed = null;

export function fromAddress() {
  const params = new URLSearchParams(location.search);
  const unknown = [...params.keys()].filter((name) => !FIELDS.includes(name) && name !== TIERS && !links.isParameter(name));
  // A budget that is ignored in silence would make another question of it.
  const faults = unknown.map((name) => `this page knows no “${name}”; allowed: ${[...FIELDS, TIERS].join(", ")} and ${links.PARAMETER}`).slice(0, 1);
  for (const name of FIELDS) {
    const value = params.get(name) ?? DEFAULTS[name] ?? "";
    // A name that nobody knows stays in the question: the service refuses it, and no other question is answered instead.
    if (field(name).tagName === "SELECT" && value !== "") withOption(name, value);
    const number = field(name).type !== "number" || Number.isFinite(Number(value));
    if (value !== "" || name !== "subject") field(name).value = number ? value : "";
    if (!number) faults.push(`“${name}” takes a number alone, got “${value}”`);
  }
  allowed = params.get(TIERS)?.split(",") ?? null;
  if (faults.length > 0) throw new Error(`The address cannot be read: ${faults.join("; ")}. Nothing was asked yet: correct the address, or change the question.`);
}

// One box per tier of the subject, checked unless the question leaves it out.
export function showTiers(names) {
  const shown = [...new Set([...names, ...(allowed ?? [])])];
  choices(field("raw"), shown);
  field("tiers-field").hidden = shown.length < 2;
  const boxes = shown.map((name) => {
    const box = html("input", { type: "checkbox", name: "tier", value: name });
    box.checked = allowed === null || allowed.includes(name);
    return html("label", { class: "box" }, box, name);
  });
  field("tiers").replaceChildren(...boxes);
}

export function readTiers() {
  const boxes = [...field("tiers").querySelectorAll("input")];
  allowed = boxes.every((box) => box.checked) ? null : boxes.filter((box) => box.checked).map((box) => box.value);
}

export function allTiers() {
  allowed = null;
}

export function address() {
  const shown = new URLSearchParams();
  const slo = field("slo").value !== "";
  for (const name of FIELDS) {
    const value = field(name).value;
    if (slo && ["latency", "percentile", "accuracy", "accuracy-kind"].includes(name)) continue;
    if (value !== "" && value !== DEFAULTS[name]) shown.set(name, value);
  }
  if (allowed !== null) shown.set(TIERS, allowed.join(","));
  links.address(shown);
  return `${location.pathname}?${shown}`;
}

export function request() {
  const body = { subject: field("subject").value, objective: field("objective").value };
  if (field("confidence").value !== DEFAULTS.confidence) body.confidence = Number((Number(field("confidence").value) / 100).toPrecision(6));
  if (field("raw").value) body.keep_raw_input_on = field("raw").value;
  if (allowed !== null) body.allow_tiers = allowed;
  if (field("environment").value) body.environment = field("environment").value;
  if (Object.keys(links.rates()).length) body.links = links.rates();
  if (field("slo").value) return { ...body, slo: field("slo").value };
  body.latency_percentile = Number(field("percentile").value);
  if (field("latency").value !== "") body.max_latency_s = Number((Number(field("latency").value) / 1e3).toPrecision(12));  // 13.8 / 1e3 is 0.013800000000000002
  const budget = field("accuracy-kind").value === "drop" ? "max_accuracy_drop_pp" : "min_accuracy_pct";
  if (field("accuracy").value !== "") body[budget] = Number(field("accuracy").value);
  return body;
}

// The form holds one budget of latency and one of accuracy: a change beyond those cannot be taken up here.
export function canTake(change, budgets) {
  const fits = budgets.latency.length < 2 && (budgets.min_accuracy_pct === null || budgets.max_accuracy_drop_pp === null);
  return fits && ["max_latency_s", "max_accuracy_drop_pp", "min_accuracy_pct"].includes(change.field);
}

// The question's budgets as the form's own, also where an SLO gave them, with one of them changed.
export function take(change, budgets) {
  const limits = { max_latency_s: budgets.latency[0]?.max_s ?? null, max_accuracy_drop_pp: budgets.max_accuracy_drop_pp,
    min_accuracy_pct: budgets.min_accuracy_pct, [change.field]: change.to_value };
  field("slo").value = "";
  field("latency").value = limits.max_latency_s === null ? "" : Number((limits.max_latency_s * 1e3).toPrecision(12));
  field("accuracy-kind").value = limits.min_accuracy_pct === null ? "drop" : "floor";
  field("accuracy").value = limits.min_accuracy_pct ?? limits.max_accuracy_drop_pp ?? "";
}

export function choices(select, values, words = (value) => value) {
  const before = select.value;
  for (const value of values) if (!has(select, value)) select.add(new Option(words(value), value));
  if (has(select, before)) select.value = before;
}

export function showSlo(slos) {
  const chosen = slos.find((slo) => slo.name === field("slo").value);
  for (const name of ["latency", "latency-slider", "percentile", "accuracy", "accuracy-slider", "accuracy-kind"]) {
    field(name).disabled = chosen !== undefined;
  }
  if (chosen === undefined) return;
  const latency = [...chosen.latency].sort((a, b) => b.percentile - a.percentile)[0];
  field("latency").value = latency ? Number((latency.max_s * 1e3).toPrecision(6)) : "";
  if (latency) withOption("percentile", String(latency.percentile)), (field("percentile").value = String(latency.percentile));
  const floor = chosen.min_accuracy_pct !== null && chosen.max_accuracy_drop_pp === null;
  field("accuracy-kind").value = floor ? "floor" : "drop";
  field("accuracy").value = (floor ? chosen.min_accuracy_pct : chosen.max_accuracy_drop_pp) ?? "";
}

export function valid() {
  return [...form.elements].every((element) => element.disabled || element.checkValidity());
}

function withOption(name, value) {
  const words = { percentile: `p${value}`, confidence: `${value} %`, slo: `SLO ${value}` }[name] ?? value;
  if (!has(field(name), value)) field(name).add(new Option(words, value));
}

function has(select, value) {
  return [...select.options].some((option) => option.value === value);
}
