// One question asked in one mode: what happens, while it happens, and the answer.

import { eventsOf, Problem, problemBox, send, serviceUrl } from "./api.js";
import { commandBox, curlCommand } from "./curl.js";
import { el, fill, foreign, hint, say, seconds, visible } from "./dom.js";
import { askedModel, dataOf, notesOf, sourcesOf, usageOf, withMarkers } from "./result.js";
import { Searches } from "./searches.js";
import { nameOf } from "./tenants.js";
import { timesTable } from "./times.js";

const BROKEN_OFF = { title: "Broken off", detail: "The answer broke off before its end." };

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
    const live = { "aria-live": "polite", "aria-busy": "true" };
    this.answer = el("div", { class: "answer text", dir: "auto", ...live });
    this.notes = el("div", { class: "notes" });
    this.sources = el("div");
    this.figures = el("div");
    this.heading = el("summary", {}, "Search");
    this.steps = el("details", { open: true, hidden: true }, this.heading, this.searches.element);
    this.element = el(
      "article",
      { class: "panel", "aria-labelledby": id },
      el("h3", { id }, mode.name, " · ", foreign(nameOf(asked.tenant_id))),
      el("p", { class: "asked text", dir: "auto" }, foreign(asked.q)),
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

  /** Wait for the other answer, after which the question is asked again. */
  wait() {
    this.element.classList.remove("failed");
    fill(this.notes);
    say(this.status, "Waiting until the other answer is complete…");
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
    if (!ended) throw new Problem(BROKEN_OFF, this.requestId);
  }

  take(kind, data) {
    if (kind === "retrieval") {
      this.searches.add(data);
      this.steps.hidden = false;
      say(this.status, this.mode.outputs.includes("grades") ? "Grading the chunks…" : "Writing the answer…");
    } else if (kind === "grades") {
      this.searches.grade(data.grades);
      say(this.status, "Writing the answer…");
    } else if (kind === "standalone_question") {
      this.note("Asked as", data.query);
    } else if (kind === "rephrased") {
      this.note("Rephrased as", data.query);
      say(this.status, "Searching again…");
    } else if (kind === "fallback") {
      this.note("Answered by", `${data.mode}: ${data.detail}`);
    } else if (kind === "token") {
      this.first ??= this.elapsed;
      say(this.status, "Writing the answer…");
      this.answer.append(...visible(data.text));
    } else if (kind === "result") this.finish(data);
  }

  finish(result) {
    const whole = this.elapsed;
    this.searches.finish(result);
    this.steps.hidden = false;
    this.heading.textContent = `Search: ${this.searches.summary}`;
    // The answer is checked by now, and may differ from what was streamed.
    fill(this.answer, ...withMarkers(result));
    for (const [label, text] of notesOf(result)) this.note(label, text);
    fill(this.sources, sourcesOf(result));
    const id = el("p", {}, hint("Request id: ", el("code", {}, this.requestId ?? "unknown")));
    const { llm, ...stages } = result.timings;
    const timings = askedModel(result) ? { ...stages, llm } : stages;
    fill(this.figures, timesTable(timings, this.first, whole), usageOf(result), dataOf(result), id);
    say(this.status, `Answered in ${seconds(whole)}`);
  }

  fail(error) {
    const left = error.name === "AbortError";
    say(this.status, left ? "Stopped" : "Failed");
    this.element.classList.toggle("failed", !left);
    if (left) return null;
    this.notes.append(problemBox(error));
    return error;
  }

  note(label, text) {
    this.notes.append(el("p", {}, el("strong", {}, `${label}: `), foreign(text)));
  }

  get elapsed() {
    return (performance.now() - this.begin) / 1000;
  }
}
