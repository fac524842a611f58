// A chunk of a document with the cited sentences marked, in a window of its own.

import { el, fill, foreign, visible } from "./dom.js";

const dialog = document.getElementById("passage");
const [title, place, note, text] = ["title", "place", "note", "text"].map((part) =>
  document.getElementById(`passage-${part}`),
);
document.getElementById("passage-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => {
  // The dialog's content covers it wholly, so only a click beside it reaches the dialog itself.
  if (event.target === dialog) dialog.close();
});

/**
 * Open a chunk.
 * @param {Object} chunk a retrieved document of an answer.
 * @param {Object[]} citations those to mark; the first is brought into view.
 */
export function openPassage(chunk, citations) {
  fill(title, titleOf(chunk));
  fill(place, ...placeOf(chunk));
  const { parts, missing } = markedText(chunk, citations);
  fill(text, ...parts);
  note.textContent = missing.map(({ quote }) => `Not in this chunk as it stands: “${quote}”`).join(" ");
  note.hidden = missing.length === 0;
  dialog.showModal();
  text.querySelector("mark")?.scrollIntoView({ block: "center" });
}

/** Name a chunk or a citation by its document. */
export const titleOf = (chunk) => foreign(chunk.title || chunk.document_id);

/** Say where in its document a chunk or a citation stands. */
export function placeOf(chunk) {
  const parts = [];
  if (chunk.title && chunk.title !== chunk.document_id) parts.push(foreign(chunk.document_id));
  if (chunk.page) parts.push(`page ${chunk.page}`);
  if (chunk.section) parts.push(foreign(chunk.section));
  return parts.flatMap((part, index) => (index ? [" · ", part] : [part]));
}

/**
 * Split a chunk's text into plain and marked parts.
 * @param {Object} chunk a retrieved document of an answer.
 * @param {Object[]} citations those to mark.
 * @param {number} lead how many characters may stand before the first mark, for a preview that begins near it.
 * @returns {{parts: Array<string|Node>, missing: Object[]}} the parts, and the citations that are not in it.
 */
export function markedText(chunk, citations, lead = Infinity) {
  // The service counts characters of Unicode, and JavaScript's strings count halves of some.
  const letters = Array.from(chunk.text);
  const begin = chunk.meta?.start ?? 0;
  const marked = new Uint8Array(letters.length);
  const missing = citations.filter((citation) => {
    const range = placeIn(letters, citation, begin);
    if (range) marked.fill(1, ...range);
    return !range;
  });
  let from = beginning(letters, marked.indexOf(1), lead);
  const parts = from ? ["… "] : [];
  for (let to; from < letters.length; from = to) {
    for (to = from + 1; to < letters.length && marked[to] === marked[from]; ) to += 1;
    const piece = letters.slice(from, to).join("");
    parts.push(...(marked[from] ? [el("mark", {}, ...visible(piece))] : visible(piece)));
  }
  return { parts, missing };
}

// In the line of the first mark, and there at a word's begin where one is near enough.
function beginning(letters, mark, lead) {
  if (mark <= 0 || lead === Infinity) return 0;
  const line = letters.lastIndexOf("\n", mark - 1) + 1;
  const from = Math.max(line, mark - lead);
  if (from === line) return line;
  const blank = letters.indexOf(" ", from) + 1;
  return blank && blank < mark ? blank : from;
}

// A quote has blanks where its document has control characters.
const plain = (letters) => letters.map((letter) => (/\p{Cc}/u.test(letter) ? " " : letter)).join("");

function placeIn(letters, citation, begin) {
  const [start, end] = [citation.start - begin, citation.end - begin];
  if (start >= 0 && plain(letters.slice(start, end)) === citation.quote) return [start, end];
  const found = plain(letters).indexOf(citation.quote);
  if (found < 0 || !citation.quote) return null;
  const from = Array.from(plain(letters).slice(0, found)).length;
  return [from, from + Array.from(citation.quote).length];
}
