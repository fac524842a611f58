"""Cutting passages down to the sentences that a question needs."""

from collections.abc import Sequence

from components.evidence import EvidenceReader, Passage, RankedSentence

GAP = " … "

# Terms alone: comparing sentences by their embeddings as well kept no more answers and cost 30 ms a question.
_reader = EvidenceReader()


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


def focus(query: str, passages: Sequence[Passage], max_chars: int) -> list[str]:
    """
    Cut passages to a budget: keep the sentences that tell most about the question, in the order of the text.

    :param query: The question.
    :param passages: Passages, best first.
    :param max_chars: How many characters to keep over all passages.
    :returns: Their texts, shortened where needed; empty where a passage holds nothing of use.
    """
    if sum(len(passage.text) for passage in passages) <= max_chars:
        return [passage.text for passage in passages]
    kept: list[list[RankedSentence]] = [[] for _ in passages]
    left = max_chars
    for sentence in ranked_sentences(query, passages):
        length = sentence.end - sentence.start
        if length <= left:
            kept[sentence.passage].append(sentence)
            left -= length
    return [_joined(passage.text, chosen) for passage, chosen in zip(passages, kept, strict=True)]


def _joined(text: str, chosen: list[RankedSentence]) -> str:
    """Join the chosen sentences in order, with a mark where text was left out."""
    joined, end = "", 0
    for sentence in sorted(chosen, key=lambda sentence: sentence.start):
        between = text[end : sentence.start]
        joined += (GAP if between.strip() else between) if joined else ""
        joined += text[sentence.start : sentence.end]
        end = sentence.end
    return joined
