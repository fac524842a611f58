// What a tenant holds.

import { getJSON, problemBox } from "./api.js";
import { button, count, el, fill, foreign, hint, visible } from "./dom.js";
import { needsKey } from "./key.js";
import { nameOf } from "./tenants.js";

const PAGE = 50;
const DEFAULT = "default";
const ABOVE = "Upload some above, or with this command:";
const DEMO = () => el("a", { href: "#tenant=demo" }, "demo");

/** The list of a tenant's documents. */
export class Holdings {
  /**
   * @param {HTMLElement} place where it is shown.
   * @param {function(string): void} found called with each tenant that holds something.
   */
  constructor(place, found) {
    this.place = place;
    this.found = found;
  }

  /** Show a tenant's documents anew. */
  async show(tenant) {
    this.tenant = tenant;
    const shown = await contentOf(tenant, this.found);
    // Another tenant may have been chosen meanwhile.
    if (this.tenant === tenant) fill(this.place, ...shown);
  }
}

const pageOf = (tenant, cursor) => getJSON("documents", { tenant_id: tenant, limit: PAGE, cursor });

async function contentOf(tenant, found) {
  try {
    const { items, next } = await pageOf(tenant, null);
    if (!items.length) return [nothingYet(tenant)];
    if (tenant) found(tenant);
    const list = el("ul", { class: "plain holdings" }, ...items.map(documentItem));
    return [el("h3", {}, "What ", foreign(nameOf(tenant)), " holds"), list, next && moreButton(tenant, list, next)];
  } catch (problem) {
    // The top of the page asks for the key.
    if (needsKey(problem)) return [];
    return [problem.kind === "unknown-tenant" ? nothingYet(tenant) : problemBox(problem)];
  }
}

function moreButton(tenant, list, cursor) {
  const more = button(async () => {
    try {
      const page = await pageOf(tenant, cursor);
      const added = page.items.map(documentItem);
      list.append(...added);
      cursor = page.next;
      // A button that goes must not take the focus with it.
      if (cursor === null) added[0]?.focus();
      more.hidden = cursor === null;
    } catch (problem) {
      more.before(problemBox(problem));
    }
  }, {}, "Show more");
  return more;
}

function documentItem({ document_id, title, chunks }) {
  const id = title && title !== document_id ? hint(" ", foreign(document_id)) : null;
  return el("li", { tabindex: "-1" }, foreign(title || document_id), id, hint(` ${count(chunks, "chunk")}`));
}

function nothingYet(tenant) {
  const command = el("code", {}, ...visible(`thresher ingest FILES --tenant ${tenant ?? "NAME"}`));
  const demo = el("p", {}, el("code", {}, "make demo"), " gives some to the tenant ", DEMO(), ".");
  return el(
    "div",
    {},
    el("p", {}, ...(tenant ? ["The tenant ", foreign(tenant)] : ["The key's tenant"]), " has no documents yet. ", ABOVE),
    el("p", {}, command),
    // Whoever opens the page for the first time has not chosen this tenant.
    tenant === DEFAULT ? demo : null,
  );
}
