"""Jobs, documents and what is to be said of files as tables on a terminal."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from serve.client import Json
from serve.sending import Remark, Report, Tally

_CHUNK_CHARS = 160
_COLOURS = {
    "done": "green",
    "ok": "green",
    "running": "cyan",
    "skipped": "yellow",
    "failed": "red",
    "cancelled": "red",
}


def show_jobs(console: Console, jobs: Iterable[Json]) -> None:
    """
    Print jobs, one a line.

    :param console: where to.
    :param jobs: the jobs.
    """
    table = Table("job", "status", "kind", "documents", "skipped", "failed", "chunks", "created")
    for job in jobs:
        table.add_row(
            job["job_id"],
            _status(job["status"]),
            job["kind"],
            f"{job['documents_ok']}/{job['total']}",
            _count(job["documents_skipped"]),
            _count(job["documents_failed"]),
            str(job["chunks_ok"]),
            _time(job["created_at"]),
        )
    console.print(table)


def show_job(console: Console, job: Json) -> None:
    """
    Print a job with what became of its documents.

    :param console: where to.
    :param job: the job.
    """
    facts = Table(box=None, show_header=False, padding=(0, 1))
    for name in ("job_id", "tenant_id", "kind", "pipeline", "status", "error", "request_id", "attempts"):
        if job.get(name) not in (None, ""):
            facts.add_row(Text(name, style="dim"), _status(str(job[name])))
    facts.add_row(
        Text("documents", style="dim"),
        f"{job['total']}: {job['documents_ok']} ok, {job['documents_skipped']} skipped,"
        f" {job['documents_failed']} failed; {job['chunks_ok']} chunks",
    )
    for name in ("created_at", "started_at", "finished_at"):
        if job.get(name):
            facts.add_row(Text(name.removesuffix("_at"), style="dim"), _time(job[name]))
    console.print(facts)
    if job["sources"]:
        table = Table("document", "outcome", "chunks", "why")
        for source in job["sources"]:
            name = source["name"] or source["document_id"]
            why = Text(source["reason"] or "")
            table.add_row(Text(name), _status(source["status"]), _count(source["chunks"]), why)
        console.print(table)


def show_documents(console: Console, documents: Iterable[Json]) -> None:
    """
    Print documents, one a line.

    :param console: where to.
    :param documents: the documents.
    """
    table = Table("document", "title", "chunks", "ingested", "job")
    for document in documents:
        table.add_row(
            Text(document["document_id"]),
            Text(document["title"] or ""),
            str(document["chunks"]),
            _time(document["ingested_at"]),
            document.get("job_id") or "",
        )
    console.print(table)


def show_document(console: Console, document: Json) -> None:
    """
    Print a document with its chunks.

    :param console: where to.
    :param document: the document.
    """
    facts = Table(box=None, show_header=False, padding=(0, 1))
    for name in ("document_id", "title", "source", "pipeline", "job_id"):
        if document[name]:
            facts.add_row(Text(name, style="dim"), Text(document[name]))
    facts.add_row(Text("ingested", style="dim"), _time(document["ingested_at"]))
    for name, value in document["meta"].items():
        facts.add_row(Text(f"meta.{name}", style="dim"), Text(str(value)))
    console.print(facts)
    table = Table("start", "page", "section", "text")
    for chunk in document["items"]:
        page, section = chunk["page"], chunk["section"]
        text = " ".join(chunk["text"].split())
        shown = text if len(text) <= _CHUNK_CHARS else text[: _CHUNK_CHARS - 1] + "…"
        table.add_row(str(chunk["start"]), str(page or ""), Text(section or ""), Text(shown))
    console.print(table)


def show_remarks(console: Console, remarks: Iterable[Remark]) -> None:
    """
    Print which files were not indexed, or not whole, and why.

    :param console: where to.
    :param remarks: the files; nothing is printed where there are none.
    """
    table = Table("file", "outcome", "why")
    for remark in remarks:
        table.add_row(Text(remark.name), _status(remark.status), Text(remark.reason))
    if table.row_count:
        console.print(table)


@contextmanager
def tally_bar(console: Console, what: str) -> Iterator[Report]:
    """
    Show a bar of documents with chunks a second and failures.

    :param console: where to draw it; nothing is drawn where that is no terminal.
    :param what: what is being done.
    :returns: takes how far it is.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} documents"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[trouble]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[waiting]}", style="dim"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None, rate="", trouble="", waiting="")

        def report(tally: Tally) -> None:
            seconds = progress.tasks[task].elapsed or 0.0
            rate = f"{tally.chunks / seconds:.1f} chunks/s" if seconds and tally.chunks else ""
            trouble = f"[red]{tally.failed} failed[/]" if tally.failed else ""
            progress.update(
                task,
                completed=tally.done,
                total=tally.total,
                rate=rate,
                trouble=trouble,
                waiting=tally.waiting,
            )

        yield report


def summary(tally: Tally, tenant_id: str, seconds: float) -> str:
    """
    Say in one line what became of documents.

    :param tally: the documents.
    :param tenant_id: whose they are.
    :param seconds: how long it took.
    :returns: the line.
    """
    unchanged = f" ({tally.unchanged} unchanged)" if tally.unchanged else ""
    parts = [f"{tally.ok} indexed{unchanged}"]
    parts += [f"{tally.skipped} skipped"] if tally.skipped else []
    parts += [f"{tally.failed} failed"] if tally.failed else []
    lost = tally.total - tally.done
    parts += [f"{lost} not reached"] if lost else []
    documents = "1 document" if tally.total == 1 else f"{tally.total} documents"
    chunks = "1 chunk" if tally.chunks == 1 else f"{tally.chunks} chunks"
    return f"{documents}: {', '.join(parts)}; {chunks} for tenant '{tenant_id}' in {seconds:.1f} s"


def _status(status: str) -> Text:
    return Text(status, style=_COLOURS.get(status, ""))


def _count(count: int) -> str:
    return str(count) if count else ""


def _time(moment: str | None) -> str:
    return "" if moment is None else f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M:%S}"
