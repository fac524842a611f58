"""An answer as the one text that a chat shows: with its sources below it, and with places for its citations."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from components.citing import citation_marks
from modes.results import Citation, QueryResult

REPLACED = "\n\nA check against the documents has changed this answer. The answer is:\n\n"
"""Stands in a stream between words that the answer was not to hold, and the answer."""

_SOURCES = "\n\nSources:\n"
_SOURCE_LIST = re.compile(rf"{_SOURCES}(?:- \[\d+\] [^\n]*(?:\n|\Z))+\s*\Z")
_QUOTE_CHARS = 160
# What a chat's Markdown would make an image, a link or HTML of; documents may hold it.
_MARKUP = re.compile(r"(?<=\])(?=\()|(?<=<)(?=[a-zA-Z/!])|(?<=!)(?=\[)")

DocumentURL = Callable[[str], str]
"""Gives the address of a document from its id."""


@dataclass(frozen=True)
class Place:
    """Where a text cites: `text[start:end]` is the mark, such as `[1]`."""

    citation: Citation
    start: int
    end: int

    def url_citation(self, url: DocumentURL) -> dict[str, Any]:
        """
        Describe the citation as OpenAI does, and with what it has no names for.

        :param url: gives the address of a document.
        :returns: `url`, `title`, `start_index` and `end_index` of the mark; and the cited document, chunk and words.
        """
        cited = self.citation
        return {
            "start_index": self.start,
            "end_index": self.end,
            "title": cited.title or cited.document_id,
            "url": url(cited.document_id),
            **cited.model_dump(
                include={"index", "document_id", "chunk_id", "page", "section", "quote", "start", "end"}
            ),
        }


@dataclass(frozen=True)
class Reply:
    """The final answer: its text, or in place of JSON why there is none, and the places where it cites."""

    result: QueryResult
    text: str | None
    refusal: str | None
    places: list[Place]


def written(result: QueryResult, sent: str = "") -> Reply:
    """
    Write an answer as text.

    :param result: the answer.
    :param sent: what stands before it already.
    :returns: what was sent, the answer, and its sources.
    """
    text = sent + result.answer + source_list(result.citations)
    return Reply(result, text, None, places(text, result.citations, len(sent)))


def written_json(result: QueryResult) -> Reply:
    """
    Write an answer as JSON and nothing else.

    :param result: the answer of a mode that gives `data`.
    :returns: the JSON; a refusal when there is none, for the documents do not hold the answer.
    """
    if result.data is None:
        return Reply(result, None, result.answer, [])
    text = json.dumps(result.data, ensure_ascii=False)
    return Reply(result, text, None, [Place(citation, 0, len(text)) for citation in result.citations])


def places(text: str, citations: Sequence[Citation], begin: int = 0) -> list[Place]:
    """
    Find where a text cites.

    :param text: an answer with its sources below it.
    :param citations: the answer's citations.
    :param begin: where to look from.
    :returns: each mark of the answer; of a citation without one, its place in the list of sources.
    """
    end = text.rfind(_SOURCES, begin)
    by_index = {citation.index: citation for citation in citations}
    found = [
        Place(by_index[index], begin + start, begin + stop)
        for index, start, stop in citation_marks(text[begin:end])
        if index in by_index
    ]
    marked = {place.citation.index for place in found}
    for citation in citations:
        if citation.index not in marked:
            start = text.index(f"\n- [{citation.index}]", end) + len("\n- ")
            found.append(Place(citation, start, start + len(f"[{citation.index}]")))
    return found


def source_list(citations: Sequence[Citation]) -> str:
    """
    List the sources of an answer, for clients that show nothing but text.

    :param citations: the answer's citations.
    :returns: the list with what parts it from the answer; empty without citations.
    """
    lines = [f"- [{citation.index}] {_source(citation)}" for citation in citations]
    return _SOURCES + "\n".join(lines) if lines else ""


def answer_alone(text: str) -> str:
    """
    Take off an answer that comes back as part of a conversation what is not of it.

    :param text: what the client shows as the answer.
    :returns: it without its sources, and without what was sent before a check replaced it.
    """
    return _SOURCE_LIST.sub("", text.replace("\r\n", "\n").rpartition(REPLACED)[2])


def document_url(base: str, tenant_id: str) -> DocumentURL:
    """
    Make addresses of documents.

    :param base: where the client finds the service.
    :param tenant_id: whose documents.
    :returns: a function that gives the address of a document from its id.
    """
    return lambda document_id: (
        f"{base.rstrip('/')}/documents/{quote(document_id, safe='')}?tenant_id={tenant_id}"
    )


def _source(citation: Citation) -> str:
    page = f", page {citation.page}" if citation.page is not None else ""
    section = f", {citation.section}" if citation.section else ""
    words = " ".join(citation.quote.split())
    if len(words) > _QUOTE_CHARS:
        words = words[:_QUOTE_CHARS].rsplit(" ", 1)[0] + " …"
    line = " ".join(f'{citation.title or citation.document_id}{page}{section}: "{words}"'.split())
    return _MARKUP.sub(" ", line)
