// Where the time went, as a table with bars.

import { el, seconds } from "./dom.js";

const NAMES = { llm: "model calls, in the stages", first: "until the first words", whole: "whole answer" };

/**
 * Show the times of an answer.
 * @param {Object} timings seconds by name, by the service's clock: each stage, and `llm` over all model calls.
 * @param {number|null} first seconds until the first words came to this page.
 * @param {number} whole seconds until the answer was whole, by the same clock: the service's `total` does not count
 *   the way, and could be less than `first`.
 */
export function timesTable({ llm, total: _, ...stages }, first, whole) {
  const rows = Object.entries(stages).map(([name, value]) => [name.replaceAll("_", " "), value, "stage"]);
  if (llm !== undefined) rows.push([NAMES.llm, llm, "part"]);
  if (first !== null) rows.push([NAMES.first, first, "part"]);
  rows.push([NAMES.whole, whole, "total"]);
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
