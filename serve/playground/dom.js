// Making elements. What comes from documents, models or the network enters the page as text, never as markup.

/**
 * Make an element.
 * @param {string} tag its name.
 * @param {Object} attributes attributes; a function under `onclick` and the like listens, true sets, false and null
 *   leave out.
 * @param {...(Node|string|null)} children elements, texts; null is left out.
 * @returns {HTMLElement} the element.
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// Embeddings, overrides and isolates, with which a text can show other words than it has. Right-to-left and
// left-to-right marks are not among them: they turn no letters, and honest texts are full of them.
const TURNING = /([\u202a-\u202e\u2066-\u2069])/;
const hexadecimal = (character) => character.charCodeAt(0).toString(16).padStart(4, "0");

/** Split a text of unknown origin so that a character that turns the direction of writing is seen and turns nothing. */
export function visible(text) {
  return text.split(TURNING).map((part) => {
    if (!TURNING.test(part)) return part;
    const title = "A character that turns the direction of writing";
    return el("span", { class: "turning", title }, `U+${hexadecimal(part).toUpperCase()}`);
  });
}

/** Write JSON in which no character turns the direction of writing; its meaning is the same. */
export const visibleJSON = (value, indent) =>
  JSON.stringify(value, null, indent).replace(new RegExp(TURNING, "g"), (part) => `\\u${hexadecimal(part)}`);

/** Wrap a text of unknown origin, so that its direction of writing is its own. */
export const foreign = (text, attributes = {}) => el("bdi", attributes, ...visible(text));

/** Make a button. */
export const button = (onclick, attributes, ...children) =>
  el("button", { type: "button", onclick, ...attributes }, ...children);

/** Make a remark. */
export const hint = (...children) => el("span", { class: "hint" }, ...children);

/** Make a place for text that is as long as it is: it scrolls, with the keyboard too. */
export const codeBlock = (label, code) =>
  el("pre", { tabindex: "0", role: "region", "aria-label": label }, code);

/** Put other children into an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null));
}

/** Say something in a live region, which tells again what is written into it again. */
export function say(region, text) {
  if (region.textContent !== text) region.textContent = text;
}

/** Write a number of things: `1 chunk`, `2 chunks`. */
export const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

/** Write seconds with as many digits as can be read. */
export const seconds = (value) => `${value.toFixed(value < 1 ? 3 : value < 10 ? 2 : 1)} s`;
