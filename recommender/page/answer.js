// The answer in words and tables.

import { html, list, prose } from "/page/elements.js";
import { bytes, chance, difference, duration, howSure, interval, percent, percentileName, points, strategyName } from "/page/words.js";

// The question in one line, to stand above the answer.
export function questionWords(answer) {
  const budgets = answer.budgets;
  const limits = budgets.latency.map((limit) => `${percentileName(limit.percentile)} at most ${duration(limit.max_s)}`);
  if (budgets.max_accuracy_drop_pp !== null) limits.push(`drop at most ${points(budgets.max_accuracy_drop_pp)}`);
  if (budgets.min_accuracy_pct !== null) limits.push(`accuracy at least ${percent(budgets.min_accuracy_pct)}`);
  const slo = budgets.slo ? `SLO ${budgets.slo}: ` : "";
  const constraints = answer.constraints ?? {};
  if (constraints.allow_tiers) limits.push(`only on ${constraints.allow_tiers.join(", ")}`);
  if (constraints.keep_raw_input_on) limits.push(`raw input stays on ${constraints.keep_raw_input_on}`);
  return `${answer.subject} · ${slo}${limits.join(", ") || "no budget"} `;
}

export function verdict(answer, relax) {
  const best = answer.recommendation;
  if (!best) {
    const nothing = answer.status === "unmeasured" ? "Nothing was measured to choose from" : "No strategy keeps these budgets";
    const sure = answer.infeasible ? howSure(answer.infeasible.status, answer.infeasible.probability) : null;
    return html("div", { class: "verdict none" }, html("div", { class: "choice" }, nothing, sure && badge(sure, answer.infeasible.status)),
      html("p", {}, ...prose(answer.summary)), ways(answer, relax));
  }
  const bounded = hasBudget(answer.budgets);
  return html("div", { class: `verdict ${bounded ? best.status : ""} ${best.latency.predicted ? "foreseen" : ""}` },
    html("div", { class: "choice" }, strategyName(best), bounded ? badge(howSure(best.status, best.probability), best.status) : null,
      best.latency.predicted ? badge("predicted", "foreseen") : badge("measured", "known")),
    bounded ? html("p", { class: "manager" }, manager(best, answer)) : null,
    answer.to_do ? html("p", {}, ...command(answer.to_do)) : null,
    html("p", {}, ...prose(sentence(best.why))), best.not_chosen.length ? list(best.not_chosen.map(sentence)) : null,
    best.quality ? html("p", { class: "quality" }, ...prose(sentence(best.quality))) : null, numbers(best, answer),
    !bounded || best.status === "proven" ? null : ways(answer, relax, "To have it proven: "));
}

// For a reader who decides: yes, probably, or not known.
function manager(best, answer) {
  const proven = answer.proven ? ` Proven already is ${strategyName(answer.proven)}, at ${duration(answer.proven.latency.percentile_s)}.` : "";
  if (best.status === "proven") return "Yes: it is proven to keep every budget.";
  if (best.probability === null) return `By its estimates; how sure that is cannot be said.${proven}`;
  return `${best.status === "likely" ? "Probably" : "Perhaps"}: ${chance(best.probability)}.${proven}`;
}

// The command stands apart from its sentence, so that it can be copied.
function command(toDo) {
  if (!toDo.command) return prose(`${toDo.words}.`);
  const [before, after] = toDo.words.split(`\`${toDo.command}\``);
  return [...prose(before), html("code", { class: "command" }, toDo.command), ...prose(after ?? "")];
}

function badge(words, kind) {
  return html("span", { class: `badge ${kind}` }, words);
}

function hasBudget(budgets) {
  return budgets.latency.length > 0 || budgets.min_accuracy_pct !== null || budgets.max_accuracy_drop_pp !== null;
}

export function details(answer, strategies) {
  return [
    ...table(answer, strategies),
    section(hasBudget(answer.budgets) ? "Proven too" : "Beside the fastest", answer.alternatives.map((strategy) => alternative(strategy))),
    section("Within the budgets, not proven", together(answer.undecided, (strategy) => `${strategy.reason}. ${strategy.to_do}`, true)),
    section(answer.recommendation ? "Near misses" : "Nearest misses", misses(answer.near_misses)),
    section("Read before acting", [...notProven(answer.recommendation), ...answer.warnings]),
    section("Not considered", together(answer.not_considered, (strategy) =>
      `${[strategy.reason, strategy.command].filter(Boolean).join("; ")}; ${strategy.could_change_answer ? "could change this answer" : "cannot change this answer"}: ${strategy.because}`)),
    provenance(answer),
  ].filter((element) => element !== null);
}

function notProven(best) {
  return best?.reason ? [`not proven: ${best.reason}`] : [];
}

// The changes of one budget that the service has tried, with the recommendation that follows.
function ways(answer, relax, heading = "") {
  const changes = [answer.relaxation, ...answer.other_relaxations].filter((change) => change !== null && relax(change) !== null);
  if (!changes.length) return null;
  return html("ul", { class: "ways" }, ...changes.map((change) => {
    const button = html("button", { type: "button" }, changeWords(change));
    button.addEventListener("click", relax(change));
    return html("li", {}, heading, button, ` gives ${strategyName(change)}`);
  }));
}

function changeWords(change) {
  const shown = { max_latency_s: (value) => `at most ${duration(value)}`, max_accuracy_drop_pp: (value) => `a drop of at most ${points(value)}`,
    min_accuracy_pct: (value) => `at least ${percent(value)}` }[change.field];
  const names = { max_latency_s: "limit of latency", max_accuracy_drop_pp: "limit of accuracy lost", min_accuracy_pct: "floor of accuracy" };
  return change.to_value === null ? `ask without a ${names[change.field]}` : `ask for ${shown(change.to_value)}`;
}

