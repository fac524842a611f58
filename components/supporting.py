"""How well chunks support a statement, and which of their sentences do."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from haystack import Document

from components.sentences import split_sentences
from components.terms import STOP_WORDS, stem, words


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


class Sources:
    """
    The chunks of one request, asked which of them support a statement.

    :param query: The question. Its own words in an answer are no evidence that the answer is right.
    :param documents: The chunks.
    """

    def __init__(self, query: str, documents: list[Document]) -> None:
        self.documents = documents
        self.query_terms = terms(query)

    def chunk(self, index: int) -> Chunk:
        """
        Give a chunk's parts.

        :param index: The chunk's place in the documents.
        :returns: The chunk, taken apart when first needed.
        """
        return taken_apart(self.documents[index].content or "")

    @cached_property
    def _frequencies(self) -> Counter[str]:
        return Counter(
            term
            for index in range(len(self.documents))
            for sentence in self.chunk(index).sentences
            for term in sentence.terms
        )

    def _weight(self, wanted: Iterable[str]) -> float:
        """Weigh words by how few sentences of all chunks have them; a word that none has weighs most."""
        return sum(1 / (1 + math.log(1 + self._frequencies[word])) for word in wanted)

    def _share(self, wanted: frozenset[str], found: frozenset[str]) -> float:
        total = self._weight(wanted)
        return self._weight(wanted & found) / total if total else 0.0

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

    def support(self, claim: str, index: int) -> float:
        """
        Measure how far a chunk supports a statement.

        :param claim: The statement.
        :param index: The chunk's place in the documents.
        :returns: From 0 to 1. 1 when the chunk holds the statement word by word; else the weighted share of
            the statement's words, those that the question does not already have, that the chunk holds.
        """
        chunk, exact = self.chunk(index), folded(claim)
        if exact.strip() and exact in chunk.folded:
            return 1.0
        said = terms(claim)
        return self._share(said - self.query_terms or said, chunk.terms)

    def best(self, claim: str) -> int:
        """
        Find the chunk that a statement was most likely taken from.

        :param claim: The statement.
        :returns: Its place in the documents, the earlier one among equals.
        """
        places = range(len(self.documents))
        return max(places, key=lambda index: (self.fit(claim, index), -index))

    def added(self, claim: str, index: int, other: int) -> float:
        """
        Measure what a chunk holds of a statement that another one lacks.

        :param claim: The statement.
        :param index: The chunk's place in the documents.
        :param other: The other chunk's place.
        :returns: From 0 to 1: the weighted share of the statement's words.
        """
        return self._share(terms(claim), self.chunk(index).terms - self.chunk(other).terms)

    def fit(self, claim: str, index: int) -> float:
        """
        Measure how well a chunk's best sentence goes with both a statement and the question.

        Tells chunks apart that hold a short answer alike: the one that also speaks of what was asked counts.

        :param claim: The statement.
        :param index: The chunk's place in the documents.
        :returns: From 0 to 1.
        """
        return self._best_sentence(claim, index)[1]

    def _best_sentence(self, claim: str, index: int) -> tuple[int, float]:
        said, exact, support = terms(claim), folded(claim), self.support(claim, index)
        new = said - self.query_terms or said
        best = (0, 0.0)
        for place, sentence in enumerate(self.chunk(index).sentences):
            score = (
                0.2 * self._share(said, sentence.terms)
                + 0.2 * self._share(self.query_terms, sentence.terms)
                + 0.15 * self._share(new, sentence.terms)
                + 0.3 * (bool(exact.strip()) and exact in sentence.folded)
                + 0.15 * support
            )
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
        sentences = self.chunk(index).sentences
        if not sentences:
            return 0, 0
        place, _ = self._best_sentence(claim, index)
        best = sentences[place]
        said = terms(claim) - self.query_terms
        missing = said - best.terms
        gains = [
            (self._weight(missing & sentences[other].terms), sentences[other])
            for other in (place - 1, place + 1)
            if 0 <= other < len(sentences)
        ]
        gain, neighbour = max(gains, key=lambda gain: gain[0], default=(0.0, best))
        if gain < _WORTH_A_NEIGHBOUR * self._weight(said) or not gain:
            return best.start, best.end
        return min(best.start, neighbour.start), max(best.end, neighbour.end)

    def citation(self, index: int, claim: str) -> dict[str, Any]:
        """
        Describe a chunk as the source of a statement.

        :param index: The chunk's place in the documents.
        :param claim: The statement.
        :returns: `index` (as in `[n]`), `document_id`, `chunk_id`, `title`, `quote`, `start`, `end`,
            `score`; start and end are the quote's place in the document's text.
        """
        document = self.documents[index]
        start, end = self.quote(claim, index)
        offset = int(document.meta.get("start") or 0)
        return {
            "index": index + 1,
            "document_id": str(document.meta.get("document_id") or document.id),
            "chunk_id": document.id,
            "title": str(document.meta.get("title") or ""),
            "quote": self.chunk(index).text[start:end],
            "start": offset + start,
            "end": offset + end,
            "score": document.score,
        }
