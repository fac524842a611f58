// One question asked in one mode: what happens, while it happens, and the answer.

import { eventsOf, Problem, problemBox, send, serviceUrl } from "./api.js";
import { commandBox, curlCommand } from "./curl.js";
import { count, el, fill, foreign, seconds } from "./dom.js";
import { openPassage, placeOf, titleOf } from "./passage.js";
import { Searches } from "./searches.js";
import { timesTable } from "./times.js";

const STRATEGIES = {
  CORRECT: "every chunk was kept",
  PARTIAL: "some chunks were dropped",
  REPHRASED: "chunks were kept only after the question was rephrased",
  INCORRECT: "no chunk was good enough",
};

let panels = 0;

/** The place of an answer; `ask` fills it. */
export class AnswerPanel {
  /**
   * @param {Object} mode the mode, as `GET /modes` describes it.
   * @param {Object} asked the request's body.
   */
  constructor(mode, asked) {
    this.mode = mode;
    this.asked = asked;
    this.leaving = new AbortController();
    this.searches = new Searches();
    this.first = null;
    const id = `answer-${(panels += 1)}`;
    this.status = el("p", { role: "status", class: "phase" }, "Searching…");
    // Told as a whole once it is finished, and not piece by piece.
    this.answer = el("div", { class: "answer text", dir: "auto", "aria-live": "polite", "aria-busy": "true" });
    this.notes = el("div", { class: "notes" });
    this.sources = el("div");
    this.figures = el("div");
    this.steps = el("details", { class: "steps", open: true, hidden: true }, el("summary", {}, "Search"), this.searches.element);
    this.element = el(
      "article",
      { class: "panel", "aria-labelledby": id },
      el("h3", { id }, el("span", {}, mode.name)),
      this.status,
      this.answer,
      this.notes,
      this.sources,
      this.steps,
      this.figures,
      commandBox(curlCommand(serviceUrl("query/"), asked)),
    );
  }

  /** Break the answer off; the service then stops the model too. */
  stop() {
    this.leaving.abort();
  }

  /**
   * Ask, and show what comes.
   * @returns {Promise<Problem|null>} what went wrong.
   */
  async ask() {
    this.begin = performance.now();
    try {
      await this.follow();
      return null;
    } catch (error) {
      if (!(error instanceof Problem) && error.name !== "AbortError") throw error;
      return this.fail(error);
    } finally {
      this.answer.setAttribute("aria-busy", "false");
    }
  }

  async follow() {
    const response = await send(serviceUrl("query/"), {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
      body: JSON.stringify({ ...this.asked, stream: true }),
      signal: this.leaving.signal,
    });
    this.requestId = response.headers.get("x-request-id");
    let ended = false;
    for await (const { kind, data } of eventsOf(response)) {
      if (kind === "error") throw new Problem(data, this.requestId);
      if (kind === "done") ended = true;
      else this.take(kind, data);
    }
    if (!ended) throw new Problem({ title: "Broken off", detail: "The answer broke off before its end." }, this.requestId);
  }

  take(kind, data) {
    if (kind === "retrieval") {
      this.searches.add(data);
      this.steps.hidden = false;
      this.say(this.mode.outputs.includes("grades") ? "Grading the chunks…" : "Writing the answer…");
    } else if (kind === "grades") {
      this.searches.grade(data.grades);
      this.say("Writing the answer…");
    } else if (kind === "standalone_question") {
      this.notes.append(noteOf("Asked as", data.query));
    } else if (kind === "rephrased") {
      this.notes.append(noteOf("Rephrased as", data.query));
      this.say("Searching again…");
    } else if (kind === "token") {
      this.first ??= this.elapsed;
      this.say("Writing the answer…");
      this.answer.append(data.text);
    } else if (kind === "result") this.finish(data);
  }

