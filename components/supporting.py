"""How well chunks support a statement, and which of their sentences do."""

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any

from haystack import Document

from components.evidence import EvidenceReader, Passage
from components.sentences import split_sentences
from components.terms import STOP_WORDS, coverage, stem, words


@dataclass(frozen=True)
class Sentence:
    """A sentence of a chunk: where it stands, its content words, and all its words for exact comparison."""

    start: int
    end: int
    terms: frozenset[str]
    folded: str


@dataclass(frozen=True)
class Chunk:
    """A chunk's text taken apart."""

    text: str
    sentences: tuple[Sentence, ...]
    terms: frozenset[str]
    folded: str


def terms(text: str) -> frozenset[str]:
    """
    Give the content words of a text.

    :param text: Any text.
    :returns: The stems of its words without the stop words; with them where there is nothing else.
    """
    found = words(text)
    return frozenset(stem(word) for word in found if word not in STOP_WORDS) or frozenset(map(stem, found))


def folded(text: str) -> str:
    """
    Fold a text for comparison word by word.

    :param text: Any text.
    :returns: Its words in one form between single blanks, with a blank at either end.
    """
    return " ".join(["", *words(text), ""])


@lru_cache(maxsize=1024)
def taken_apart(text: str) -> Chunk:
    """
    Split a chunk into sentences and words; remembered, since chunks come back in later questions.

    :param text: A chunk's text.
    :returns: Its parts.
    """
    sentences = tuple(
        Sentence(start, end, terms(text[start:end]), folded(text[start:end]))
        for start, end in split_sentences(text)
    )
    return Chunk(text, sentences, frozenset().union(*(s.terms for s in sentences)), folded(text))


# A quote takes in a neighbouring sentence that adds this share of what the statement says.
_WORTH_A_NEIGHBOUR = 0.3
_reader = EvidenceReader()
# Blanks and headings at the beginning of a chunk.
_LEAD = re.compile(r"(?:\s+|#{1,6}[ \t][^\n\f]*)*")
_GENERIC = terms(
    "answer describe detail document explain file give important information key know list main mean "
    "overview page passage point say show subject summarise summarize summary tell text thing topic write"
) | frozenset(map(stem, STOP_WORDS))
# Answers that say nothing by themselves: what they affirm or deny is in the question.
_VERDICTS = terms("yes no true false maybe correct incorrect indeed")


@dataclass(frozen=True)
class _Claim:
    """A statement: its words for exact comparison, its terms by weight, and those that the question lacks."""

    folded: str
    said: dict[str, float]
    new: dict[str, float]
    asked: dict[str, float]
    """The question's terms."""

    @cached_property
    def _worth(self) -> dict[str, float]:
        worth: dict[str, float] = {}
        for share, weights in ((0.2, self.said), (0.2, self.asked), (0.15, self.new)):
            total = sum(weights.values())
            for term, weight in weights.items():
                worth[term] = worth.get(term, 0.0) + share * weight / total
        return worth

    def fit(self, found: frozenset[str]) -> float:
        """:returns: What a sentence with these terms covers of the statement and the question, up to 0.55."""
        if found.isdisjoint(self._worth):
            return 0.0
        return sum([worth for term, worth in self._worth.items() if term in found])


