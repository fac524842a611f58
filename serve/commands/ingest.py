"""The commands `thresher ingest` and `thresher reindex`."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from serve.commands.terminal import INTERRUPTED, NamedTenant, Tenant, err, out, plain_errors, quiet_settings

if TYPE_CHECKING:
    from serve.commands.client import Client
    from serve.commands.sending import Following, Tally
    from serve.commands.sources import FoundFiles

_NAMED_JOBS = 5
_NAMED_KINDS = 10
_PLURALS = {
    "file without an ending": "files without an ending",
    "link out of the folder": "links out of the folder",
}

_Paths = Annotated[
    list[str], typer.Argument(help="Files, folders, and patterns in quotes such as 'docs/**/*.md'.")
]
_Pipeline = Annotated[
    str | None, typer.Option("--pipeline", "-p", help="Another indexing pipeline than `ingest`.")
]


def ingest(paths: _Paths, tenant: Tenant = None, pipeline: _Pipeline = None) -> None:
    """Ingest files of any kind that is read (docs/ingestion.md); one ingested again replaces what it was."""
    with plain_errors():
        from serve.commands.client import Client
        from serve.commands.listings import show_remarks, summary
        from serve.commands.sending import Remark, Sending
        from serve.commands.sources import find_files

        settings = quiet_settings()
        found = find_files(paths)
        say_what_was_left_out(found)
        refused = [Remark(_printable(file.path), "failed", file.reason) for file in found.refused]
        if not found.files:
            show_remarks(err, refused)
            err.print("[red]error:[/] there is no file to ingest")
            raise typer.Exit(1)
        begin = time.perf_counter()
        with (
            Client(settings, works=True) as client,
            shown_following(client, "ingesting", len(found.files)) as following,
        ):
            Sending(client, following, tenant, pipeline).send(found.files)
            tally = following.to_the_end()
        show_remarks(err, refused + tally.remarks)
        seconds = time.perf_counter() - begin
        out.print(summary(tally, following.tenant_id or tenant, seconds), highlight=False, soft_wrap=True)
        if refused or went_wrong(tally):
            raise typer.Exit(1)


def reindex(tenant: NamedTenant) -> None:
    """Build a tenant's index anew beside the old one, for another embedding model or splitter, and switch to it."""
    with plain_errors():
        from serve.commands.client import Client

        with Client(quiet_settings(), works=True) as client:
            follow_job(client, client.reindex(tenant), "reindexing")


def follow_job(client: "Client", job: dict[str, Any], what: str) -> None:
    """
    Follow one job to its end, print what became of it, and end with status 1 when something failed.

    :param client: the way to the service.
    :param job: the job.
    :param what: what is being done.
    """
    from serve.commands.listings import show_remarks, summary

    begin = time.perf_counter()
    with shown_following(client, what, job["total"]) as following:
        following.add(job)
        tally = following.to_the_end()
    show_remarks(err, tally.remarks)
    seconds = time.perf_counter() - begin
    out.print(summary(tally, following.tenant_id, seconds), highlight=False, soft_wrap=True)
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
def shown_following(client: "Client", what: str, total: int) -> Iterator["Following"]:
    """
    Follow jobs with a bar; on Ctrl-C say what becomes of them, and end the command.

    :param client: the way to the service.
    :param what: what is being done.
    :param total: documents there will be.
    :returns: follows the jobs that it is given.
    """
    from serve.commands.listings import tally_bar
    from serve.commands.sending import Following

    following = None
    try:
        with tally_bar(err, what, total) as report:
            following = Following(client, report, total)
            yield following
    except KeyboardInterrupt:
        if following is not None:
            _say_what_goes_on(following, client.here)
        raise typer.Exit(INTERRUPTED) from None


def _say_what_goes_on(following: "Following", here: bool) -> None:
    unsent = following.tally().total - sum(job["total"] for job in following.jobs.values())
    if unsent:
        _say(f"{'1 file was' if unsent == 1 else f'{unsent} files were'} not sent: give the command again")
    jobs = following.unfinished
    watch = [f"thresher jobs watch {job}" for job in jobs[:_NAMED_JOBS]]
    if len(jobs) == 1 and here:
        _say(
            f"stopping … what was sent is kept, and goes on with `thresher serve`, `thresher ingest` or `{watch[0]}`"
        )
    elif len(jobs) == 1:
        _say(f"the service goes on; `{watch[0]}` shows it again")
    elif jobs:
        _say(
            "stopping … what was sent is kept, and goes on with `thresher serve`, `thresher ingest` or, job by job:"
            if here
            else "the service goes on; its jobs are shown again by:"
        )
        for line in watch:
            _say(f"  {line}")
        if len(jobs) > _NAMED_JOBS:
            _say(
                f"  … and {len(jobs) - _NAMED_JOBS} more, which `thresher jobs --tenant {following.tenant_id}` lists"
            )


def _say(line: str) -> None:
    # In one line however narrow the terminal is, so that a command in it can be copied.
    err.print(line, markup=False, highlight=False, soft_wrap=True)


def _printable(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


def say_what_was_left_out(found: "FoundFiles") -> None:
    """
    Say of the files below folders that are not sent how many of which kind there are.

    :param found: the files.
    """
    if not (total := found.left_out.total()):
        return
    kinds = found.left_out.most_common(_NAMED_KINDS)
    others = total - sum(count for _, count in kinds)
    counts = [_counted(count, kind) for kind, count in kinds] + ([f"{others} others"] if others else [])
    few = found.left_out_first if total <= len(found.left_out_first) else []
    names = f" ({', '.join(_printable(path) for path in few)})" if few else ""
    err.print(
        Text(f"left out below folders: {', '.join(counts)}{names}"),
        style="dim",
        highlight=False,
        soft_wrap=True,
    )


def _counted(count: int, kind: str) -> str:
    return f"{count} {kind if count == 1 else _PLURALS.get(kind, f'{kind}s')}"
