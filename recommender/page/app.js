// The page: reads the address, asks the service, shows the answer; every change of the form is a new question.

import { details, verdict } from "/page/answer.js";
import { ask, KeyWanted, useKey } from "/page/api.js";
import { draw, legend } from "/page/chart.js";
import * as curves from "/page/curves.js";
import { html } from "/page/elements.js";
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
  const [known, targets, api] = await Promise.all([ask("/subjects"), ask("/slos"), ask("/openapi.json")]);
  subjects = known.subjects;
  slos = targets.slos;
  question.choices(field("subject"), subjects.map((each) => each.subject));
  question.choices(field("slo"), slos.map((each) => each.name), (name) => `SLO ${name}`);
  question.choices(field("objective"), objectives(api), (name) => OBJECTIVES[name] ?? name.replaceAll("_", " "));
  question.fromAddress();
  await answer();
}

function objectives(api) {
  const asked = api.components.schemas.RecommendRequest.properties.objective ?? {};
  const named = asked.$ref ? api.components.schemas[asked.$ref.split("/").pop()] : asked;
  return named.enum ?? ["latency", "accuracy"];
}

async function answer() {
  question.showSlo(slos);
  environments();
  field("accuracy-unit").textContent = field("accuracy-kind").value === "drop" ? "(percentage points)" : "(percent)";
  sliders.follow();
  if (!question.valid()) return say(html("p", {}, "One of the budgets is not a valid number."));
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  field("answer").setAttribute("aria-busy", "true");
  try {
    await links.show(field("subject").value, field("environment").value);
    if (!question.valid()) return say(html("p", {}, "One of the bandwidths is not a valid number."));
    const body = question.request();
    const told = await ask("/recommend", { body, signal });
    const strategies = rows(told);
    const percentile = strategies[0]?.percentile ?? Number(field("percentile").value);
    shown = { told: { ...told, shown_percentile: percentile }, strategies, whatif: await moved(body, percentile, signal) };
    history.replaceState(null, "", question.address());
    show();
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  } finally {
    if (!signal.aborted) field("answer").setAttribute("aria-busy", "false");
  }
}

// The curves of the link that was moved last; none where none was.
async function moved(body, percentile, signal) {
  const link = links.current();
  if (link === null) return null;
  const query = { subject: body.subject, link, percentile, environment: body.environment ?? "", ...curves.range(body.links[link]) };
  const found = await ask("/whatif", { query, signal });
  return { found, askedMbit: Number(body.links[link].replace(/mbit$/, "")) };
}

function show() {
  const { told, strategies } = shown;
  say(verdict(told, relaxed));
  document.title = `${told.recommendation ? `${told.recommendation.operator} on ${told.recommendation.placement}` : "nothing holds"} · ${told.subject} · Tierwise`;
  sliders.fit(strategies);
  field("details").replaceChildren(...details(told, strategies));
  field("conditions").textContent = `All latencies are end to end: ${told.conditions ?? ""}.`
    + (told.inputs_select ? ` Inputs: ${told.inputs_select}.` : "");
  chart();
}

// What a proposed change does when it is taken up; null where the form has no field for it.
function relaxed(change) {
  const budgets = shown.told.budgets;
  if (!question.canTake(change, budgets)) return null;
  return () => {
    question.take(change, budgets);
    answer().then(() => field("answer").focus());
  };
}

function whatif(width) {
  const { whatif: asked, told } = shown;
  const some = asked !== null && asked.found.curves.length > 0;
  field("curves-figure").hidden = !some;
  if (!some) return;
  field("curves-head").textContent = `If ${asked.found.link} were faster or slower`;
  field("curves").replaceChildren(curves.draw(asked.found, asked.askedMbit, told.recommendation, width));
  field("curves-caption").replaceChildren(curves.below(asked.found, told.recommendation));
}

function chart() {
  if (shown === null) return;
  whatif(Math.max(280, Math.round(field("answer").clientWidth - 32)));
  const some = shown.strategies.some((each) => each.accuracy_pct !== null);
  field("chart-figure").hidden = !some;
  if (!some) return;
  const width = Math.max(280, Math.round(field("chart-figure").clientWidth));
  field("chart").replaceChildren(draw(shown.strategies, shown.told, width));
  field("legend").replaceChildren(...legend(shown.strategies.some((each) => each.predicted)));
  const without = shown.strategies.filter((each) => each.accuracy_pct === null).length;
  field("chart-caption").textContent = without ? `${without} strategies without a measured accuracy are in the table only.` : "";
}

function environments() {
  const places = subjects.find((each) => each.subject === field("subject").value)?.environments ?? [];
  const select = field("environment");
  const words = (key) => {
    const it = places.find((each) => each.key === key);
    const from = it?.imported_files.length ? `, from ${it.imported_files.map((file) => file.name).join(", ")}` : "";
    return it ? `${it.host}, ${it.launcher}${it.scale === "1" ? "" : `, scale ${it.scale}`}, ${it.measured_at.slice(0, 10)}${from}` : key;
  };
  question.choices(select, places.map((each) => each.key), words);
  for (const each of [...select.options]) {
    if (each.value !== "" && each.value !== select.value && !places.some((it) => it.key === each.value)) each.remove();
  }
  field("environment-field").hidden = places.length < 2 && select.value === "";
}

function say(element) {
  field("verdict").replaceChildren(element);
}

function fail(error) {
  field("key-form").hidden = !(error instanceof KeyWanted);
  shown = null;
  field("chart-figure").hidden = field("curves-figure").hidden = true;
  field("details").replaceChildren();
  say(html("div", { class: "verdict none" }, html("p", {}, error.message)));
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
  if (event.target.id === "subject") field("environment").value = "";
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
addEventListener("popstate", () => { question.fromAddress(); links.reread(); answer(); });
addEventListener("resize", chart);
start().catch(fail);
