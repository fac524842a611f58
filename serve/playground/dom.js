// Making elements. Whatever comes from documents, models or the network enters the page as text, never as markup.

/**
 * Make an element.
 * @param {string} tag its name.
 * @param {Object} attributes attributes; a function under `onclick` and the like listens, true sets, false and null leave out.
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

/** Wrap a text of unknown origin, so that its writing direction, or a character that turns it, stays inside. */
export const foreign = (text, attributes = {}) => el("bdi", attributes, text);

/** Put other children into an element. */
export const fill = (element, ...children) => element.replaceChildren(...children.filter((child) => child !== null));

/** Write a number of things: `1 chunk`, `2 chunks`. */
export const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

/** Write seconds with as many digits as can be read. */
export const seconds = (value) => `${value.toFixed(value < 1 ? 3 : value < 10 ? 2 : 1)} s`;
