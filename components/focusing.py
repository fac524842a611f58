"""Cutting passages down to the sentences that a question needs."""

from collections.abc import Sequence
from dataclasses import dataclass

from components.evidence import EvidenceReader, Passage, RankedSentence

GAP = " … "

# Terms alone: comparing sentences by their embeddings as well kept no more answers and cost 30 ms a question.
_reader = EvidenceReader()


@dataclass(frozen=True)
class Excerpt:
    """What is left of a passage."""

    text: str
    places: tuple[tuple[int, int], ...]
    """Start and end of each part of it in the passage's text."""


def ranked_sentences(query: str, passages: Sequence[Passage]) -> list[RankedSentence]:
    """
    Rank the sentences of passages by how much they tell about a question.

    What stands next to such a sentence counts too, for an answer often comes right behind the words of the
    question; and so does the passage's rank, for the first passage holds the answer most often.

    :param query: The question.
    :param passages: Passages, best first.
    :returns: Their sentences, best first.
    """

    def worth(sentence: RankedSentence) -> float:
        rank = 0.3 if sentence.passage == 0 else -0.06 * sentence.passage
        return sentence.score + 0.5 * sentence.window + rank

    return sorted(_reader.best_sentences(query, passages), key=worth, reverse=True)


def focus(query: str, passages: Sequence[Passage], max_chars: int | None) -> list[Excerpt]:
    """
    Cut passages to a budget: keep the sentences that tell most about the question, in the order of the text.

    :param query: The question.
    :param passages: Passages, best first.
    :param max_chars: How many characters to keep over all passages; None keeps all.
    :returns: What is left of each; an empty text where a passage holds nothing of use.
    """
    if max_chars is None or sum(len(passage.text) for passage in passages) <= max_chars:
        return [Excerpt(passage.text, ((0, len(passage.text)),)) for passage in passages]
    kept: list[list[RankedSentence]] = [[] for _ in passages]
    left = max_chars
    for sentence in ranked_sentences(query, passages):
        length = sentence.end - sentence.start
        if length <= left:
            kept[sentence.passage].append(sentence)
            left -= length
    return [_joined(passage.text, chosen) for passage, chosen in zip(passages, kept, strict=True)]


def _joined(text: str, chosen: list[RankedSentence]) -> Excerpt:
    """Join the chosen sentences in order, with a mark where text was left out."""
    places: list[tuple[int, int]] = []
    for sentence in sorted(chosen, key=lambda sentence: sentence.start):
        if places and not text[places[-1][1] : sentence.start].strip():
            places[-1] = (places[-1][0], sentence.end)
        else:
            places.append((sentence.start, sentence.end))
    return Excerpt(GAP.join(text[start:end] for start, end in places), tuple(places))
