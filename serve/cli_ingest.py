"""The commands `thresher ingest` and `thresher reindex`."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from serve.terminal import NamedTenant, Tenant, err, out, plain_errors, quiet_settings

if TYPE_CHECKING:
    from serve.client import Client
    from serve.sending import Following, Tally
    from serve.sources import FoundFiles

INTERRUPTED = 130

_Paths = Annotated[
    list[str], typer.Argument(help="Files, folders, and patterns in quotes such as 'docs/**/*.md'.")
]
_Pipeline = Annotated[
    str | None, typer.Option("--pipeline", "-p", help="Another indexing pipeline than `ingest`.")
]


def ingest(paths: _Paths, tenant: Tenant = "default", pipeline: _Pipeline = None) -> None:
    """Ingest files of any kind that is read (docs/ingestion.md); one ingested again replaces what it was."""
    with plain_errors():
        from serve.client import Client
        from serve.listings import show_remarks, summary, tally_bar
        from serve.sending import Following, Remark, Sending
        from serve.sources import find_files

        settings = quiet_settings()
        found = find_files(paths)
        _say_what_was_left_out(found)
        refused = [Remark(_printable(file.path), "failed", file.reason) for file in found.refused]
        if not found.files:
            show_remarks(err, refused)
            err.print("[red]error:[/] there is no file to ingest")
            raise typer.Exit(1)
        begin = time.perf_counter()
        with Client(settings, works=True) as client, tally_bar(err, "ingesting") as report:
            following = Following(client, report, len(found.files))
            with interruptible(client, following):
                Sending(client, following, tenant, pipeline).send(found.files)
                tally = following.to_the_end()
        show_remarks(err, refused + tally.remarks)
        out.print(summary(tally, tenant, time.perf_counter() - begin), highlight=False, soft_wrap=True)
        if refused or went_wrong(tally):
            raise typer.Exit(1)


def reindex(tenant: NamedTenant) -> None:
    """Build a tenant's index anew beside the old one, for another embedding model or splitter, and switch to it."""
    with plain_errors():
        from serve.client import Client

        with Client(quiet_settings(), works=True) as client:
            follow_job(client, client.reindex(tenant), "reindexing")


def follow_job(client: "Client", job: dict[str, object], what: str) -> None:
    """
    Follow one job to its end, print what became of it, and end with status 1 when something failed.

    :param client: the way to the service.
    :param job: the job.
    :param what: what is being done.
    """
    from serve.listings import show_remarks, summary, tally_bar
    from serve.sending import Following

    begin = time.perf_counter()
    with tally_bar(err, what) as report:
        following = Following(client, report)
        following.add(job)
        with interruptible(client, following):
            tally = following.to_the_end()
    show_remarks(err, tally.remarks)
    seconds = time.perf_counter() - begin
    out.print(summary(tally, str(job["tenant_id"]), seconds), highlight=False, soft_wrap=True)
    if went_wrong(tally):
        raise typer.Exit(1)


def went_wrong(tally: "Tally") -> bool:
    """
    Say whether a command that ingests has failed: what is merely skipped, such as an empty file, is no failure.

    :param tally: what became of its documents.
    :returns: whether a document failed or was not reached.
    """
    return tally.failed > 0 or tally.done < tally.total


@contextmanager
def interruptible(client: "Client", following: "Following") -> Iterator[None]:
    """
    Say on Ctrl-C what becomes of the jobs, and end the command.

    :param client: the way to the service.
    :param following: has the jobs.
    """
    try:
        yield
    except KeyboardInterrupt:
        unsent = following.tally().total - sum(job["total"] for job in following.jobs.values())
        if unsent:
            err.print(f"{unsent} files were not sent: give the command again to send them")
        jobs = following.unfinished
        if jobs and client.here:
            err.print(
                f"stopping … what was sent is kept, and goes on with the next `thresher serve`,"
                f" `thresher ingest` or `thresher jobs watch {jobs[0]}`"
            )
        elif jobs:
            err.print(f"the service goes on; `thresher jobs watch {jobs[0]}` shows it again")
        raise typer.Exit(INTERRUPTED) from None


def _printable(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


def _say_what_was_left_out(found: "FoundFiles") -> None:
    if found.left_out:
        counts = ", ".join(f"{count} {what}" for what, count in sorted(found.left_out.items()))
        err.print(f"left out below folders: {escape(counts)}", style="dim", highlight=False, soft_wrap=True)
