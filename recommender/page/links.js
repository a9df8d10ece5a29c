// One number and one slider per link of the subject: empty means as measured. The words are those of the catalog file.

import { ask } from "/page/api.js";
import { html } from "/page/elements.js";
import { field } from "/page/question.js";
import { bitRate } from "/page/words.js";

// A step is more than what its number is rounded by, so that an arrow key always moves both.
const STEPS = 200;
const [LOWEST, HIGHEST] = [0.5, 1000];
const PREFIX = "link.";
let shownFor = null;
let wanted = fromAddress();
let last = Object.keys(wanted)[0] ?? null;

export function reread() {
  wanted = fromAddress();
  shownFor = null;
}

export async function show(subject, environment) {
  const key = `${subject} ${environment}`;
  if (key === shownFor) return;
  if (shownFor !== null && shownFor.split(" ")[0] !== subject) wanted = {};
  const { links } = await ask("/links", { query: { subject, environment } });
  field("links").replaceChildren(...links.map(control));
  field("links-field").hidden = links.length === 0;
  shownFor = key;
  follow();
}

export function asked() {
  const found = {};
  for (const each of inputs()) if (each.value !== "") found[each.dataset.link] = words(each.value);
  return found;
}

export function address(params) {
  for (const [link, rate] of Object.entries(asked())) params.set(PREFIX + link, rate);
}

// The link whose curves are worth showing: the one that was moved last.
export function current() {
  const now = Object.keys(asked());
  return now.includes(last) ? last : (now[0] ?? null);
}

export function lead(control) {
  last = control.dataset.link;
  if (control.type === "range") {
    const value = LOWEST * (HIGHEST / LOWEST) ** (Number(control.value) / STEPS);
    number(last).value = Number(value.toPrecision(3));
  }
  follow();
}

export function reset() {
  for (const each of inputs()) each.value = "";
  follow();
}

function follow() {
  wanted = asked();
  for (const each of inputs()) {
    const slider = field("links").querySelector(`input[type="range"][data-link="${CSS.escape(each.dataset.link)}"]`);
    const value = each.value === "" ? Number(each.dataset.declared) / 1e6 : Number(each.value);
    if (value > 0) slider.value = Math.round((STEPS * Math.log(value / LOWEST)) / Math.log(HIGHEST / LOWEST));
    slider.setAttribute("aria-valuetext", each.value === "" ? "as measured" : `${each.value} megabits per second, predicted`);
  }
  field("links-reset").disabled = Object.keys(wanted).length === 0;
}

function control(each, index) {
  const id = `link-${index}`;
  const declared = each.declared_bit_per_s;
  const rate = declared === null ? "measured" : Number((declared / 1e6).toPrecision(4));
  const shared = { "data-link": each.link, "data-declared": declared ?? 10e6 };
  const input = html("input", { id, type: "number", min: 0.01, max: 100000, step: "any", inputmode: "decimal", placeholder: rate, ...shared });
  if (each.link in wanted) input.value = megabits(wanted[each.link]);
  const measured = each.measured_bit_per_s.map(bitRate).join(", ") || "rate unknown";
  return html("div", { class: "field" }, html("label", { for: id }, each.link, html("span", { class: "unit" }, " (Mbit/s)")),
    html("div", { class: "pair" }, input,
      html("input", { type: "range", min: 0, max: STEPS, step: 1, "aria-label": `Bandwidth of ${each.link}, slider`, ...shared })),
    html("span", { class: "unit small" }, `measured at ${measured}`));
}

function inputs() {
  return [...field("links").querySelectorAll('input[type="number"]')];
}

function number(link) {
  return inputs().find((each) => each.dataset.link === link);
}

function words(value) {
  return `${Number(Number(value).toFixed(3))}mbit`;
}

function megabits(text) {
  const found = /^([0-9.]+)\s?([kmg])bit(\/s)?$/i.exec(text);
  return found ? Number(found[1]) * { k: 1e-3, m: 1, g: 1e3 }[found[2].toLowerCase()] : "";
}

function fromAddress() {
  const given = [...new URLSearchParams(location.search)].filter(([name]) => name.startsWith(PREFIX));
  return Object.fromEntries(given.map(([name, rate]) => [name.slice(PREFIX.length), rate]));
}
