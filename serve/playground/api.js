// Talking to the service: plain requests, problems (RFC 9457) and server-sent events.

import { el, foreign, hint } from "./dom.js";
import { keyHeaders, needsKey } from "./key.js";

/** What the service, or the way to it, did not do. */
export class Problem extends Error {
  /**
   * @param {Object} body the problem as the service gives it.
   * @param {string|null} requestId the request's id.
   */
  constructor(body, requestId) {
    super(body.detail ?? "The service gave an answer that this page does not understand.");
    this.kind = String(body.type ?? "").split(":").pop();
    this.title = body.title ?? "Error";
    this.requestId = body.request_id ?? requestId;
  }
}

const NO_PROBLEM = "this is no problem document; something between this page and the service may have made it.";
const UNREACHABLE = "The service cannot be reached, or the connection broke off. Look whether it still runs.";
const ASK_AGAIN = "Ask again in a few seconds; who runs the service can let it answer more questions at a time.";
const ADVICE = {
  "missing-key": "Write a key into the field API key at the top of this page; who runs the service gives them.",
  "invalid-key": "The key is unknown, revoked or expired. Write another one into the field at the top of this page.",
  "unknown-tenant": "Upload documents for this tenant first; the form for it is under Documents.",
  overloaded: ASK_AGAIN,
  "model-busy": ASK_AGAIN,
};
const AGAIN = 1000;

/** Make a URL of the service, relative to the page. */
export function serviceUrl(path, parameters = {}) {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  return url.href;
}

/** Turn an answer's body into a problem; tells the page when a key is what it needs. */
export function problemOf(status, text, requestId) {
  try {
    const problem = new Problem(JSON.parse(text), requestId);
    if (needsKey(problem)) dispatchEvent(new Event("keyneeded"));
    return problem;
  } catch {
    const detail = `The answer has the status ${status}, and ${NO_PROBLEM}`;
    return new Problem({ title: "Error", detail }, requestId);
  }
}

/**
 * Send a request.
 * @returns {Promise<Response>} the answer, if it is a good one.
 * @throws {Problem} if it is not, or if there is none.
 */
export async function send(url, options = {}) {
  let response;
  try {
    response = await fetch(url, { ...options, headers: { ...options.headers, ...keyHeaders() } });
  } catch (error) {
    throw explained(error);
  }
  if (response.ok) return response;
  throw problemOf(response.status, await response.text(), response.headers.get("x-request-id"));
}

/** Get JSON. */
export const getJSON = async (path, parameters) => (await send(serviceUrl(path, parameters))).json();

/**
 * Read server-sent events as they come.
 * @param {Response} response the answer.
 * @yields {{kind: string, data: any, id: string|null}} each event, its data parsed.
 */
export async function* eventsOf(response) {
  let event = { kind: "message", data: "", id: null };
  for await (const line of linesOf(response)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (line === "") {
      if (event.data) yield { ...event, data: JSON.parse(event.data) };
      event = { kind: "message", data: "", id: null };
    } else if (field === "event") event.kind = value;
    else if (field === "data") event.data += value;
    else if (field === "id") event.id = value;
  }
}

/**
 * Read server-sent events, and go on where they were when the connection breaks, as `EventSource` does; that one can
 * send no key.
 * @param {string} url where they are told.
 * @yields {{kind: string, data: any, id: string|null}} each event.
 * @throws {Problem} if the service does not tell them.
 */
export async function* eventsAgain(url) {
  for (let last = null; ; await new Promise((resolve) => setTimeout(resolve, AGAIN))) {
    try {
      const response = await send(url, { headers: last === null ? {} : { "Last-Event-ID": last } });
      if (response.status === 204) return;
      for await (const event of eventsOf(response)) {
        last = event.id ?? last;
        yield event;
      }
    } catch (problem) {
      if (!problem.lost) throw problem;
    }
  }
}

async function* linesOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      // A line may end in any of three ways, and the two characters of one of them may come apart.
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      yield* lines;
    }
  } catch (error) {
    throw explained(error);
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Show a problem. */
export function problemBox(problem, advice = ADVICE[problem.kind] ?? null) {
  // What the service says of keys is for programs, which have no field for them.
  const told = needsKey(problem) ? null : el("p", {}, foreign(problem.message));
  return el(
    "div",
    { class: "problem", role: "alert" },
    el("strong", {}, problem.title),
    told,
    advice && el("p", {}, advice),
    problem.requestId ? el("p", {}, hint("Request id: ", el("code", {}, problem.requestId))) : null,
  );
}

function explained(error) {
  if (error.name === "AbortError" || error instanceof Problem) return error;
  return Object.assign(new Problem({ title: "No connection", detail: UNREACHABLE }, null), { lost: true });
}
