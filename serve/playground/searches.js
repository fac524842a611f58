// What was searched and found: each chunk with its score, its grade, and whether it went on to the answer.

import { button, count, el, fill, foreign, hint, visible } from "./dom.js";
import { markedText, openPassage, placeOf, titleOf } from "./passage.js";
import { askedModel } from "./result.js";

// Of a chunk, a few lines are shown; what it is cited for should be among them.
const LEAD = 80;

/** The searches of one answer. */
export class Searches {
  constructor() {
    this.element = el("div", { class: "searches" });
    this.searches = [];
  }

  /** Take a search: its question, or null where the mode does not tell, and its chunks. */
  add({ query, documents }) {
    const cards = documents.map((chunk) => new Card(chunk));
    this.searches.push(cards);
    const again = this.searches.length > 1 ? "Searched again" : "Searched";
    this.element.append(
      el("h4", {}, query ? `${again}: ` : again, query ? foreign(query, { class: "searched" }) : null),
      documents.length
        ? el("ol", { class: "plain chunks" }, ...cards.map((card) => card.element))
        : el("p", { class: "hint" }, "Nothing was found."),
    );
  }

  /** Take the verdicts on the chunks of the last search. */
  grade(grades) {
    const byChunk = new Map(grades.map((grade) => [grade.chunk_id, grade]));
    for (const card of this.searches.at(-1) ?? []) {
      const grade = byChunk.get(card.chunk.chunk_id);
      if (grade) card.grade(grade);
    }
  }

  /** Take the result: from which chunks the answer was made, under which numbers, and what of them is cited. */
  finish(result) {
    const { documents, citations } = result;
    const given = askedModel(result) ? "given to the model" : "given to the answer";
    const known = new Set(this.searches.flat().map((card) => card.chunk.chunk_id));
    const untold = documents.filter((chunk) => !known.has(chunk.chunk_id));
    if (untold.length) this.add({ query: null, documents: untold });
    const numbers = new Map(documents.map((chunk, index) => [chunk.chunk_id, index + 1]));
    // What a second search found again stands under the second one.
    for (const card of this.searches.flat().reverse()) {
      const id = card.chunk.chunk_id;
      const cited = citations.filter((citation) => citation.chunk_id === id);
      card.finish(numbers.get(id) ?? null, cited, given);
      numbers.delete(id);
    }
  }

  get summary() {
    return count(this.searches.flat().length, "chunk");
  }
}

class Card {
  constructor(chunk) {
    this.chunk = chunk;
    this.number = el("span", { class: "number" });
    this.verdict = el("span", { class: "verdict" });
    this.text = el("div", { class: "text", dir: "auto" }, ...visible(chunk.text));
    this.open = button(() => openPassage(chunk, this.citations), { class: "link" }, titleOf(chunk));
    this.citations = [];
    const score = chunk.score === null ? null : el("span", {}, `score ${chunk.score.toFixed(2)}`);
    this.element = el(
      "li",
      { class: "chunk" },
      el("div", { class: "chunk-head" }, this.number, this.open, hint(...placeOf(chunk))),
      el("div", { class: "chunk-marks" }, score, this.verdict),
      this.text,
    );
  }

  grade({ label, score, kept }) {
    this.graded = true;
    fill(
      this.verdict,
      el("span", { class: `grade ${label.toLowerCase()}` }, `${label} ${score.toFixed(2)}`),
      el("span", {}, kept ? "kept" : "dropped"),
    );
    this.element.classList.toggle("dropped", !kept);
  }

  finish(number, citations, given) {
    this.citations = citations;
    this.number.textContent = number === null ? "" : `[${number}]`;
    fill(this.text, ...markedText(this.chunk, citations, LEAD).parts);
    if (!this.graded) this.verdict.textContent = number === null ? "not used" : given;
  }
}
