"""The command `thresher`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from serve.commands import documents, ingest, jobs, models, worker
from serve.commands.terminal import AsJson, Tenant, err, leave, out, plain_errors, print_json, quiet_settings
from settings import Settings

if TYPE_CHECKING:
    from modes.checking import Fault

app = typer.Typer(
    name="thresher",
    help="Retrieval-augmented generation as named modes: ask, ingest, serve.\n\n"
    "Settings come from the environment, then from `.env`; docs/settings.md lists them. The commands talk to the"
    " service that runs on the data directory; where none does, they start one for as long as they take.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind, instead of HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to bind, instead of PORT; 0 takes a free one.")
    ] = None,
) -> None:
    """Start the HTTP service. Stop it with Ctrl-C; jobs under way go on at the next start."""
    with plain_errors():
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


app.command()(worker.worker)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    mode: Annotated[
        str, typer.Option("--mode", "-m", help="Which mode answers; `thresher modes` lists them.")
    ] = "standard",
    tenant: Tenant = "default",
    k: Annotated[int | None, typer.Option("--k", "-k", min=1, help="Chunks to retrieve.")] = None,
    model: Annotated[str | None, typer.Option(help="Another language model, of those allowed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a question; for example `thresher ask "What is a mode?" --mode crag --tenant demo`."""
    with plain_errors():
        from serve.commands.client import Client

        settings = quiet_settings()
        if not question.strip():
            raise typer.BadParameter("the question is empty")
        with Client(settings) as client, err.status("asking …"):
            answer = client.ask(question, mode, tenant, k, model)
        if as_json:
            print_json(answer)
            return
        from modes.results import QueryResult
        from serve.commands.display import show_result

        show_result(out, QueryResult.model_validate(answer))


app.command()(ingest.ingest)
app.command()(ingest.reindex)
app.add_typer(jobs.app, name="jobs")
app.add_typer(documents.app, name="documents")


@app.command()
def modes() -> None:
    """List the modes."""
    with plain_errors():
        from registry import ModeRegistry

        settings = quiet_settings()
        with ModeRegistry(settings) as registry:
            table = Table("mode", "from", "what it does")
            for mode in registry.values():
                table.add_row(mode.name, mode.origin, mode.description)
            out.print(table)
            _print_faults(registry.faults)


@app.command()
def check(files: Annotated[list[Path], typer.Argument(help="Pipeline files.")]) -> None:
    """Check pipeline files as the registry does: prints every fault as `file:line: what`, exits 1 if there is one."""
    with plain_errors():
        from modes.checking import PipelineFileError
        from registry import build
        from resources import Resources

        settings = quiet_settings()
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
    with plain_errors():
        from serve.commands.demo import run_demo

        settings = quiet_settings()
        run_demo(settings, out, docs, tenant)


app.add_typer(models.app, name="models")


def main() -> None:
    """Run the command, and end the process with it."""
    try:
        app()
    except SystemExit as ended:
        leave(ended.code if isinstance(ended.code, int) else int(ended.code is not None))


def _print_faults(faults: "list[Fault]") -> None:
    for fault in sorted(faults):
        err.print(str(fault), style="red", markup=False, highlight=False, soft_wrap=True)
    if faults:
        raise typer.Exit(1)
