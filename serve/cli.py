"""The command `thresher`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from modes.checking import Fault, PipelineFileError
from serve import cli_models
from settings import Settings

app = typer.Typer(
    name="thresher",
    help="Retrieval-augmented generation as named modes: ask, ingest, serve.\n\n"
    "Settings come from the environment, then from `.env`; docs/settings.md lists them. While a service runs on the"
    " data directory, `ask` and `ingest` talk to it; otherwise they open the data themselves.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(cli_models.app, name="models")

out = Console()
err = Console(stderr=True)

_OWN_MODULES = ("components", "modes", "registry", "serve", "settings")

Tenant = Annotated[str, typer.Option("--tenant", "-t", help="Whose documents.")]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind, instead of HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to bind, instead of PORT; 0 takes a free one.")
    ] = None,
) -> None:
    """Start the HTTP service. Stop it with Ctrl-C; jobs under way go on at the next start."""
    with _plain_errors():
        overrides = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
        settings = Settings.load(**overrides)
        from serve import server
        from serve.app import build_app
        from serve.service import Service
        from serve.telemetry import configure_logging

        bound = server.bind(settings)
        configure_logging(settings.log_level)
        service = Service(settings)
        url = server.url_of(bound)
        err.print(
            f"Thresher on [bold]{url}[/] — API: {url}/docs — data: {escape(str(settings.data_dir))}",
            soft_wrap=True,
        )
        server.run(build_app(service), bound, service.lock)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    mode: Annotated[
        str, typer.Option("--mode", "-m", help="Which mode answers; `thresher modes` lists them.")
    ] = "standard",
    tenant: Tenant = "default",
    k: Annotated[int | None, typer.Option("--k", "-k", min=1, help="Chunks to retrieve.")] = None,
    model: Annotated[str | None, typer.Option(help="Another language model, of those allowed.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Ask a question; for example `thresher ask "What is a mode?" --mode crag --tenant demo`."""
    with _plain_errors():
        from serve.client import open_client
        from serve.display import show_result

        settings = Settings.load()
        _quiet(settings)
        if not question.strip():
            raise typer.BadParameter("the question is empty")
        with open_client(settings) as client, err.status(f"asking {client.where} …"):
            result = client.ask(question, mode, tenant, k, model)
        if as_json:
            sys.stdout.write(json.dumps(result.model_dump(), ensure_ascii=False, indent=2) + "\n")
        else:
            show_result(out, result)


@app.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Text files, and directories of them.", exists=True)],
    tenant: Tenant = "default",
) -> None:
    """Ingest text files (`.md`, `.rst`, `.txt`); a file ingested again replaces what it was."""
    with _plain_errors():
        from serve.client import open_client
        from serve.sources import read_sources

        settings = Settings.load()
        _quiet(settings)
        documents, skipped = read_sources(paths)
        for file in skipped:
            err.print(f"[yellow]skipped[/] {escape(str(file.path))}: {escape(file.reason)}")
        if documents:
            with open_client(settings) as client, progress_bar("ingesting", len(documents)) as advance:
                result = client.ingest(documents, tenant, advance)
            for error in result.errors:
                err.print(f"[red]failed[/] {escape(error)}", soft_wrap=True)
            out.print(f"{result.documents} documents, {result.chunks} chunks for tenant '{tenant}'")
        if skipped or not documents or result.errors:
            raise typer.Exit(1)


@app.command()
def modes() -> None:
    """List the modes."""
    with _plain_errors():
        from registry import ModeRegistry

        settings = Settings.load()
        _quiet(settings)
        with ModeRegistry(settings) as registry:
            table = Table("mode", "from", "what it does")
            for mode in registry.values():
                table.add_row(mode.name, mode.origin, mode.description)
            out.print(table)
            _print_faults(registry.faults)


@app.command()
def check(files: Annotated[list[Path], typer.Argument(help="Pipeline files.")]) -> None:
    """Check pipeline files as the registry does: prints every fault as `file:line: what`, exits 1 if there is one."""
    with _plain_errors():
        from registry import build
        from resources import Resources

        settings = Settings.load()
        _quiet(settings)
        resources = Resources(settings)
        faults = []
        for file in files:
            try:
                build(file, settings, resources)
            except PipelineFileError as error:
                faults.extend(error.faults)
        resources.close()
        if not faults:
            out.print(f"{len(files)} file{'s' if len(files) != 1 else ''}: no fault")
        _print_faults(faults)


@app.command()
def demo(
    docs: Annotated[Path | None, typer.Option(help="Directory of text files to ask about.")] = None,
    tenant: Tenant = "demo",
) -> None:
    """Ingest Thresher's own documentation, and ask a few questions in every mode."""
    with _plain_errors():
        from serve.demo import run_demo

        settings = Settings.load()
        _quiet(settings)
        run_demo(settings, out, docs, tenant)


def main() -> None:
    """Run the command."""
    app()


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[cli_models.Advance]:
    """
    Show a bar of documents.

    :param what: what is being done.
    :param total: how many there are.
    :returns: a function that takes how many more are done.
    """
    with cli_models.bar(err, unit="documents") as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Our own errors say what to do; anything else is a bug and shows its traceback.
        if type(error).__module__.partition(".")[0] not in _OWN_MODULES:
            raise
        err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None


def _quiet(settings: Settings) -> None:
    from serve.telemetry import configure_logging

    configure_logging("DEBUG" if settings.log_level == "DEBUG" else "WARNING")


def _print_faults(faults: list[Fault]) -> None:
    for fault in sorted(faults):
        err.print(str(fault), style="red", markup=False, highlight=False, soft_wrap=True)
    if faults:
        raise typer.Exit(1)
