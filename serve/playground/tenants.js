// The tenants whose documents were seen in this browser, which remembers their names and offers them.

import { el, fill } from "./dom.js";

const KEY = "thresher.tenants";
const MOST = 10;

/** Name a tenant for people; null is the one of the API key. */
export const nameOf = (tenant) => tenant ?? "the key's tenant";

/** Offer the tenants in a list of suggestions. */
export function offerTenants(list) {
  fill(list, ...remembered().map((name) => el("option", { value: name })));
}

/** Remember a tenant, before those that came earlier. */
export function rememberTenant(name, list) {
  const names = [name, ...remembered().filter((other) => other !== name)].slice(0, MOST);
  try {
    localStorage.setItem(KEY, JSON.stringify(names));
  } catch {
    // A browser may keep nothing for pages; then nothing is offered.
    return;
  }
  offerTenants(list);
}

function remembered() {
  try {
    const names = JSON.parse(localStorage.getItem(KEY));
    return Array.isArray(names) ? names.map(String) : [];
  } catch {
    return [];
  }
}
