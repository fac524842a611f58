"""What is different between an answer that was kept and one that was made now."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from modes.results import QueryResult
from serve.commands.display import short_id
from serve.traces.records import KeptChunk, KeptRun, outcome_of

# What changes with each run and says nothing of the answer.
_FACTS = ("mode", "model", "strategy", "cannot_answer", "confidence", "finish_reason", "fallback")
_NOTHING = "–"


class Change(BaseModel):
    """A value then and now; null where there was none."""

    then: Any = None
    now: Any = None

    @property
    def is_one(self) -> bool:
        """Whether the two differ."""
        return bool(self.then != self.now)


class ChunkChange(BaseModel):
    """A chunk then and now; null where it was not found."""

    chunk_id: str
    document_id: str
    then: KeptChunk | None = None
    now: KeptChunk | None = None

    @property
    def is_one(self) -> bool:
        """Whether it was found or used otherwise."""
        return self.then is None or self.now is None or _use(self.then) != _use(self.now)


class Differences(BaseModel):
    """Two answers to one question."""

    request_id: str
    replayed_as: str
    same: bool
    facts: dict[str, Change]
    chunks: list[ChunkChange]
    same_prompt: bool | None
    same_answer: bool | None
    answer: Change
    usage: dict[str, Change]
    seconds: dict[str, Change]
    error: str | None = None


def compare(kept: KeptRun, result: QueryResult, replayed_as: str) -> Differences:
    """
    Compare a run that was kept with an answer of now.

    :param kept: the run.
    :param result: the answer.
    :param replayed_as: the id of its request.
    :returns: what differs, and what does not.
    """
    now = outcome_of(result, kept.salt) | {"mode": result.mode}
    facts = {name: Change(then=_plain(getattr(kept, name)), now=_plain(now[name])) for name in _FACTS}
    chunks = list(_chunks(kept.chunks, now["chunks"]))
    hashes = kept.prompt_hash, now["prompt_hash"]
    same_answer = kept.answer.sha256 == now["answer"].sha256 if kept.answer else None
    return Differences(
        request_id=kept.request_id,
        replayed_as=replayed_as,
        same=bool(same_answer)
        and not any(change.is_one for change in facts.values())
        and not any(chunk.is_one for chunk in chunks),
        facts=facts,
        chunks=chunks,
        same_prompt=None if None in hashes else hashes[0] == hashes[1],
        same_answer=same_answer,
        answer=Change(then=kept.answer.text if kept.answer else None, now=result.answer),
        usage=_both(kept.usage.model_dump(), result.usage.model_dump()),
        seconds=_both(kept.timings, result.timings),
        error=kept.error.kind if kept.error else None,
    )


def show_differences(console: Console, found: Differences) -> None:
    """
    Print a comparison.

    :param console: where to.
    :param found: the comparison.
    """
    console.print(Text(f"{found.request_id} → {found.replayed_as}", style="bold"))
    if found.error:
        console.print(f"There was no answer then: {found.error}.", markup=False)
    elif found.same:
        console.print("The same answer, from the same chunks.")
    console.print(_values(found))
    if found.chunks:
        console.print(_chunk_table(found.chunks))
    _show_answers(console, found)


def _values(found: Differences) -> Table:
    table = Table("", "then", "now")
    for name, change in found.facts.items():
        if (change.then, change.now) != (None, None):
            table.add_row(name, *_cells(change))
    if found.same_prompt is not None:
        told = "the same" if found.same_prompt else "another"
        table.add_row("prompt", "", Text(told, style="" if found.same_prompt else "yellow"))
    for name, change in found.usage.items():
        table.add_row(name.replace("_", " "), *_cells(change))
    for name, change in found.seconds.items():
        # No two runs take the same time, so that is no news.
        table.add_row(f"{name} s", _told(change.then), _told(change.now))
    return table


def _chunk_table(chunks: list[ChunkChange]) -> Table:
    table = Table("document", "chunk", "then", "now")
    for chunk in chunks:
        style = (
            ""
            if not chunk.is_one
            else "green"
            if chunk.then is None
            else "red"
            if chunk.now is None
            else "yellow"
        )
        cells = (chunk.document_id, short_id(chunk.chunk_id), _told_chunk(chunk.then), _told_chunk(chunk.now))
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def _show_answers(console: Console, found: Differences) -> None:
    if found.same_answer:
        console.print(Text(f"answer, then and now: {found.answer.now}"))
        return
    if found.answer.then is not None:
        console.print(Text(f"answer then: {found.answer.then}"))
    elif found.same_answer is False:
        console.print("answer then: another one, which was not kept")
    console.print(Text(f"answer now: {found.answer.now}"))


def _chunks(then: list[KeptChunk], now: list[KeptChunk]) -> Iterator[ChunkChange]:
    before = {chunk.chunk_id: chunk for chunk in then}
    after = {chunk.chunk_id: chunk for chunk in now}
    for chunk_id, chunk in {**before, **after}.items():
        yield ChunkChange(
            chunk_id=chunk_id,
            document_id=chunk.document_id,
            then=before.get(chunk_id),
            now=after.get(chunk_id),
        )


def _use(chunk: KeptChunk) -> tuple[Any, ...]:
    return chunk.label, chunk.position, chunk.cited


def _both(then: dict[str, Any], now: dict[str, Any]) -> dict[str, Change]:
    return {name: Change(then=then.get(name), now=now.get(name)) for name in {**then, **now}}


def _plain(value: Any) -> Any:
    # Of a fallback, which mode answered and why; its seconds are never the same.
    return f"{value.mode} ({value.reason})" if hasattr(value, "reason") else value


def _cells(change: Change) -> tuple[Text, Text]:
    return Text(_told(change.then)), Text(_told(change.now), style="yellow" if change.is_one else "")


def _told(value: Any) -> str:
    return _NOTHING if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def _told_chunk(chunk: KeptChunk | None) -> str:
    if chunk is None:
        return "not found"
    parts = [f"[{chunk.position}]" if chunk.position else "dropped"]
    parts += [f"{chunk.label} {_told(chunk.grade)}"] if chunk.label else []
    parts += [f"score {chunk.score:.2f}"] if chunk.score is not None else []
    parts += ["cited"] if chunk.cited else []
    return ", ".join(parts)
