// The page: reads the address, asks the service, shows the answer; every change of the form is a new question.

import { details, questionWords, verdict } from "/page/answer.js";
import { ask, KeyWanted, useKey } from "/page/api.js";
import { draw, legend } from "/page/chart.js";
import * as curves from "/page/curves.js";
import { html, prose } from "/page/elements.js";
import * as links from "/page/links.js";
import * as question from "/page/question.js";
import * as sliders from "/page/sliders.js";
import { rows } from "/page/standing.js";

const { field } = question;
const OBJECTIVES = { latency: "fastest", cpu: "least CPU on mobile", accuracy: "most accurate", size: "smallest", sent: "least data sent" };
let subjects = [];
let slos = [];
let asking = null;
let shown = null;
let waiting = 0;

async function start() {
  const [evidence, targets, api] = await Promise.all([ask("/subjects"), ask("/slos"), ask("/openapi.json")]);
  subjects = evidence.subjects;
  slos = targets.slos;
  question.choices(field("subject"), subjects.map((entry) => entry.subject));
  question.choices(field("slo"), slos.map((entry) => entry.name), (name) => `SLO ${name}`);
  question.choices(field("objective"), objectives(api), (name) => OBJECTIVES[name] ?? name.replaceAll("_", " "));
  question.fromAddress();
  await answer();
}

function objectives(api) {
  const property = api.components.schemas.RecommendRequest.properties.objective ?? {};
  const schema = property.$ref ? api.components.schemas[property.$ref.split("/").pop()] : property;
  return schema.enum ?? ["latency", "accuracy"];
}

async function answer() {
  question.showSlo(slos);
  environments();
  question.showTiers(subjects.find((entry) => entry.subject === field("subject").value)?.tiers ?? []);
  field("accuracy-unit").textContent = field("accuracy-kind").value === "drop" ? "(percentage points)" : "(percent)";
  sliders.follow();
  if (!question.valid()) return say(html("p", {}, "One of the budgets is not a valid number."));
  if (question.request().allow_tiers?.length === 0) return say(html("p", {}, "At least one tier must be allowed to compute."));
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  field("answer").setAttribute("aria-busy", "true");
  try {
    await links.show(field("subject").value, field("environment").value);
    if (!question.valid()) return say(html("p", {}, "One of the bandwidths is not a valid number."));
    const body = question.request();
    const reply = await ask("/recommend", { body, signal });
    const strategies = rows(reply);
    const percentile = strategies[0]?.percentile ?? Number(field("percentile").value);
    shown = { reply: { ...reply, shown_percentile: percentile }, strategies, moved: await moved(body, percentile, signal) };
    history.replaceState(null, "", question.address());
    show();
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  } finally {
    if (!signal.aborted) field("answer").setAttribute("aria-busy", "false");
  }
}

// The curves of the link that was moved last; null if no link was moved.
async function moved(body, percentile, signal) {
  const link = links.current();
  if (link === null) return null;
  const query = { subject: body.subject, link, percentile, environment: body.environment ?? "", ...curves.range(body.links[link]) };
  const sweep = await ask("/whatif", { query, signal });
  return { sweep, mbit: Number(body.links[link].replace(/mbit$/, "")) };
}

function show() {
  const { reply, strategies } = shown;
  say(verdict(reply, relaxed));
  field("asked").replaceChildren(questionWords(reply), html("a", { href: "#question" }, "change the question"));
  field("evidence").hidden = false;
  document.title = `${reply.recommendation ? `${reply.recommendation.operator} on ${reply.recommendation.placement}` : "no strategy"} · ${reply.subject} · Tierwise`;
  sliders.fit(strategies);
  field("details").replaceChildren(...details(reply, strategies));
  field("conditions").textContent = `All latencies are end to end: ${reply.conditions ?? ""}.`
    + (reply.inputs_select ? ` Inputs: ${reply.inputs_select}.` : "");
  chart();
}

