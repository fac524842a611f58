"""What the commands of `thresher` share: where they print, how they end, an option or two."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

from serve.commands.json_lines import json_text
from settings import Settings

# All but the line feed, and what UTF-8 can't hold.
_NO_TEXT = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class TextConsole(Console):
    """Prints text as text: what documents, models and file names hold of a terminal's commands is left out."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """
        Turn something into the texts to print, and the commands to the terminal that Rich itself gives.

        :param renderable: what to print.
        :param options: how to print it.
        :returns: the texts and commands.
        """
        for segment in super().render(renderable, options):
            if segment.control or not _NO_TEXT.search(segment.text):
                yield segment
            else:
                yield Segment(_NO_TEXT.sub("", segment.text), segment.style)


out = TextConsole()
err = TextConsole(stderr=True)


def checked_tenant(tenant_id: str | None) -> str | None:
    """
    Check a tenant id before anything is started for it.

    :param tenant_id: what was given; None for nothing.
    :returns: the same.
    :raises typer.BadParameter: if it is none.
    """
    if tenant_id is None or (tenant_id.isascii() and tenant_id.isalnum() and len(tenant_id) <= 64):
        return tenant_id
    # Loads the document store, so that most commands do without.
    from components.storing import InvalidTenantError, check_tenant_id

    try:
        check_tenant_id(tenant_id)
    except InvalidTenantError as error:
        raise typer.BadParameter(str(error)) from None
    return tenant_id


Tenant = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        "-t",
        help="Whose documents; else those of the tenant that the key in API_KEY is for, or of `default`.",
        callback=checked_tenant,
    ),
]
NamedTenant = Annotated[str, typer.Option("--tenant", "-t", help="Which tenant.", callback=checked_tenant)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]

INTERRUPTED = 130
"""Exit status after Ctrl-C."""

_OWN_MODULES = ("components", "modes", "registry", "serve", "settings")


@contextmanager
def plain_errors() -> Iterator[None]:
    """
    Print our own errors in one line and end with status 1.

    They say what to do; anything else is a bug and shows its traceback.
    """
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _OWN_MODULES:
            raise
        err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None


def quiet_settings() -> Settings:
    """
    Read the settings and log warnings only, for what a command prints is its output.

    :returns: the settings.
    """
    from serve.telemetry import configure_logging

    settings = Settings.load()
    configure_logging(quiet_level(settings))
    return settings


def quiet_level(settings: Settings) -> str:
    """
    Say what a command logs.

    :param settings: its settings.
    :returns: warnings and worse, unless everything is wanted.
    """
    return "DEBUG" if settings.log_level == "DEBUG" else "WARNING"


def print_json(value: Any) -> None:
    """
    Print a value as JSON, as it is, whatever the width of the terminal.

    :param value: what `json` can write.
    """
    sys.stdout.write(json_text(value, indent=2) + "\n")


def first_of(items: Iterable[Any], limit: int) -> tuple[list[Any], bool]:
    """
    Take the beginning of a list that may go on.

    :param items: the list; no more of it is asked for than needed.
    :param limit: how many to take.
    :returns: so many of them, and whether there are more.
    """
    there = list(islice(items, limit + 1))
    return there[:limit], len(there) > limit


def print_list(
    found: tuple[list[Any], bool], limit: int, as_json: bool, show: Callable[[Console, list[Any]], None]
) -> None:
    """
    Print the beginning of a list.

    :param found: what `first_of` gave.
    :param limit: how many were asked for.
    :param as_json: whether for a program.
    :param show: prints it for people.
    """
    items, more = found
    if as_json:
        print_json(items)
        return
    show(out, items)
    if more:
        err.print(f"there are more: --limit {2 * limit} shows some")


def leave(status: int) -> NoReturn:
    """
    End the process at once, when everything is closed.

    A batch that did not end within the grace is still in its thread, in native code that the interpreter's own end
    would abort.

    :param status: the exit status; 1 instead of 0 when what was printed can't be written.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = status or 1
    os._exit(status)
