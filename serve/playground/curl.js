// A request as a curl command.

import { button, codeBlock, el, visibleJSON } from "./dom.js";
import { hasKey } from "./key.js";

// Never the key itself: commands are passed on, and shells remember them.
const KEY = '-H "Authorization: Bearer $THRESHER_API_KEY"';

/** Quote a word for a POSIX shell: inside single quotes nothing has a meaning but the quote itself. */
const quoted = (word) => `'${word.replaceAll("'", `'\\''`)}'`;

/**
 * Write a request with a JSON body as a command.
 * @param {string} url where it goes.
 * @param {Object} body its body.
 * @returns {string} the command, for a POSIX shell.
 */
export function curlCommand(url, body) {
  return [
    `curl -X POST ${quoted(url)}`,
    ...(hasKey() ? [KEY] : []),
    `-H ${quoted("Content-Type: application/json")}`,
    `--data-raw ${quoted(visibleJSON(body))}`,
  ].join(" \\\n  ");
}

/** Show a command with a button that copies it. */
export function commandBox(command) {
  const said = el("span", { role: "status", class: "hint" });
  const code = el("code", {}, command);
  const copy = async () => {
    said.textContent = (await copied(command, code)) ? "Copied." : "Marked: copy it with the keyboard.";
  };
  return el(
    "details",
    { class: "command" },
    el("summary", {}, "The request as curl"),
    codeBlock("curl command", code),
    button(copy, {}, "Copy"),
    " ",
    said,
  );
}

async function copied(text, shown) {
  try {
    // Not there on a page that came by plain HTTP from another machine.
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(shown);
    return document.execCommand("copy");
  }
}
