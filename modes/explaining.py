"""An explanation of an answer, from what the components of its mode told."""

from typing import Any

from haystack import Document

from modes.recording import Heard
from modes.results import (
    ExplainedChunk,
    Explanation,
    Finding,
    MadeSearch,
    QueryResult,
    RetrievedDocument,
    ShownText,
)


def explanation_of(heard: Heard, result: QueryResult) -> Explanation:
    """
    Explain an answer.

    :param heard: the events `retrieval`, `grades` and `prompt` of its run; a mode need not tell any.
    :param result: the answer.
    :returns: each chunk's way to it.
    """
    ways = _Ways()
    for kind, data in heard:
        getattr(ways, kind)(**data)
    ways.end(result)
    return Explanation(
        searches=ways.searches,
        chunks=list(ways.chunks.values()),
        prompt_hash=result.prompt_hash,
        model=result.model,
    )


class _Ways:
    """The ways of all chunks, as far as they are known."""

    def __init__(self) -> None:
        self.searches: list[MadeSearch] = []
        self.chunks: dict[str, ExplainedChunk] = {}

    def retrieval(self, query: str, documents: list[Document], **_: Any) -> None:
        self.searches.append(MadeSearch(query=query, chunks=len(documents)))
        for rank, document in enumerate(documents, start=1):
            finding = Finding(search=len(self.searches), rank=rank, score=document.score)
            self._chunk(RetrievedDocument.from_haystack(document)).found.append(finding)

    def grades(self, grades: list[dict[str, Any]], **_: Any) -> None:
        for grade in grades:
            chunk = self.chunks.setdefault(
                grade["chunk_id"],
                ExplainedChunk(chunk_id=grade["chunk_id"], document_id=grade["document_id"]),
            )
            chunk.label, chunk.grade = grade["label"], grade["score"]

    def prompt(self, documents: list[Document], places: list[tuple[tuple[int, int], ...]], **_: Any) -> None:
        # Of several prompts the last one is the answer's.
        for chunk in self.chunks.values():
            chunk.shown = None
        for document, parts in zip(documents, places, strict=True):
            offset = int(document.meta.get("start") or 0)
            self._chunk(RetrievedDocument.from_haystack(document)).shown = [
                ShownText(start=offset + start, end=offset + end) for start, end in parts
            ]

    def end(self, result: QueryResult) -> None:
        for position, document in enumerate(result.documents, start=1):
            chunk = self._chunk(document)
            chunk.kept, chunk.position = True, position
        for place, citation in enumerate(result.citations):
            if citation.chunk_id in self.chunks:
                self.chunks[citation.chunk_id].citations.append(place)
        for chunk in self.chunks.values():
            chunk.why = _why(chunk)

    def _chunk(self, document: RetrievedDocument) -> ExplainedChunk:
        return self.chunks.setdefault(
            document.chunk_id,
            ExplainedChunk(
                chunk_id=document.chunk_id, document_id=document.document_id, title=document.title
            ),
        )


def _why(chunk: ExplainedChunk) -> str:
    grade = "" if chunk.label is None else f"graded {chunk.label}"
    if not chunk.kept:
        return grade if chunk.label == "INCORRECT" else f"{grade or 'found'}, but not handed on to the answer"
    if chunk.shown == []:
        return f"{grade or 'found'}, but left out of the prompt: the others say more about the question"
    if chunk.label == "INCORRECT":
        return "graded INCORRECT, but answered from all the same"
    return grade or "found; nothing was graded"
