// Uploading files, and following the job that indexes them.

import { Problem, problemBox, problemOf, send, serviceUrl } from "./api.js";
import { count, el, fill, foreign } from "./dom.js";

const ENDINGS = ["done", "failed", "cancelled"];

/** One upload: first its bytes are sent, then its job indexes them. */
export class Upload {
  /**
   * @param {string} tenant whose documents these are.
   * @param {File[]} files the files.
   * @param {function(): void} finished called when the job has ended.
   */
  constructor(tenant, files, finished) {
    this.tenant = tenant;
    this.finished = finished;
    const name = files.length === 1 ? files[0].name : count(files.length, "file");
    this.bar = el("progress", { max: "1", value: "0", "aria-label": `Upload of ${name}` });
    this.said = el("p", { role: "status", class: "hint" }, "Sending…");
    this.outcomes = el("ul", { class: "plain outcomes" });
    this.cancel = el("button", { type: "button" }, "Cancel");
    this.element = el("li", { class: "upload" }, el("strong", {}, foreign(name)), this.bar, this.said, this.outcomes, this.cancel);
    this.sendFiles(files);
  }

  sendFiles(files) {
    const form = new FormData();
    for (const file of files) form.append("files", file, file.webkitRelativePath || file.name);
    // `fetch` does not tell how much of a body is sent.
    const request = new XMLHttpRequest();
    request.open("POST", serviceUrl("ingest/files", { tenant_id: this.tenant }));
    request.upload.onprogress = ({ loaded, total }) => {
      this.bar.value = loaded / total;
      this.say(loaded < total ? "Sending…" : "Waiting for the service…");
    };
    request.onload = () => {
      if (request.status === 202) this.follow(JSON.parse(request.responseText));
      else this.fail(problemOf(request.status, request.responseText, request.getResponseHeader("x-request-id")));
    };
    request.onerror = () => {
      const detail = "The files could not be sent: the service cannot be reached, or refused them before they were whole.";
      this.fail(new Problem({ title: "Not sent", detail }, null));
    };
    request.onabort = () => this.end("Cancelled: nothing was sent.");
    this.cancel.onclick = () => request.abort();
    request.send(form);
  }

  follow(job) {
    const parameters = { tenant_id: this.tenant };
    const events = new EventSource(serviceUrl(`ingest/${job.job_id}/events`, parameters));
    this.cancel.onclick = async () => {
      try {
        await send(serviceUrl(`ingest/${job.job_id}`, parameters), { method: "DELETE" });
      } catch (problem) {
        this.outcomes.append(el("li", {}, problemBox(problem)));
      }
    };
    this.progress(job);
    events.addEventListener("progress", ({ data }) => this.progress(JSON.parse(data)));
    events.addEventListener("source", ({ data }) => this.outcome(JSON.parse(data)));
    for (const ending of ENDINGS) {
      events.addEventListener(ending, ({ data }) => {
        events.close();
        this.ended(JSON.parse(data));
      });
    }
    events.addEventListener("error", () => {
      // Otherwise the browser connects again by itself, and the service goes on where it was.
      if (events.readyState === EventSource.CLOSED) this.end(`The service does not tell any more how far the job ${job.job_id} is.`);
    });
  }

  progress({ progress, total, documents_ok, documents_skipped, documents_failed }) {
    this.bar.value = progress;
    this.say(`Indexing: ${documents_ok + documents_skipped + documents_failed} of ${count(total, "document")}`);
  }

  outcome({ name, document_id, status, reason }) {
    if (status === "ok" && !reason) return;
    this.outcomes.append(el("li", {}, foreign(name || document_id), `: ${status}`, reason ? ", " : null, reason ? foreign(reason) : null));
  }

  ended(job) {
    const parts = [`${count(job.documents_ok, "document")} indexed`, count(job.chunks_ok, "new chunk")];
    if (job.documents_skipped) parts.push(`${job.documents_skipped} skipped`);
    if (job.documents_failed) parts.push(`${job.documents_failed} failed`);
    if (job.status === "cancelled") parts.push("cancelled");
    if (job.error) this.outcomes.append(el("li", {}, foreign(job.error)));
    this.bar.value = job.progress;
    this.end(`${parts.join(", ")}.`);
  }

  fail(problem) {
    this.outcomes.append(el("li", {}, problemBox(problem)));
    this.end("Not uploaded.");
  }

  end(text) {
    this.say(text);
    if (this.cancel.contains(document.activeElement)) document.getElementById("files").focus();
    this.cancel.remove();
    this.finished();
  }

  say(text) {
    if (this.said.textContent !== text) this.said.textContent = text;
  }
}

/** What a tenant holds. */
export class Holdings {
  /** @param {HTMLElement} place where it is shown. */
  constructor(place) {
    this.place = place;
  }

  /** Show a tenant's documents anew. */
  async show(tenant) {
    this.tenant = tenant;
    try {
      const page = await this.page(tenant, null);
      if (this.tenant === tenant) this.render(tenant, page);
    } catch (problem) {
      if (this.tenant === tenant) fill(this.place, problem.kind === "unknown-tenant" ? nothingYet(tenant) : problemBox(problem));
    }
  }

  async page(tenant, cursor) {
    return (await send(serviceUrl("documents", { tenant_id: tenant, limit: 50, cursor }))).json();
  }

  render(tenant, { items, next }) {
    if (!items.length) return fill(this.place, nothingYet(tenant));
    const list = el("ul", { class: "plain holdings" }, ...items.map(documentItem));
    const more = el("button", { type: "button" }, "Show more");
    let cursor = next;
    more.hidden = cursor === null;
    more.onclick = async () => {
      try {
        const page = await this.page(tenant, cursor);
        const added = page.items.map(documentItem);
        list.append(...added);
        cursor = page.next;
        // A button that goes must not take the focus with it.
        if (cursor === null) added[0]?.focus();
        more.hidden = cursor === null;
      } catch (problem) {
        more.before(problemBox(problem));
      }
    };
    return fill(this.place, el("h3", {}, "What ", foreign(tenant), " holds"), list, more);
  }
}

function documentItem({ document_id, title, chunks }) {
  const id = title && title !== document_id ? [" ", foreign(document_id, { class: "hint" })] : [];
  return el("li", { tabindex: "-1" }, foreign(title || document_id), ...id, el("span", { class: "hint" }, ` ${count(chunks, "chunk")}`));
}

function nothingYet(tenant) {
  return el(
    "p",
    { class: "empty" },
    "The tenant ",
    foreign(tenant),
    " has no documents yet. Upload some above, or with the command ",
    el("code", {}, `thresher ingest FILES --tenant ${tenant}`),
    ".",
  );
}