function numbers(best, answer) {
  const latency = best.latency ?? {};
  const accuracy = best.accuracy;
  const spread = interval(latency);
  const shown = [[`${percentileName(latency.percentile ?? 90)} latency`, duration(latency.percentile_s),
    spread ? `${duration(spread.low)} to ${duration(spread.high)}, ${spread.kind}` : ""]];
  if (best.next_start_high_s !== null) {
    shown.push(["the next start", `below ${duration(best.next_start_high_s)}`, `its ${percentileName(latency.percentile)}, at 95 %`]);
  }
  if (accuracy) {
    shown.push([accuracy.metric ?? "accuracy", percent(accuracy.accuracy_pct),
      accuracy.drop_pp === null ? "" : `drop ${points(accuracy.drop_pp)} against identity`]);
  }
  if (hasBudget(answer.budgets)) {
    const joint = best.status === "proven" ? `joint confidence ${best.joint_confidence < 0.99995 ? best.joint_confidence.toFixed(4) : "> 0.9999"}` : "";
    shown.push(["all budgets hold", howSure(best.status, best.probability), joint]);
  }
  if (latency.predicted) shown.push(["latency known from", "a prediction", latency.predicted_from?.in_words ?? ""]);
  shown.push(["evidence", `${latency.rounds} rounds × ${latency.inputs} inputs`, accuracy?.items ? `${accuracy.items} validation items` : ""]);
  shown.push(["size · sent per request", `${bytes(best.size_bytes)} · ${bytes(best.sent_bytes)}`, ""]);
  return html("dl", { class: "numbers" }, ...shown.map(([name, value, more]) =>
    html("div", {}, html("dt", {}, name), html("dd", {}, value, more ? html("small", {}, more) : null))));
}

function alternative(strategy) {
  const foreseen = strategy.latency.predicted ? ", predicted" : "";
  return `${strategyName(strategy)}: ${strategy.latency_ratio.toFixed(2)} × the latency of the recommendation${foreseen}; to the fastest: ${strategy.relation}${farOutputs(strategy)}`;
}

function misses(strategies) {
  return strategies.slice(0, 5).map((strategy) => `${strategyName(strategy)} ${(strategy.lacks ?? []).join("; ")}${farOutputs(strategy)}`);
}

function farOutputs(strategy) {
  return strategy.distance?.warning ? `; ${strategy.distance.warning}` : "";
}

// Strategies that share a text share one line.
function together(strategies, words, sure = false) {
  const same = new Map();
  const name = (strategy) => strategyName(strategy) + (sure ? ` (${howSure(strategy.status, strategy.probability)})` : "");
  for (const strategy of strategies) same.set(words(strategy), [...(same.get(words(strategy)) ?? []), name(strategy)]);
  return [...same].map(([text, names]) => `${names.join(", ")}: ${text}`);
}

function section(title, texts) {
  return texts.length ? html("div", {}, html("h3", {}, title), list(texts)) : null;
}

function table(answer, strategies) {
  if (!strategies.length) return [];
  const best = answer.recommendation && strategyName(answer.recommendation);
  const percentile = percentileName(answer.shown_percentile);
  const foreseen = strategies.some((strategy) => strategy.predicted);
  const compared = strategies.some((strategy) => strategy.distance !== null);
  const judged = strategies.some((strategy) => strategy.accuracy_pct !== null) || !compared;
  const bounded = hasBudget(answer.budgets);
  const heads = ["Strategy", ...(bounded ? ["How sure"] : []), percentile, ...(judged ? [strategies[0].metric ?? "Accuracy", "Drop"] : []),
    ...(compared ? ["Differs"] : []), "Size", "Sent"];
  const rows = strategies.map((strategy) => {
    const name = strategyName(strategy);
    const sure = strategy.status === "misses" ? "misses" : howSure(strategy.status, strategy.probability);
    const cells = [...(bounded ? [sure] : []), duration(strategy.percentile_s), ...(judged ? [percent(strategy.accuracy_pct), points(strategy.drop_pp)] : []),
      ...(compared ? [difference(strategy.distance)] : []), bytes(strategy.size_bytes), bytes(strategy.sent_bytes)];
    return html("tr", { class: name === best ? "chosen" : "" }, html("th", { scope: "row" }, name),
      ...cells.map((text, index) => html("td", { class: bounded && index === 0 ? "sure" : "n", "data-label": heads[index + 1] }, text,
        index === (bounded ? 1 : 0) && strategy.predicted ? html("small", {}, " predicted") : null)));
  });
  const head = html("thead", {}, html("tr", {}, ...heads.map((text, index) =>
    html("th", { scope: "col", class: index > (bounded ? 1 : 0) ? "n" : "" }, text))));
  return [html("h3", { id: "all-title" }, foreseen ? "Every strategy, measured or predicted, fastest first" : "Every measured strategy, fastest first"),
    html("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "all-title" },
      html("table", { class: "stack" }, head, html("tbody", {}, ...rows)))];
}

function provenance(answer) {
  const files = Object.entries(answer.recommendation?.artifact_sha256 ?? {}).map(([name, sum]) => `${name}: sha256 ${sum}`);
  const where = answer.environment;
  const lines = where ? [`${answer.age.words}: until ${where.measured_at} on ${where.cpu_model}, ${where.cpu_count} CPUs, launcher ${where.launcher}, `
    + `scale ${where.scale}, ONNX Runtime ${where.onnxruntime}`, `environment ${where.key}: ${answer.environment_choice.why}`,
    ...where.imported_files.map((file) => `imported from ${file.name}: sha256 ${file.sha256}`)] : [];
  return html("details", {}, html("summary", {}, "Evidence and model files"), list([...lines, ...files]));
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
