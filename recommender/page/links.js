// One number and one slider per link of the subject: empty means as measured. The words are those of the catalog file.

import { ask } from "/page/api.js";
import { html } from "/page/elements.js";
import { field } from "/page/question.js";
import { bitRate } from "/page/words.js";

// A step is more than what its number is rounded by, so that an arrow key always moves both.
const STEPS = 200;
const [LOWEST, HIGHEST] = [0.5, 1000];
const PREFIX = "link.";
export const PARAMETER = `${PREFIX}NAME`;
let shownFor = null;
let chosen = fromAddress();
let last = Object.keys(chosen)[0] ?? null;

export function reread() {
  chosen = fromAddress();
  shownFor = null;
}

export function isParameter(name) {
  return name.startsWith(PREFIX);
}

export async function show(subject, environment) {
  const key = `${subject} ${environment}`;
  if (key === shownFor) return;
  if (shownFor !== null && shownFor.split(" ")[0] !== subject) chosen = {};
  const { links } = await ask("/links", { query: { subject, environment } });
  if (shownFor === null) refuse(links.map((link) => link.link));
  field("links").replaceChildren(...links.map(control));
  field("links-field").hidden = links.length === 0;
  shownFor = key;
  follow();
}

// Those of the address, once it is known which links there are; what is wrong is left out of the next question.
function refuse(names) {
  for (const [name, rate] of Object.entries(chosen)) {
    const fault = !names.includes(name) ? `there is no link “${name}”; allowed: ${names.join(", ") || "none"}`
      : megabits(rate) === "" ? `“${PREFIX}${name}” takes a bandwidth such as 10mbit, got “${rate}”` : null;
    if (fault === null) continue;
    delete chosen[name];
    throw new Error(`The address cannot be read: ${fault}. Nothing was asked yet: correct the address, or change the question.`);
  }
}

export function rates() {
  const byLink = {};
  for (const input of inputs()) if (input.value !== "") byLink[input.dataset.link] = words(input.value);
  return byLink;
}

export function address(params) {
  for (const [link, rate] of Object.entries(rates())) params.set(PREFIX + link, rate);
}

// The link whose curves are worth showing: the one that was moved last.
export function current() {
  const now = Object.keys(rates());
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
  for (const input of inputs()) input.value = "";
  follow();
}

function follow() {
  chosen = rates();
  for (const input of inputs()) {
    const slider = field("links").querySelector(`input[type="range"][data-link="${CSS.escape(input.dataset.link)}"]`);
    const value = input.value === "" ? Number(input.dataset.declared) / 1e6 : Number(input.value);
    if (value > 0) slider.value = Math.round((STEPS * Math.log(value / LOWEST)) / Math.log(HIGHEST / LOWEST));
    slider.setAttribute("aria-valuetext", input.value === "" ? "as measured" : `${input.value} megabits per second, predicted`);
  }
  field("links-reset").disabled = Object.keys(chosen).length === 0;
}

function control(link, index) {
  const id = `link-${index}`;
  const declared = link.declared_bit_per_s;
  const rate = declared === null ? "measured" : Number((declared / 1e6).toPrecision(4));
  const shared = { "data-link": link.link, "data-declared": declared ?? 10e6 };
  const input = html("input", { id, type: "number", min: 0.01, max: 100000, step: "any", inputmode: "decimal", placeholder: rate, ...shared });
  if (link.link in chosen) input.value = megabits(chosen[link.link]);
  // A real link was not shaped: what it carried varies, and how much is part of what is known of it.
  const measured = link.real ? `${bitRate(link.real.bit_per_s)} (${bitRate(link.real.least_bit_per_s)} to ${bitRate(link.real.most_bit_per_s)}), a real link`
    : link.measured_bit_per_s.map(bitRate).join(", ") || "rate unknown";
  return html("div", { class: "field" }, html("label", { for: id }, link.link, html("span", { class: "unit" }, " (Mbit/s)")),
    html("div", { class: "pair" }, input,
      html("input", { type: "range", min: 0, max: STEPS, step: 1, "aria-label": `Bandwidth of ${link.link}, slider`, ...shared })),
    html("span", { class: "unit small" }, `measured at ${measured}`));
}

function inputs() {
  return [...field("links").querySelectorAll('input[type="number"]')];
}

function number(link) {
  return inputs().find((input) => input.dataset.link === link);
}

function words(value) {
  return `${Number(Number(value).toFixed(3))}mbit`;
}

function megabits(text) {
  const match = /^([0-9.]+)\s?([kmg])bit(\/s)?$/i.exec(text);
  return match ? Number(match[1]) * { k: 1e-3, m: 1, g: 1e3 }[match[2].toLowerCase()] : "";
}

function fromAddress() {
  const pairs = [...new URLSearchParams(location.search)].filter(([name]) => name.startsWith(PREFIX));
  return Object.fromEntries(pairs.map(([name, rate]) => [name.slice(PREFIX.length), rate]));
}
