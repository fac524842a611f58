// The routes of the service, read from its OpenAPI document; nothing is loaded from elsewhere.

import { getJSON, problemBox } from "./api.js";
import { codeBlock, el, fill, foreign, hint, visible, visibleJSON } from "./dom.js";
import { needsKey } from "./key.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const place = document.getElementById("operations");

/** Put what a schema refers to in its place; a schema that holds itself is named only. */
function resolved(part, whole, above = []) {
  if (Array.isArray(part)) return part.map((item) => resolved(item, whole, above));
  if (part === null || typeof part !== "object") return part;
  const name = part.$ref?.split("/").pop();
  if (name === undefined) {
    return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, resolved(value, whole, above)]));
  }
  return above.includes(name) ? name : resolved(whole.components.schemas[name], whole, [...above, name]);
}

function operationOf(method, path, operation, whole) {
  const parameters = (operation.parameters ?? []).map(({ name, in: where, required, description }) =>
    el(
      "li",
      {},
      el("code", {}, ...visible(name)),
      hint(` ${where}${required ? ", required" : ""}`),
      description ? foreign(`: ${description}`) : null,
    ));
  const bodies = Object.entries(operation.requestBody?.content ?? {}).map(([type, { schema }]) =>
    part(`Body: ${type}`, codeBlock("Schema of the body", code(resolved(schema, whole)))));
  const answers = Object.entries(operation.responses).map(([status, { description }]) =>
    el("li", {}, el("code", {}, status), " ", foreign(description ?? "")));
  return el(
    "details",
    { class: "command" },
    el("summary", {}, el("code", {}, `${method.toUpperCase()} `, ...visible(path)), " ", foreign(operation.summary ?? "")),
    operation.description ? el("p", { class: "text" }, foreign(operation.description)) : null,
    parameters.length ? part("Parameters", el("ul", {}, ...parameters)) : null,
    ...bodies,
    part("Answers", el("ul", {}, ...answers)),
  );
}

const code = (schema) => el("code", {}, visibleJSON(schema, 2));
const part = (title, content) => el("section", {}, el("h4", {}, title), content);

try {
  const whole = await getJSON("openapi.json");
  const found = Object.entries(whole.paths).flatMap(([path, operations]) =>
    METHODS.filter((method) => method in operations).map((method) =>
      operationOf(method, path, operations[method], whole)));
  fill(place, el("p", {}, foreign(whole.info.description ?? "")), ...found);
} catch (problem) {
  const advice = "Give the playground a good API key, then open this page in the same tab.";
  fill(place, needsKey(problem) ? problemBox(problem, advice) : problemBox(problem));
}
