"""How jobs and documents are listed on a terminal and for other programs."""

import io

import pytest
from rich.console import Console

from serve.commands.listings import show_documents, show_jobs

JOB = {
    "job_id": "0f8fad5bd9cb469fa16570867728950e",
    "status": "cancelled",
    "kind": "ingest",
    "documents_ok": 100,
    "total": 1000,
    "documents_skipped": 4,
    "documents_failed": 3,
    "chunks_ok": 23,
    "created_at": "2026-01-01T00:00:00Z",
}
DOCUMENT = {
    "document_id": f"docs/{'long/' * 16}a.md",
    "title": "A title of some length",
    "chunks": 1000,
    "ingested_at": "2026-01-01T00:00:00Z",
    "job_id": JOB["job_id"],
}


def listed(is_terminal: bool, width: int) -> str:
    """The lists of one job and one document, as they are printed."""
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=width, color_system=None)
    show_jobs(console, [JOB])
    show_documents(console, [DOCUMENT])
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_shows_whole_ids(width: int) -> None:
    """A list fits its terminal: columns are left out and long ids go over several lines, but none is cut."""
    shown = listed(True, width)
    assert all(len(line) <= width for line in shown.splitlines())
    assert JOB["job_id"] in shown
    assert DOCUMENT["document_id"] in "".join(line.split(" ")[0] for line in shown.splitlines())
    assert ("A title" in shown) == (width == 200)


def test_another_program_gets_one_line_for_each() -> None:
    """What is no terminal gets every column of an item in one line, however narrow a terminal would be."""
    *_, job, _, document = listed(False, 80).splitlines()
    assert job.split()[:3] == [JOB["job_id"], "cancelled", "ingest"]
    assert document.startswith(DOCUMENT["document_id"])
    assert document.rstrip().endswith(JOB["job_id"])