class Sources:
    """
    The chunks of one request, asked which of them support a statement.

    :param query: The question. Its own words in an answer are no evidence that the answer is right.
    :param documents: The chunks.
    """

    def __init__(self, query: str, documents: list[Document]) -> None:
        self.documents = documents
        self._query = query
        self._query_terms = terms(query)
        self._claims: dict[str, _Claim] = {}
        self._fits: dict[str, list[tuple[int, float]]] = {}

    @cached_property
    def _chunks(self) -> list[Chunk]:
        return [taken_apart(document.content or "") for document in self.documents]

    @cached_property
    def _frequencies(self) -> Counter[str]:
        return Counter(chain.from_iterable(s.terms for chunk in self._chunks for s in chunk.sentences))

    @cached_property
    def _asked(self) -> dict[str, float]:
        return self._weights(self._query_terms)

    def _weights(self, wanted: frozenset[str]) -> dict[str, float]:
        """Weigh words by how few sentences of all chunks have them; a word that none has weighs most."""
        return {word: 1 / (1 + math.log(1 + self._frequencies[word])) for word in wanted}

    def _claim(self, claim: str) -> _Claim:
        known = self._claims.get(claim)
        if known is None:
            said = terms(claim)
            # An answer with no words of its own stands where the question's words stand.
            new = self._weights(said - self._query_terms - _VERDICTS) or self._asked
            known = self._claims[claim] = _Claim(folded(claim), self._weights(said), new, self._asked)
        return known

    def has(self, index: int) -> bool:
        """
        Tell whether there is such a chunk, with text in it.

        :param index: A place in the documents, perhaps one that doesn't exist.
        :returns: False where nothing can be cited.
        """
        return 0 <= index < len(self.documents) and bool((self.documents[index].content or "").strip())

    def holds(self, text: str) -> bool:
        """
        Tell whether any chunk has a text, to the letter.

        :param text: The text.
        :returns: True if one has it.
        """
        return any(text in (document.content or "") for document in self.documents)

    def says(self, claim: str) -> bool:
        """
        Tell whether any chunk has a statement word by word, whatever the case and punctuation.

        :param claim: The statement.
        :returns: True if one has it.
        """
        wanted = self._claim(claim).folded
        return bool(wanted.strip()) and any(wanted in chunk.folded for chunk in self._chunks)

    def support(self, claim: str, *indexes: int) -> float:
        """
        Measure how far chunks support a statement.

        :param claim: The statement.
        :param indexes: The chunks' places in the documents.
        :returns: From 0 to 1. 1 when a chunk holds the statement word by word; else the weighted share of the
            statement's words, those that the question does not already have, that the chunks hold together.
        """
        wanted, chunks = self._claim(claim), [self._chunks[index] for index in indexes]
        if wanted.folded.strip() and any(wanted.folded in chunk.folded for chunk in chunks):
            return 1.0
        return coverage(wanted.new, frozenset().union(*(chunk.terms for chunk in chunks)))

    def grounding(self, index: int) -> float:
        """
        Measure how much a chunk speaks of what was asked.

        :param index: The chunk's place in the documents.
        :returns: From 0 to 1: the share of the question's words in three sentences in a row, and the title.
            1 for a question such as "Summarise the text", which speaks of nothing in particular.
        """
        if not self._query_terms - _GENERIC:
            return 1.0
        passage = Passage(self._chunks[index].text, str(self.documents[index].meta.get("title") or ""))
        return _reader.measure(self._query, [passage])[0].window

    def added(self, claim: str, index: int, other: int) -> float:
        """
        Measure what a chunk holds of a statement that another one lacks.

        :param claim: The statement.
        :param index: The chunk's place in the documents.
        :param other: The other chunk's place.
        :returns: From 0 to 1: the weighted share of the statement's words.
        """
        return coverage(self._claim(claim).said, self._chunks[index].terms - self._chunks[other].terms)

    def best(self, claim: str) -> int:
        """
        Find the chunk that a statement was most likely taken from.

        :param claim: The statement.
        :returns: Its place in the documents, the earlier one among equals.
        """
        return max(range(len(self.documents)), key=lambda index: (self.fit(claim, index), -index))

    def fit(self, claim: str, index: int) -> float:
        """
        Measure how well a chunk's best sentence goes with both a statement and the question.

        Tells chunks apart that hold a short answer alike: the one that also speaks of what was asked counts.

        :param claim: The statement.
        :param index: The chunk's place in the documents.
        :returns: From 0 to 1.
        """
        return self._best_sentences(claim)[index][1]

    def _best_sentences(self, claim: str) -> list[tuple[int, float]]:
        """Give each chunk's best sentence and how well it fits."""
        if claim not in self._fits:
            self._fits[claim] = [self._best_sentence(claim, index) for index in range(len(self.documents))]
        return self._fits[claim]

    def _best_sentence(self, claim: str, index: int) -> tuple[int, float]:
        wanted, support = self._claim(claim), self.support(claim, index)
        best = (0, 0.0)
        for place, sentence in enumerate(self._chunks[index].sentences):
            exact = bool(wanted.folded.strip()) and wanted.folded in sentence.folded
            score = wanted.fit(sentence.terms) + 0.3 * exact + 0.15 * support
            if score > best[1]:
                best = place, score
        return best

    def quote(self, claim: str, index: int) -> tuple[int, int]:
        """
        Find the part of a chunk that supports a statement best.

        :param claim: The statement.
        :param index: The chunk's place in the documents.
        :returns: Start and end in the chunk's text, of one sentence, or of two neighbours when the second one
            holds a good part of the statement that the first one lacks.
        """
        sentences = self._chunks[index].sentences
        if not sentences:
            return 0, 0
        place, _ = self._best_sentences(claim)[index]
        best, new = sentences[place], self._claim(claim).new
        gain, neighbour = max(
            (coverage(new, sentences[other].terms - best.terms), other)
            for other in (max(place - 1, 0), min(place + 1, len(sentences) - 1))
        )
        if gain < _WORTH_A_NEIGHBOUR:
            return best.start, best.end
        return min(best.start, sentences[neighbour].start), max(best.end, sentences[neighbour].end)

    def citation(self, index: int, claim: str) -> dict[str, Any]:
        """
        Describe a chunk as the source of a statement.

        :param index: The chunk's place in the documents.
        :param claim: The statement.
        :returns: `index` (as in `[n]`), `document_id`, `chunk_id`, `title`, `page`, `section`, `quote`,
            `start`, `end`, `score`; start and end are the quote's place in the document's text.
        """
        document = self.documents[index]
        start, end = self.quote(claim, index)
        offset = int(document.meta.get("start") or 0)
        return {
            "index": index + 1,
            "document_id": str(document.meta.get("document_id") or document.id),
            "chunk_id": document.id,
            "title": str(document.meta.get("title") or ""),
            "page": page_of(document, start),
            "section": section_of(document, start),
            "quote": self._chunks[index].text[start:end],
            "start": offset + start,
            "end": offset + end,
            "score": document.score,
        }


def page_of(document: Document, place: int = 0) -> int | None:
    """
    Say on which page a part of a chunk stands.

    :param document: The chunk; a form feed in its text begins a new page, and `page` in its metadata is
        that of its first words below a heading.
    :param place: Where the part begins in the chunk's text.
    :returns: The page, from 1; None where the chunk names none.
    """
    page = document.meta.get("page")
    if not isinstance(page, int) or isinstance(page, bool):
        return None
    text = document.content or ""
    # The chunk's page is that of its first words; a break before those is counted in it.
    return page + text.count("\f", _LEAD.match(text).end(), place)  # type: ignore[union-attr]


def section_of(document: Document, place: int = 0) -> str | None:
    """
    Say in which section a part of a chunk stands.

    :param document: The chunk; `section` in its metadata is that of its first words, and `sections` are those that
        begin further on.
    :param place: Where the part begins in the chunk's text.
    :returns: The headings above it, as in `Leave > Parental leave`; None where there are none.
    """
    section = document.meta.get("section")
    for begin, name in json.loads(document.meta.get("sections") or "[]"):
        if begin <= place:
            section = name
    return section if isinstance(section, str) and section else None
