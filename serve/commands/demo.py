"""The demonstration: Thresher answers questions about itself."""

import time
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from modes.results import QueryResult
from serve.commands.client import Client
from serve.commands.display import show_result
from serve.commands.listings import show_remarks, summary
from serve.commands.replies import ServiceError
from serve.commands.sending import Following, Sending
from serve.commands.sources import SourceFile, find_files
from settings import PROJECT_ROOT, Settings

QUESTIONS = (
    "Which strategy does corrective RAG report when some chunks were dropped?",
    "How do I add a mode of my own?",
    # The documentation does not hold this one.
    "Who won the football world cup in 1954?",
)
MODES = ("standard", "crag", "structured", "crag_structured")


class DemoError(RuntimeError):
    """The demonstration lacks something."""


def run_demo(settings: Settings, console: Console, docs: Path | None, tenant_id: str) -> None:
    """
    Ingest documents, ask in every mode, and say what to try next.

    :param settings: the service's settings.
    :param console: where to print.
    :param docs: directory of files; the project's documentation when not given.
    :param tenant_id: tenant to ingest for.
    :raises DemoError: if there are no documents.
    """
    folder = docs or PROJECT_ROOT / "docs"
    files = find_files([folder]).files if folder.is_dir() else []
    if not files:
        raise DemoError(f"there are no files to ingest in {folder}; name a directory with --docs")
    with Client(settings, works=True) as client:
        with console.status(f"ingesting {len(files)} documents from {folder} …"):
            _ingest(client, console, files, tenant_id)
        table = Table("mode", *QUESTIONS)
        times: dict[str, list[str]] = {mode: [] for mode in MODES}
        for question in QUESTIONS:
            console.print(Rule(question))
            for mode in MODES:
                times[mode].append(_ask(client, console, question, mode, tenant_id))
    for mode, cells in times.items():
        table.add_row(mode, *cells)
    console.print(table)
    console.print(
        "\nNext:\n"
        "  make serve                                              start the HTTP service, and then open\n"
        f"  http://127.0.0.1:{settings.port}/#tenant={tenant_id}&mode=crag               ask on a page\n"
        f"  curl -X POST 'http://127.0.0.1:{settings.port}/query/?q=What+is+a+stage%3F&mode=crag&tenant_id={tenant_id}'\n"
        f'  .venv/bin/thresher ask "What is a stage?" --mode crag --tenant {tenant_id}\n'
        "  .venv/bin/thresher ingest PATH... --tenant mine         your own files\n"
        "  docs/modes.md                                           how to write a mode of your own",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _ingest(client: Client, console: Console, files: list[SourceFile], tenant_id: str) -> None:
    begin = time.perf_counter()
    following = Following(client, lambda _: None, len(files))
    Sending(client, following, tenant_id, None).send(files)
    tally = following.to_the_end()
    show_remarks(console, tally.remarks)
    console.print(summary(tally, tenant_id, time.perf_counter() - begin), highlight=False)


def _ask(client: Client, console: Console, question: str, mode: str, tenant_id: str) -> str:
    try:
        with console.status(f"{mode} …"):
            result = QueryResult.model_validate(client.ask(question, mode, tenant_id, None, None))
    except ServiceError as error:
        # A small model may fail a question; the others still show what the modes do.
        console.print(f"{mode}: {error}", style="red", markup=False)
        return "failed"
    show_result(console, result)
    verdict = "cannot answer" if result.cannot_answer else f"{len(result.citations)} citation(s)"
    return f"{verdict}, {result.timings.get('total', 0.0):.1f} s"
