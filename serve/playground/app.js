// The page: its forms, and what they start.

import { AnswerPanel } from "./answer.js";
import { getJSON, problemBox } from "./api.js";
import { el, fill, foreign, say } from "./dom.js";
import { Holdings } from "./holdings.js";
import { hasKey, needsKey, useKey } from "./key.js";
import { watchService } from "./service.js";
import { nameOf, offerTenants, rememberTenant } from "./tenants.js";
import { Upload } from "./uploads.js";

const at = (id) => document.getElementById(id);
const named = ["tenant", "mode", "compared", "model", "k", "question"];
const fields = Object.fromEntries(named.map((id) => [id, at(id)]));
const [form, stop, answers] = ["ask", "stop", "answers"].map(at);
const [uploadForm, files, uploads] = ["upload", "files", "uploads"].map(at);
const holdings = new Holdings(at("holdings"), (name) => rememberTenant(name, at("tenants")));
const modes = new Map();
// Long enough for the next key: not every beginning of a name is looked up.
const TYPING = 300;
const DEFAULT = "default";
const [access, key, forget] = ["access", "key", "forget"].map(at);
const KEY = {
  missing: "This service asks for an API key. Who runs it gives them.",
  refused: "This key is unknown, revoked or expired. Write another one.",
  used: "A key is in use in this tab.",
};
let panels = [];

// A key of one tenant need not name it.
const tenant = () => fields.tenant.value.trim() || (access.hidden ? DEFAULT : null);

function option(value, text = value) {
  return el("option", { value }, text);
}

function choose(select, value) {
  const there = [...select.options].some((choice) => choice.value === value);
  if (there) select.value = value;
  return there;
}

/** What was chosen is in the page's address, so that it can be loaded again and passed on. */
function restore(...names) {
  const kept = new URLSearchParams(location.hash.slice(1));
  for (const name of names.filter((name) => kept.has(name))) {
    const field = fields[name];
    if (!(field instanceof HTMLSelectElement)) field.value = kept.get(name);
    else if (!choose(field, kept.get(name))) lacking(field.labels[0].textContent, kept.get(name), field.value);
  }
}

/** Say that the address names what is not there, and what is chosen in its place. */
function lacking(label, name, chosen) {
  const instead = chosen ? [", so ", foreign(chosen), " is chosen"] : [];
  const told = [`${label}: there is no “`, foreign(name), "” here", ...instead, "."];
  at("lacking").append(el("p", { class: "notice" }, ...told));
}

function keep() {
  // Before there are modes to choose from, the address knows better.
  if (!modes.size) return;
  const chosen = Object.entries(fields).map(([name, field]) => [name, field.value]);
  history.replaceState(null, "", `#${new URLSearchParams(chosen.filter(([, value]) => value))}`);
}

function describeModes() {
  const chosen = [fields.mode.value, fields.compared.value].filter((name) => modes.has(name));
  const described = chosen.map((name) => `${name}: ${modes.get(name).description}`);
  at("mode-description").textContent = described.join(" ");
}

function body(mode) {
  const asked = { q: fields.question.value, mode: mode.name };
  if (tenant()) asked.tenant_id = tenant();
  if (fields.model.value && mode.inputs.includes("model")) asked.model = fields.model.value;
  if (fields.k.value && mode.inputs.includes("top_k")) asked.k = Number(fields.k.value);
  return asked;
}

async function ask() {
  if (!modes.size) await loadModes();
  if (!modes.size) {
    if (!access.hidden) key.focus();
    return;
  }
  leave();
  keep();
  const names = new Set([fields.mode.value, fields.compared.value].filter(Boolean));
  const mine = [...names].map((name) => new AnswerPanel(modes.get(name), body(modes.get(name))));
  panels = mine;
  fill(answers, ...mine.map((panel) => panel.element));
  answers.classList.toggle("side-by-side", mine.length > 1);
  stop.disabled = false;
  const first = mine.map((panel) => panel.ask());
  const problems = await Promise.all(mine.map((panel, at) => askInTurn(panel, first[at], first)));
  if (panels !== mine) return;
  if (stop === document.activeElement) fields.question.focus();
  stop.disabled = true;
  // What the service could not do may have a reason that its state tells.
  if (problems.some(Boolean)) watch();
}

