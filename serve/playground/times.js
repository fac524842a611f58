// Where the time went, as a table with bars.

import { el, seconds } from "./dom.js";

const NAMES = { llm: "model calls, in the stages", total: "whole answer" };

/**
 * Show the times of an answer.
 * @param {Object} timings seconds by name: each stage, `llm` over all model calls, and `total`.
 * @param {number|null} first seconds until the first words came, as this page saw it.
 */
export function timesTable(timings, first) {
  const { llm, total, ...stages } = timings;
  const rows = Object.entries(stages).map(([name, value]) => [name.replaceAll("_", " "), value, "stage"]);
  if (llm !== undefined) rows.push([NAMES.llm, llm, "part"]);
  if (first !== null) rows.push(["first words on this page", first, "part"]);
  if (total !== undefined) rows.push([NAMES.total, total, "total"]);
  const longest = Math.max(...rows.map(([, value]) => value), 1e-6);
  return el(
    "table",
    { class: "times" },
    el("caption", {}, "Time"),
    el("tbody", {}, ...rows.map(([name, value, kind]) => row(name, value, kind, longest))),
  );
}

function row(name, value, kind, longest) {
  const bar = el("span", { class: `bar ${kind}`, "aria-hidden": "true" });
  bar.style.width = `${Math.max((100 * value) / longest, 0.5)}%`;
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, name),
    el("td", { class: "figure" }, seconds(value)),
    el("td", { class: "track" }, bar),
  );
}
