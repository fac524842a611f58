"""Answers as the terminal shows them."""

import io
from collections.abc import Iterator

import pytest
from haystack import Document
from rich.console import Console

from modes.results import (
    Citation,
    ExplainedChunk,
    Explanation,
    Finding,
    QueryResult,
    RetrievedDocument,
    ShownText,
)
from serve.commands.display import show_result, watch
from serve.commands.replies import ServiceError

QUOTE = {
    "index": 1,
    "document_id": "handbook.pdf",
    "chunk_id": "c",
    "quote": "It is 16 weeks.",
    "start": 5,
    "end": 20,
}


@pytest.mark.parametrize(
    ("known", "place"),
    [
        (
            {"page": 12, "section": "Leave > Parental leave"},
            'handbook.pdf, page 12, "Leave > Parental leave"',
        ),
        ({"page": 12}, "handbook.pdf, page 12"),
        ({"section": "Leave [draft]", "title": "Handbook"}, 'Handbook, "Leave [draft]"'),
        ({}, "handbook.pdf (5-20)"),
    ],
)
def test_a_citation_is_shown_with_its_place(known: dict, place: str) -> None:
    """A citation names page and section where they are known, else the characters of the quote."""
    console = Console(file=io.StringIO(), width=120)
    result = QueryResult(mode="standard", answer="16 weeks [1]", citations=[Citation(**QUOTE, **known)])
    show_result(console, result)
    assert place in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_retrieved_document_says_page_and_section() -> None:
    """What a mode retrieved has page and section beside its title, and not once more in its metadata."""
    chunk = Document(content="x", meta={"document_id": "d", "page": 2, "section": "A > B", "kind": "lake"})
    shown = RetrievedDocument.from_haystack(chunk)
    assert (shown.page, shown.section, shown.meta) == (2, "A > B", {"kind": "lake"})


def test_an_answer_is_shown_while_it_is_written() -> None:
    """A terminal shows what is searched and then the words so far, of a long text the end; another program, nothing."""
    events = [
        ("rephrased", {"query": "tower height"}),
        ("token", {"text": "The first of many lines.\n" * 30}),
        ("token", {"text": "The very last words."}),
        ("result", {"mode": "crag", "answer": "Checked."}),
    ]
    shown = {}
    for terminal in (True, False):
        console = Console(file=io.StringIO(), width=80, height=10, force_terminal=terminal)
        assert watch(console, events).answer == "Checked."
        shown[terminal] = console.file.getvalue()  # type: ignore[attr-defined]
    assert "searching again as: tower height" in shown[True]
    assert "The very last words." in shown[True]
    assert shown[False].strip() == ""


@pytest.mark.parametrize("fault", [KeyboardInterrupt, ServiceError("the answer broke off before its end")])
def test_what_is_written_stays_when_there_is_no_answer(fault: BaseException) -> None:
    """After Ctrl-C, or when the service breaks off, a terminal keeps the text so far; another program has none."""

    def events() -> Iterator[tuple[str, dict[str, str]]]:
        yield "token", {"text": "The first of many lines.\n" * 30}
        yield "token", {"text": "The very last"}
        raise fault

    for terminal in (True, False):
        console = Console(file=io.StringIO(), width=80, height=10, force_terminal=terminal)
        with pytest.raises((KeyboardInterrupt, ServiceError)):
            watch(console, events())
        # What was shown meanwhile is erased line by line, and what stays comes after it.
        kept = console.file.getvalue().rpartition("\x1b[2K")[2].strip()  # type: ignore[attr-defined]
        assert kept == ("The first of many lines.\n" * 30 + "The very last" if terminal else "")


def test_a_narrow_terminal_shows_whole_numbers() -> None:
    """At 80 columns no offset is cut, and a reason that only repeats the grade is left out."""
    chunk = ExplainedChunk(
        chunk_id=f"{'d' * 16}-{'c' * 47}",
        document_id="docs/a/rather/long/name/of/a/document.md",
        found=[Finding(search=1, rank=12, score=0.91)],
        label="CORRECT",
        grade=0.98,
        kept=True,
        why="graded CORRECT",
        position=12,
        shown=[ShownText(start=987_300, end=1_000_400), ShownText(start=1_000_500, end=1_000_600)],
        citations=[0],
    )
    other = {"chunk_id": f"{'d' * 16}-{'e' * 47}", "label": "INCORRECT"}
    dropped = chunk.model_copy(update={**other, "why": "graded INCORRECT, but answered from all the same"})
    console = Console(file=io.StringIO(), width=80)
    explanation = Explanation(searches=[], chunks=[chunk, dropped])
    show_result(console, QueryResult(mode="crag", answer="x", explanation=explanation))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "987300-1000400" in shown
    assert "1000500-1000600" in shown
    assert "…" not in shown
    assert shown.count("graded") == 1
    assert "cccc" in shown
    assert "eeee" in shown
    assert "dddd" not in shown