/** Where the service has no room for both questions, one comes after the other. */
async function askInTurn(panel, own, all) {
  const problem = await own;
  if (problem?.kind !== "overloaded" || all.length === 1) return problem;
  panel.wait();
  await Promise.all(all);
  return panel.ask();
}

function leave() {
  for (const panel of panels) panel.stop();
}

let watching = false;
let known = false;
async function watch() {
  if (watching) return;
  watching = true;
  await watchService(at("service"), ({ llm }) => {
    const chosen = fields.model.value;
    fill(fields.model, option("", `default (${llm.model})`), ...llm.models.map((name) => option(name)));
    if (chosen) choose(fields.model, chosen);
    else if (!known) restore("model");
    known = true;
  });
  watching = false;
}

async function loadModes() {
  try {
    const { items } = await getJSON("modes");
    for (const mode of items) modes.set(mode.name, mode);
    fill(fields.mode, ...items.map(({ name }) => option(name)));
    fill(fields.compared, option("", "nothing"), ...items.map(({ name }) => option(name)));
    choose(fields.mode, "standard");
    restore("mode", "compared");
    describeModes();
  } catch (problem) {
    // A key is asked for at the top of the page.
    if (!needsKey(problem)) fill(answers, problemBox(problem));
  }
}

function showTenant() {
  fill(at("owner"), foreign(nameOf(tenant())));
  holdings.show(tenant());
}

/** Show the field for the key, and how it is with the key that there is. */
function showAccess(refused = false) {
  // The tenant field's first value is nobody's choice; the key knows its tenant.
  if (access.hidden && fields.tenant.value === DEFAULT) fields.tenant.value = "";
  fields.tenant.placeholder = "the key's";
  access.hidden = false;
  forget.hidden = !hasKey();
  say(at("key-hint"), hasKey() ? (refused ? KEY.refused : KEY.used) : KEY.missing);
}

/** Begin anew with another key, or with none. */
async function takeKey(given) {
  useKey(given);
  key.value = "";
  fill(answers);
  showAccess();
  watch();
  await loadModes();
  showTenant();
}

function upload(chosen) {
  if (!chosen.length) return;
  const owner = tenant();
  const refresh = () => owner === tenant() && holdings.show(owner);
  uploads.prepend(new Upload(owner, [...chosen], refresh).element);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
stop.addEventListener("click", leave);
fields.question.addEventListener("keydown", (event) => {
  // While a word is still being put together by an input method, Enter belongs to that.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});
form.addEventListener("change", () => {
  fill(at("lacking"));
  keep();
  describeModes();
});
access.addEventListener("submit", (event) => {
  event.preventDefault();
  if (key.value.trim()) takeKey(key.value.trim());
});
forget.addEventListener("click", () => takeKey(null));
addEventListener("keyneeded", () => showAccess(hasKey()));
let typing;
fields.tenant.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(showTenant, TYPING);
});
addEventListener("hashchange", () => {
  // A link to this page, opened in this page, loads nothing anew.
  fill(at("lacking"));
  restore(...named);
  describeModes();
  showTenant();
});
uploadForm.addEventListener("submit", (event) => {
  event.preventDefault();
  upload(files.files);
  uploadForm.reset();
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  // Without this, the browser would open the file in place of the page.
  event.preventDefault();
  upload(event.dataTransfer.files);
});

at("unloaded").remove();
if (hasKey()) showAccess();
restore("tenant", "k", "question");
watch();
offerTenants(at("tenants"));
await loadModes();
showTenant();
