"""Answers on a terminal."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from modes.results import Citation, ExplainedChunk, Explanation, Grade, QueryResult

_COLOURS = {"CORRECT": "green", "AMBIGUOUS": "yellow", "INCORRECT": "red"}
_QUOTE_CHARS = 160
_STATES = {
    "standalone_question": "searching for: {query}",
    "retrieval": "reading …",
    "rephrased": "searching again as: {query}",
    "fallback": "answering in the mode {mode} instead",
}


def show_result(console: Console, result: QueryResult) -> None:
    """
    Print an answer with its citations, grades and times.

    :param console: where to.
    :param result: the answer.
    """
    parts: list[RenderableType] = [Text(result.answer)]
    if result.rephrased:
        parts.append(Text(f"searched again as: {result.rephrased}", style="dim"))
    if result.fallback:
        parts.append(Text(f"answered by {result.fallback.mode}: {result.fallback.detail}", style="yellow"))
    if result.citations:
        parts.append(_citations(result.citations))
    if result.grades:
        parts.append(_grades(result.grades))
    parts.append(_facts(result))
    console.print(Panel(Group(*parts), title=Text(result.mode, style="bold"), title_align="left"))
    if result.explanation:
        console.print(_explanation(result.explanation))


def watch(console: Console, events: Iterable[tuple[str, dict[str, Any]]]) -> QueryResult:
    """
    Show how an answer is made, on a terminal; it goes when the answer is there, which may differ from its tokens.

    What is written stays when there will be no answer: after Ctrl-C, or when the service breaks off.

    :param console: where to.
    :param events: the events of the answer, by kind, last `result`.
    :returns: the result.
    """
    written, state = "", "searching …"
    try:
        with Live(console=console, transient=True, auto_refresh=False) as live:
            for kind, data in events:
                if kind == "result":
                    break
                if kind == "token":
                    written += data["text"]
                elif kind in _STATES:
                    state = _STATES[kind].format(**data)
                # The end of a text that is longer than the terminal is high.
                shown = Text(written or state, style="" if written else "dim").wrap(console, console.width)
                live.update(Text("\n").join(shown[-console.height + 1 :]), refresh=console.is_terminal)
    except BaseException:
        if written and console.is_terminal:
            console.print(Text(written))
        raise
    return QueryResult.model_validate(data)


def short_id(chunk_id: str) -> str:
    """
    Shorten a chunk's id to what tells it from the others of its document, which all begin with that one's.

    :param chunk_id: the id.
    :returns: twelve characters of it.
    """
    return chunk_id.rpartition("-")[2][:12]


def _citations(citations: list[Citation]) -> Table:
    table = Table(box=None, padding=(0, 1), show_header=False)
    for citation in citations:
        quote = " ".join(citation.quote.split())
        shown = quote if len(quote) <= _QUOTE_CHARS else quote[: _QUOTE_CHARS - 1] + "…"
        table.add_row(
            Text(f"[{citation.index}]", style="cyan"),
            Text(_place(citation), style="cyan"),
            Text(f"“{shown}”", style="italic"),
        )
    return table


def _place(citation: Citation) -> str:
    """Say where a reader finds the quote: by page and section, else by its characters."""
    parts = [citation.title or citation.document_id]
    if citation.page is not None:
        parts.append(f"page {citation.page}")
    if citation.section:
        parts.append(f'"{citation.section}"')
    return ", ".join(parts) if len(parts) > 1 else f"{parts[0]} ({citation.start}-{citation.end})"


def _grades(grades: list[Grade]) -> Text:
    line = Text("grades: ", style="dim")
    for grade in grades:
        line.append(f"{grade.label} {grade.score:.2f}  ", style=_COLOURS[grade.label])
    return line


def _explanation(explanation: Explanation) -> Group:
    """Show the way of each chunk in a line, below the searches that it came by."""
    searches = [
        Text(f"search {number}: {search.query} ({search.chunks} found)", style="dim")
        for number, search in enumerate(explanation.searches, start=1)
    ]
    # A reason that says no more than the grade is left out, and so is the column where all are such.
    reasons = ["" if chunk.why == f"graded {chunk.label}" else chunk.why for chunk in explanation.chunks]
    table = Table()
    for name in ("chunk", "found"):
        table.add_column(name, overflow="fold")
    # A number that is cut is another one, so the words make room.
    for name in ("grade", "prompt", "characters", "cited"):
        table.add_column(name, overflow="fold", no_wrap=True)
    if any(reasons):
        table.add_column("why", overflow="fold")
    for chunk, reason in zip(explanation.chunks, reasons, strict=True):
        colour = _COLOURS.get(chunk.label or "", "")
        table.add_row(
            Text(f"{chunk.title or chunk.document_id}\n{short_id(chunk.chunk_id)}"),
            _found(chunk),
            Text("" if chunk.grade is None else f"{chunk.label} {chunk.grade:.2f}", style=colour),
            f"\\[{chunk.position}]" if chunk.position else "",
            "\n".join(f"{part.start}-{part.end}" for part in chunk.shown or ()),
            "yes" if chunk.citations else "",
            *([reason] if any(reasons) else []),
        )
    prompt = [Text(f"prompt {explanation.prompt_hash[:16]}", style="dim")] if explanation.prompt_hash else []
    return Group(*searches, table, *prompt)


def _found(chunk: ExplainedChunk) -> str:
    return "\n".join(
        f"search {found.search}, rank {found.rank}"
        + ("" if found.score is None else f", score {found.score:.2f}")
        for found in chunk.found
    )


def _facts(result: QueryResult) -> Text:
    facts = [result.strategy, result.model]
    if result.confidence is not None:
        facts.append(f"confidence {result.confidence:.2f}")
    if result.usage.total_tokens:
        facts.append(f"{result.usage.prompt_tokens}+{result.usage.completion_tokens} tokens")
    facts += [f"{name} {seconds:.2f} s" for name, seconds in result.timings.items()]
    return Text(" · ".join(fact for fact in facts if fact), style="dim")
