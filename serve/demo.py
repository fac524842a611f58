"""The demonstration: Thresher answers questions about itself."""

import time
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from components.models.errors import ModelError
from components.structuring import StructuredAnswerError
from serve.client import Client, ServiceError, open_client
from serve.display import show_result
from serve.sources import read_sources
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
    :param docs: directory of text files; the project's documentation when not given.
    :param tenant_id: tenant to ingest for.
    :raises DemoError: if there are no documents.
    """
    folder = docs or PROJECT_ROOT / "docs"
    documents, _ = read_sources([folder]) if folder.is_dir() else ([], [])
    if not documents:
        raise DemoError(f"there are no text files in {folder}; name a directory with --docs")
    with open_client(settings) as client:
        begin = time.perf_counter()
        with console.status(f"ingesting {len(documents)} documents from {folder} …"):
            ingested = client.ingest(documents, tenant_id, lambda _: None)
        seconds = time.perf_counter() - begin
        console.print(
            f"Ingested {ingested.documents} documents, {ingested.chunks} chunks,"
            f" in {seconds:.1f} s for tenant '{tenant_id}'."
        )
        summary = Table("mode", *QUESTIONS)
        times: dict[str, list[str]] = {mode: [] for mode in MODES}
        for question in QUESTIONS:
            console.print(Rule(question))
            for mode in MODES:
                times[mode].append(_ask(client, console, question, mode, tenant_id))
    for mode, cells in times.items():
        summary.add_row(mode, *cells)
    console.print(summary)
    console.print(
        "\nNext:\n"
        "  make serve                                              start the HTTP service\n"
        f"  curl -X POST 'http://127.0.0.1:{settings.port}/query/?q=What+is+a+stage%3F&mode=crag&tenant_id={tenant_id}'\n"
        f'  .venv/bin/thresher ask "What is a stage?" --mode crag --tenant {tenant_id}\n'
        "  .venv/bin/thresher ingest PATH... --tenant mine         your own Markdown and text files\n"
        "  docs/modes.md                                           how to write a mode of your own",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _ask(client: Client, console: Console, question: str, mode: str, tenant_id: str) -> str:
    try:
        with console.status(f"{mode} …"):
            result = client.ask(question, mode, tenant_id, None, None)
    except (ServiceError, StructuredAnswerError, ModelError) as error:
        # A small model may fail a question; the others still show what the modes do.
        console.print(f"{mode}: {error}", style="red", markup=False)
        return "failed"
    show_result(console, result)
    verdict = "cannot answer" if result.cannot_answer else f"{len(result.citations)} citation(s)"
    return f"{verdict}, {result.timings.get('total', 0.0):.1f} s"
