"""How much evidence passages hold for a question: the terms they share with it, and their best sentences."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from components.embedding import OnnxEmbeddingModel
from components.sentences import split_sentences
from components.terms import TermWeights, coverage, remembered_stems


@dataclass(frozen=True)
class Passage:
    """A text to look for evidence in, and the title above it, which counts as part of every sentence."""

    text: str
    title: str = ""


@dataclass(frozen=True)
class RankedSentence:
    """
    A sentence of a passage, weighed as an answer to a question.

    :param passage: Index of the passage it stands in.
    :param start: Where it starts in the passage's text.
    :param end: Where it ends.
    :param coverage: Share of the question's terms, by weight, that the sentence and the title have.
    :param window: The same with the sentences before and behind.
    :param similarity: Cosine with the question; 0 when the sentence was not embedded.
    """

    passage: int
    start: int
    end: int
    coverage: float
    window: float
    similarity: float = 0.0

    @property
    def score(self) -> float:
        """Coverage and similarity together, 0 to 2."""
        return self.coverage + self.similarity


@dataclass(frozen=True)
class Evidence:
    """
    What a passage has for a question, each from 0 to 1.

    :param coverage: Share of the question's terms, by weight, in the passage and its title.
    :param window: The same for three sentences in a row, the best of them.
    :param similarity: Cosine of the question and the closest sentence; None when nothing was embedded.
    """

    coverage: float
    window: float
    similarity: float | None


class EvidenceReader:
    """
    Reads passages for a question: measures their evidence and ranks their sentences.

    Safe to share between requests and threads.

    ### Usage example
    ```python
    reader = EvidenceReader(OnnxEmbeddingModel("minilm-tokenizer.json"))
    passages = [Passage("The lake is old. It is 40 metres deep."), Passage("Bread is baked from flour.")]
    best = reader.best_sentences("How deep is the lake?", passages)[0]
    passages[best.passage].text[best.start : best.end]  # 'It is 40 metres deep.'
    ```
    """

    def __init__(
        self,
        embedding_model: OnnxEmbeddingModel | None = None,
        term_weights: TermWeights | None = None,
        sentences_to_embed: int = 2,
        remembered: int = 4000,
    ) -> None:
        """
        Stores the parameters.

        :param embedding_model: Embeds sentences. None: only terms are compared.
        :param term_weights: Weighs terms; by default from the vocabulary of `embedding_model`.
        :param sentences_to_embed: How many sentences of a passage are embedded, those with the best coverage
            first; about 6 ms of CPU each, so a passage's other sentences are judged by their terms alone.
        :param remembered: How many sentence vectors are kept for the next question, at 1.5 KB each.
        """
        self.embedding_model = embedding_model
        vocabulary = embedding_model.tokenizer_path if embedding_model is not None else None
        self.term_weights = term_weights or TermWeights(vocabulary)
        self.sentences_to_embed = sentences_to_embed
        self.remembered = remembered
        self._vectors: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Loads the embedding model and the vocabulary."""
        self.term_weights.warm_up()
        if self.embedding_model is not None:
            self.embedding_model.warm_up()

    def measure(self, query: str, passages: Sequence[Passage]) -> list[Evidence]:
        """
        Measures the evidence of passages.

        :param query: The question.
        :param passages: The passages.
        :returns: One `Evidence` for each passage.
        """
        weights = self.term_weights.of(query)
        ranked = self._rank(query, weights, passages)
        return [
            Evidence(
                coverage=coverage(weights, remembered_stems(passage.text) | remembered_stems(passage.title)),
                window=max((sentence.window for sentence in sentences), default=0.0),
                similarity=max((sentence.similarity for sentence in sentences), default=0.0)
                if self.embedding_model
                else None,
            )
            for passage, sentences in zip(passages, ranked, strict=True)
        ]

    def best_sentences(
        self, query: str, passages: Sequence[Passage], limit: int | None = None
    ) -> list[RankedSentence]:
        """
        Ranks the sentences of passages by how likely they answer a question.

        :param query: The question.
        :param passages: The passages.
        :param limit: How many sentences to return; None returns all.
        :returns: The sentences, best first.
        """
        ranked = self._rank(query, self.term_weights.of(query), passages)
        everything = [sentence for sentences in ranked for sentence in sentences]
        return sorted(everything, key=lambda sentence: sentence.score, reverse=True)[:limit]

    def _rank(
        self, query: str, weights: dict[str, float], passages: Sequence[Passage]
    ) -> list[list[RankedSentence]]:
        ranked = [_by_coverage(weights, index, passage) for index, passage in enumerate(passages)]
        if self.embedding_model is None:
            return ranked
        chosen = [sentence for sentences in ranked for sentence in sentences[: self.sentences_to_embed]]
        texts = [passages[sentence.passage].text[sentence.start : sentence.end] for sentence in chosen]
        vectors = self._embed([query, *texts])
        similarities = iter((vectors[1:] @ vectors[0]).tolist())
        for sentences in ranked:
            for place, sentence in enumerate(sentences[: self.sentences_to_embed]):
                sentences[place] = replace(sentence, similarity=max(next(similarities), 0.0))
        return ranked

    def _embed(self, texts: list[str]) -> np.ndarray:
        assert self.embedding_model is not None
        with self._lock:
            known = {text: self._vectors[text] for text in texts if text in self._vectors}
        new = list(dict.fromkeys(text for text in texts if text not in known))
        known.update(zip(new, self.embedding_model.encode(new), strict=True))
        with self._lock:
            for text in texts:
                self._vectors[text] = known[text]
                self._vectors.move_to_end(text)
            while len(self._vectors) > self.remembered:
                self._vectors.popitem(last=False)
        return np.stack([known[text] for text in texts])


def _by_coverage(weights: dict[str, float], index: int, passage: Passage) -> list[RankedSentence]:
    title = remembered_stems(passage.title)
    spans = _spans(passage.text)
    found = [remembered_stems(passage.text[start:end]) | title for start, end in spans]
    sentences = [
        RankedSentence(
            passage=index,
            start=start,
            end=end,
            coverage=coverage(weights, found[place]),
            window=coverage(weights, frozenset().union(*found[max(place - 1, 0) : place + 2])),
        )
        for place, (start, end) in enumerate(spans)
    ]
    return sorted(sentences, key=lambda sentence: sentence.coverage, reverse=True)


# The same chunks come up again with the next question.
@lru_cache(maxsize=2000)
def _spans(text: str) -> tuple[tuple[int, int], ...]:
    return tuple(split_sentences(text))