// The action that applies a proposed change; null if the form has no field for it.
function relaxed(change) {
  const budgets = shown.reply.budgets;
  if (!question.canTake(change, budgets)) return null;
  return () => {
    question.take(change, budgets);
    answer().then(() => field("answer").focus());
  };
}

function whatif(width) {
  const { moved: change, reply } = shown;
  const some = change !== null && change.sweep.curves.length > 0;
  field("curves-figure").hidden = !some;
  if (!some) return;
  field("curves-head").textContent = `If ${change.sweep.link} were faster or slower`;
  field("curves").replaceChildren(curves.draw(change.sweep, change.mbit, reply.recommendation, width));
  field("curves-caption").replaceChildren(curves.below(change.sweep, reply.recommendation));
}

function chart() {
  if (shown === null) return;
  whatif(Math.max(280, Math.round(field("evidence").clientWidth - 32)));
  const some = shown.strategies.some((strategy) => strategy.accuracy_pct !== null);
  field("chart-figure").hidden = !some;
  if (!some) return;
  const width = Math.max(280, Math.round(field("chart-figure").clientWidth));
  field("chart").replaceChildren(draw(shown.strategies, shown.reply, width));
  const budgets = shown.reply.budgets;
  const bounded = budgets.latency.length > 0 || budgets.min_accuracy_pct !== null || budgets.max_accuracy_drop_pp !== null;
  field("legend").replaceChildren(...legend(shown.strategies, bounded));
  const without = shown.strategies.filter((strategy) => strategy.accuracy_pct === null).length;
  field("chart-caption").textContent = without ? `${without} strategies without a measured accuracy are in the table only.` : "";
}

function environments() {
  const places = subjects.find((entry) => entry.subject === field("subject").value)?.environments ?? [];
  const select = field("environment");
  const words = (key) => {
    const environment = places.find((place) => place.key === key);
    const from = environment?.imported_files.length ? `, from ${environment.imported_files.map((file) => file.name).join(", ")}` : "";
    return environment ? `${environment.host}, ${environment.launcher}${environment.scale === "1" ? "" : `, scale ${environment.scale}`}, ${environment.measured_at.slice(0, 10)}${from}` : key;
  };
  question.choices(select, places.map((place) => place.key), words);
  for (const option of [...select.options]) {
    if (option.value !== "" && option.value !== select.value && !places.some((place) => place.key === option.value)) option.remove();
  }
  field("environment-field").hidden = places.length < 2 && select.value === "";
}

function say(element) {
  field("verdict").replaceChildren(element);
}

function fail(error) {
  field("key-form").hidden = !(error instanceof KeyWanted);
  shown = null;
  field("evidence").hidden = true;
  field("details").replaceChildren();
  field("asked").replaceChildren();
  say(html("div", { class: "verdict none" }, html("p", {}, ...prose(error.message))));
  field("answer").setAttribute("aria-busy", "false");
}

function soon() {
  clearTimeout(waiting);
  waiting = setTimeout(answer, 250);
}

field("question").addEventListener("submit", (event) => event.preventDefault());
field("question").addEventListener("input", (event) => {
  if (event.target.dataset.link !== undefined) links.lead(event.target);
  else if (event.target.type === "range") sliders.lead(event.target);
  if (event.target.name === "tier") question.readTiers();
  if (event.target.id === "subject") field("environment").value = field("raw").value = "", question.allTiers();
  if (event.target.id === "accuracy-kind") field("accuracy").value = "";
  soon();
});
field("links-reset").addEventListener("click", () => { links.reset(); soon(); });
field("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(field("key").value);
  field("key-form").hidden = true;
  start().catch(fail);
});
field("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    field("copied").textContent = "copied";
  } catch {
    field("copied").textContent = "copy it from the address bar";
  }
});
addEventListener("popstate", () => {
  try {
    links.reread();
    question.fromAddress();
    answer();
  } catch (error) {
    fail(error);
  }
});
addEventListener("resize", chart);
start().catch(fail);
