"""The command `thresher`."""

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from serve.commands import ask, documents, ingest, jobs, keys, models, pipelines, replay, worker
from serve.commands.terminal import NamedTenant, err, leave, out, plain_errors, quiet_settings
from settings import Settings

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
        from serve.telemetry import log_as_set, log_uncaught, logs_for_people

        bound = server.bind(settings)
        log_as_set(settings)
        log_uncaught()
        service = Service(settings)
        url, listening = server.url_of(bound), server.listening_url(bound)
        if logs_for_people(settings.log_format):
            err.print(
                f"Thresher on [bold]{listening}[/] — page: {url}/ — API: {url}/docs — data:"
                f" {escape(str(settings.data_dir))}",
                soft_wrap=True,
            )
        else:
            logging.getLogger("thresher.service").info(
                "listening on %s; data: %s", listening, settings.data_dir
            )
        server.run(build_app(service), bound, service.lock, settings)


app.command()(worker.worker)
app.command()(ask.ask)
app.command()(replay.replay)
app.command()(ingest.ingest)
app.command()(ingest.reindex)
app.add_typer(jobs.app, name="jobs")
app.add_typer(documents.app, name="documents")
app.add_typer(keys.app, name="keys")
app.command()(pipelines.modes)
app.command()(pipelines.check)


@app.command()
def demo(
    docs: Annotated[Path | None, typer.Option(help="Directory of text files to ask about.")] = None,
    tenant: NamedTenant = "demo",
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