  finish(result) {
    this.searches.finish(result);
    this.steps.hidden = false;
    this.steps.firstChild.textContent = `Search: ${this.searches.summary}`;
    fill(this.answer, ...this.withMarkers(result));
    this.notes.append(...notesOf(result));
    fill(this.sources, this.sourceList(result));
    fill(this.figures, timesTable(result.timings, this.first), usageOf(result), dataOf(result), this.idLine());
    this.say(`Answered in ${seconds(result.timings.total ?? this.elapsed)}`);
  }

  fail(error) {
    const left = error.name === "AbortError";
    this.say(left ? "Stopped" : "Failed");
    this.element.classList.toggle("failed", !left);
    if (left) return null;
    const hint = error.kind === "unknown-tenant" ? "Upload documents for this tenant first; the form for it is under Documents." : null;
    this.notes.append(problemBox(error, hint));
    return error;
  }

  say(phase) {
    // A live region tells again what is written into it again.
    if (this.status.textContent !== phase) this.status.textContent = phase;
  }

  get elapsed() {
    return (performance.now() - this.begin) / 1000;
  }

  withMarkers(result) {
    return result.answer.split(/(\[\d+\])/).map((part) => {
      const number = /^\[(\d+)\]$/.exec(part)?.[1];
      const citations = result.citations.filter((citation) => citation.index === Number(number));
      if (!citations.length) return part;
      const label = `Citation ${number}: ${citations[0].title || citations[0].document_id}`;
      return el("button", { type: "button", class: "marker", "aria-label": label, onclick: () => cited(result, citations) }, part);
    });
  }

  sourceList(result) {
    if (!result.citations.length) return null;
    return el(
      "div",
      { class: "sources" },
      el("h4", {}, "Cited"),
      el("ul", { class: "plain" }, ...result.citations.map((citation) => sourceOf(result, citation))),
    );
  }

  idLine() {
    return el("p", { class: "hint" }, "Request id: ", el("code", {}, this.requestId ?? "unknown"));
  }
}

function cited(result, citations) {
  const chunk = result.documents.find((document) => document.chunk_id === citations[0].chunk_id);
  if (chunk) openPassage(chunk, citations);
}

function sourceOf(result, citation) {
  const open = el("button", { type: "button", class: "link", onclick: () => cited(result, [citation]) }, `[${citation.index}] `, titleOf(citation));
  return el("li", {}, open, " ", el("span", { class: "hint" }, ...placeOf(citation)), el("q", { dir: "auto" }, foreign(citation.quote)));
}

function noteOf(label, text) {
  return el("p", {}, el("strong", {}, `${label}: `), foreign(text));
}

function notesOf(result) {
  const notes = [];
  if (result.cannot_answer) notes.push(el("p", {}, "The documents do not hold the answer."));
  if (result.strategy) notes.push(noteOf("Strategy", `${result.strategy}, ${STRATEGIES[result.strategy] ?? ""}`));
  if (result.confidence !== null) notes.push(noteOf("Confidence", result.confidence.toFixed(2)));
  if (result.reasoning) notes.push(noteOf("Reasoning", result.reasoning));
  if (result.removed_citations) notes.push(el("p", {}, `${count(result.removed_citations, "made-up citation")} removed from the answer.`));
  if (result.finish_reason === "length") notes.push(el("p", {}, "The answer was cut off: the model's limit of tokens was reached."));
  return notes;
}

function usageOf({ model, usage }) {
  const calls = `${count(usage.llm_calls, "call")}, ${usage.prompt_tokens} tokens read, ${usage.completion_tokens} written`;
  return el("p", { class: "hint" }, "Model: ", foreign(model ?? "none"), ` (${calls})`);
}

function dataOf({ data }) {
  if (data === null) return null;
  const json = el("pre", { tabindex: "0", role: "region", "aria-label": "JSON" }, el("code", {}, JSON.stringify(data, null, 2)));
  return el("details", {}, el("summary", {}, "The answer as JSON"), json);
}
