// How the service is, at the top of the page.

import { serviceUrl } from "./api.js";
import { count, el, foreign } from "./dom.js";
import { keyHeaders } from "./key.js";

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
    return await (await fetch(serviceUrl("ready"), { headers: keyHeaders() })).json();
  } catch {
    return null;
  }
}

function show(place, state) {
  const content = contentOf(state);
  // The same again is not told again, and what was unfolded stays so.
  if (place.textContent === content.textContent) return;
  place.className = state?.status === "ok" ? "" : "notice";
  place.replaceChildren(content);
}

function contentOf(state) {
  if (state === null) return el("p", {}, "The service cannot be reached.");
  const faults = state.problems ?? [];
  if (!faults.length) return el("p", {}, sentence(state));
  const beginning = works(state) ? "Ready, but not everything works" : "Questions may fail";
  if (faults.length === 1) return el("p", {}, `${beginning}: `, foreign(faults[0]));
  // Folded, for a list of faults would push the question far down.
  return el(
    "details",
    {},
    el("summary", {}, `${beginning}: ${count(faults.length, "fault")}`),
    el("ul", {}, ...faults.map((fault) => el("li", {}, foreign(fault)))),
  );
}

/** Whether questions can be asked in the modes that are there. */
function works({ chroma, llm, modes }) {
  return chroma === "ok" && llm.status === "ok" && modes.length > 0;
}

function sentence({ status, llm }) {
  if (status === "loading") return "The service is loading its models; questions wait until they are there.";
  if (llm.provider === "extractive") return "Ready. Without a language model, answers are sentences of the documents.";
  return `Ready. ${llm.model} answers (${llm.provider}).`;
}
