// The parts of a finished answer.

import { button, codeBlock, count, el, foreign, hint, visible, visibleJSON } from "./dom.js";
import { openPassage, placeOf, titleOf } from "./passage.js";

const STRATEGIES = {
  CORRECT: "every chunk was kept",
  PARTIAL: "some chunks were dropped",
  REPHRASED: "chunks were kept only after the question was rephrased",
  INCORRECT: "no chunk was good enough",
};

/** Split an answer into texts and its markers, which open what they cite. */
export function withMarkers(result) {
  return result.answer.split(/(\[\d+\])/).flatMap((part) => {
    const number = Number(/^\[(\d+)\]$/.exec(part)?.[1]);
    const citations = result.citations.filter((citation) => citation.index === number);
    if (!citations.length) return visible(part);
    const label = `Citation ${number}: ${citations[0].title || citations[0].document_id}`;
    return button(() => open(result, citations), { class: "marker", "aria-label": label }, part);
  });
}

/** List what is cited, or null where nothing is. */
export function sourcesOf(result) {
  if (!result.citations.length) return null;
  const items = result.citations.map((citation) => {
    const opener = () => open(result, [citation]);
    return el(
      "li",
      {},
      button(opener, { class: "link" }, `[${citation.index}] `, titleOf(citation)),
      " ",
      hint(...placeOf(citation)),
      el("q", { dir: "auto" }, foreign(citation.quote)),
    );
  });
  return el("div", { class: "sources" }, el("h4", {}, "Cited"), el("ul", { class: "plain" }, ...items));
}

/** Give what else there is to say of an answer, each as a label and a text. */
export function* notesOf({ cannot_answer, strategy, confidence, reasoning, removed_citations, finish_reason }) {
  if (cannot_answer) yield ["No answer", "the documents do not hold it"];
  if (strategy) yield ["Strategy", `${strategy}, ${STRATEGIES[strategy] ?? ""}`];
  if (confidence !== null) yield ["Confidence", confidence.toFixed(2)];
  if (reasoning) yield ["Reasoning", reasoning];
  if (removed_citations) yield ["Removed", count(removed_citations, "made-up citation")];
  if (finish_reason === "length") yield ["Cut off", "the model reached its limit of tokens"];
}

/** Whether a model took part; `extractive` is the service's name for answers made of the documents' sentences. */
export const askedModel = ({ model, usage }) => usage.llm_calls > 0 && model !== "extractive";

/** Say which model answered, and with how much. */
export function usageOf(result) {
  const { model, usage } = result;
  if (!askedModel(result)) return el("p", {}, hint("No model was asked."));
  const tokens = `${usage.prompt_tokens} tokens read, ${usage.completion_tokens} written`;
  return el("p", {}, hint("Model: ", foreign(model ?? "unknown"), ` (${count(usage.llm_calls, "call")}, ${tokens})`));
}

/** Show the JSON of a structured answer, or null where there is none. */
export function dataOf({ data }) {
  if (data === null) return null;
  const json = codeBlock("JSON", el("code", {}, visibleJSON(data, 2)));
  return el("details", {}, el("summary", {}, "The answer as JSON"), json);
}

function open(result, citations) {
  const chunk = result.documents.find((document) => document.chunk_id === citations[0].chunk_id);
  if (chunk) openPassage(chunk, citations);
}
