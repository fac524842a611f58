"""Jobs, documents and what is to be said of files as tables on a terminal."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from serve.commands.replies import Json
from serve.commands.sending import Remark, Report, Tally

_CHUNK_CHARS = 160
_ANY_WIDTH = 100_000
_COLOURS = {
    "done": "green",
    "ok": "green",
    "running": "cyan",
    "skipped": "yellow",
    "failed": "red",
    "cancelled": "red",
}


@dataclass(frozen=True)
class _Column:
    """A column of a list; the spare ones are left out where the terminal is too narrow."""

    name: str
    cell: Callable[[Json], str | Text]
    spare: bool = False


def show_jobs(console: Console, jobs: Iterable[Json]) -> None:
    """
    Print jobs, one a line.

    :param console: where to.
    :param jobs: the jobs.
    """
    columns = (
        _Column("job", lambda job: job["job_id"]),
        _Column("status", lambda job: _status(job["status"])),
        _Column("kind", lambda job: job["kind"], spare=True),
        _Column("documents", lambda job: f"{job['documents_ok']}/{job['total']}"),
        _Column("skipped", lambda job: _count(job["documents_skipped"]), spare=True),
        _Column("failed", lambda job: _count(job["documents_failed"])),
        _Column("chunks", lambda job: str(job["chunks_ok"]), spare=True),
        _Column("created", lambda job: _time(job["created_at"])),
    )
    _show_list(console, columns, list(jobs))


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
        table = _named("document", "outcome", "chunks", "why")
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
    columns = (
        _Column("document", lambda document: Text(document["document_id"])),
        _Column("title", lambda document: Text(document["title"] or ""), spare=True),
        _Column("chunks", lambda document: str(document["chunks"])),
        _Column("ingested", lambda document: _time(document["ingested_at"])),
        _Column("job", lambda document: document.get("job_id") or "", spare=True),
    )
    _show_list(console, columns, list(documents))


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


def show_keys(console: Console, keys: Iterable[Json]) -> None:
    """
    Print API keys, one a line.

    :param console: where to.
    :param keys: the keys, without their hashes.
    """
    columns = (
        _Column("key", lambda key: Text(key["id"])),
        _Column("name", lambda key: Text(key["name"] or "")),
        _Column("tenants", lambda key: Text(", ".join(key["tenants"]))),
        _Column("roles", lambda key: Text(", ".join(key["roles"]))),
        _Column("created", lambda key: _time(key["created_at"]), spare=True),
        _Column(
            "expires",
            lambda key: Text("expired", "red") if key["expired"] else _time(key["expires_at"]) or "never",
        ),
        _Column("from", lambda key: "API_KEYS" if key["kept_in"] == "API_KEYS" else "file"),
    )
    _show_list(console, columns, list(keys))


def show_remarks(console: Console, remarks: Iterable[Remark]) -> None:
    """
    Print which files were not indexed, or not whole, and why.

    :param console: where to.
    :param remarks: the files; nothing is printed where there are none.
    """
    table = _named("file", "outcome", "why")
    for remark in remarks:
        table.add_row(Text(remark.name), _status(remark.status), Text(remark.reason))
    if table.row_count:
        console.print(table)


@contextmanager
def tally_bar(console: Console, what: str, total: int) -> Iterator[Report]:
    """
    Show a bar of documents with chunks a second and failures.

    :param console: where to draw it; nothing is drawn where that is no terminal.
    :param what: what is being done.
    :param total: documents there will be, as far as that is known.
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
        task = progress.add_task(what, total=total, rate="", trouble="", waiting="")

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


def summary(tally: Tally, tenant_id: str | None, seconds: float) -> str:
    """
    Say in one line what became of documents.

    :param tally: the documents.
    :param tenant_id: whose they are; None where nobody knows, for none was taken.
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
    owner = f" for tenant '{tenant_id}'" if tenant_id else ""
    return f"{documents}: {', '.join(parts)}; {chunks}{owner} in {seconds:.1f} s"


def _show_list(console: Console, columns: Sequence[_Column], items: Sequence[Json]) -> None:
    """Print a list whose first column, an id, is never cut; another program gets every column in one line."""
    table = _list(columns, items)
    width = Measurement.get(console, console.options.update(width=_ANY_WIDTH), table).maximum
    if not console.is_terminal:
        table.width = width
    elif width > console.width:
        table = _list([column for column in columns if not column.spare], items)
    console.print(table, crop=False)


def _list(columns: Sequence[_Column], items: Sequence[Json]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column.name, overflow="fold", no_wrap=place > 0)
    for item in items:
        table.add_row(*(column.cell(item) for column in columns))
    return table


def _named(name: str, *others: str) -> Table:
    """A table of files or documents, whose names are not cut."""
    table = Table()
    table.add_column(name, overflow="fold")
    for other in others:
        table.add_column(other)
    return table


def _status(status: str) -> Text:
    return Text(status, style=_COLOURS.get(status, ""))


def _count(count: int) -> str:
    return str(count) if count else ""


def _time(moment: str | None) -> str:
    return "" if moment is None else f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M:%S}"
