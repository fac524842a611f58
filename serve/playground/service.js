// How the service is, at the top of the page.

import { serviceUrl } from "./api.js";
import { el, fill, foreign } from "./dom.js";

const WAIT = 2000;

/**
 * Tell how the service is, and look again as long as it is not ready.
 * @param {HTMLElement} place where it is told.
 * @param {function(Object): void} told called with the state whenever there is one.
 */
export async function watchService(place, told) {
  for (;;) {
    const state = await stateOf();
    if (state) told(state);
    show(place, state);
    if (state?.status === "ok") return;
    await new Promise((resolve) => setTimeout(resolve, WAIT));
  }
}

async function stateOf() {
  try {
    // A service that is not ready says so with a 503 and the same body.
    return await (await fetch(serviceUrl("ready"))).json();
  } catch {
    return null;
  }
}

function show(place, state) {
  const text = state === null ? "The service cannot be reached." : sentence(state);
  if (place.firstChild?.textContent === text) return;
  place.className = state?.status === "ok" ? "" : "notice";
  const problems = (state?.problems ?? []).map((problem) => el("li", {}, foreign(problem)));
  fill(place, el("p", {}, text), problems.length ? el("ul", {}, ...problems) : null);
}

function sentence({ status, llm }) {
  if (status === "loading") return "The service is loading its models; questions wait until they are there.";
  if (status !== "ok") return "The service is not ready:";
  if (llm.provider === "extractive") return "Ready. Without a language model, answers are sentences of the documents.";
  return `Ready. ${llm.model} answers (${llm.provider}).`;
}
