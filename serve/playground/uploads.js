// Uploading files, and following the job that indexes them.

import { eventsAgain, Problem, problemBox, problemOf, send, serviceUrl } from "./api.js";
import { button, count, el, foreign, hint, say } from "./dom.js";
import { keyHeaders } from "./key.js";
import { nameOf } from "./tenants.js";

const NOT_SENT = {
  title: "Not sent",
  detail: "The service cannot be reached, or refused the files before they were whole.",
};
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
    this.cancel = button(null, {}, "Cancel");
    this.element = el(
      "li",
      { class: "upload" },
      el("strong", {}, foreign(name)),
      hint(" for ", foreign(nameOf(tenant))),
      this.bar,
      this.said,
      this.outcomes,
      this.cancel,
    );
    this.sendFiles(files);
  }

  sendFiles(files) {
    const form = new FormData();
    for (const file of files) form.append("files", file, file.webkitRelativePath || file.name);
    // `fetch` does not tell how much of a body is sent.
    const request = new XMLHttpRequest();
    request.open("POST", serviceUrl("ingest/files", { tenant_id: this.tenant }));
    for (const [name, value] of Object.entries(keyHeaders())) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => {
      this.bar.value = loaded / total;
      say(this.said, loaded < total ? "Sending…" : "Waiting for the service…");
    };
    request.onload = () => {
      const { status, responseText } = request;
      if (status === 202) this.follow(JSON.parse(responseText));
      else this.fail(problemOf(status, responseText, request.getResponseHeader("x-request-id")));
    };
    request.onerror = () => this.fail(new Problem(NOT_SENT, null));
    request.onabort = () => this.end("Cancelled: nothing was sent.");
    this.cancel.onclick = () => request.abort();
    request.send(form);
  }

  async follow(job) {
    const parameters = { tenant_id: this.tenant };
    this.cancel.onclick = async () => {
      try {
        await send(serviceUrl(`ingest/${job.job_id}`, parameters), { method: "DELETE" });
      } catch (problem) {
        this.outcomes.append(el("li", {}, problemBox(problem)));
      }
    };
    this.progress(job);
    try {
      for await (const { kind, data } of eventsAgain(serviceUrl(`ingest/${job.job_id}/events`, parameters))) {
        if (kind === "progress") this.progress(data);
        else if (kind === "source") this.outcome(data);
        else if (ENDINGS.includes(kind)) {
          this.ended(data);
          return;
        }
      }
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
    }
    this.end(`The service does not tell any more how far the job ${job.job_id} is.`);
  }

  progress({ progress, total, documents_ok, documents_skipped, documents_failed }) {
    this.bar.value = progress;
    const ready = documents_ok + documents_skipped + documents_failed;
    say(this.said, `Indexing: ${ready} of ${count(total, "document")}`);
  }

  outcome({ name, document_id, status, reason }) {
    if (status === "ok" && !reason) return;
    const why = reason ? [", ", foreign(reason)] : [];
    this.outcomes.append(el("li", {}, foreign(name || document_id), `: ${status}`, ...why));
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
    say(this.said, text);
    if (this.cancel.contains(document.activeElement)) document.getElementById("files").focus();
    this.cancel.remove();
    this.finished();
  }
}
