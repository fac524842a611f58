"""Cutting passages down to the sentences that a question needs."""

from components.supporting import Sentence, taken_apart, terms

# Every chunk keeps its retrieval rank as a small prior, so that a tie goes to the better chunk; the first
# chunk holds the answer most often, so it counts as a share of the question's words more.
_TOP_CHUNK = 0.15
_RANK_STEP = 0.03
GAP = " … "


def focus(query: str, passages: list[str], max_chars: int) -> list[str]:
    """
    Cut passages to a budget: keep the sentences that cover the question best, in the order of the text.

    :param query: The question.
    :param passages: Passages, best first.
    :param max_chars: How many characters to keep over all passages.
    :returns: As many passages, shortened where needed; one that holds nothing of use is empty.
    """
    if sum(map(len, passages)) <= max_chars:
        return passages
    wanted = terms(query)
    candidates: list[tuple[float, int, Sentence]] = []
    for rank, passage in enumerate(passages):
        for sentence in taken_apart(passage).sentences:
            score = len(wanted & sentence.terms) / (len(wanted) or 1)
            candidates.append((score + (_TOP_CHUNK if rank == 0 else -_RANK_STEP * rank), rank, sentence))
    kept: list[list[Sentence]] = [[] for _ in passages]
    left = max_chars
    for _, rank, sentence in sorted(candidates, key=lambda candidate: (-candidate[0], candidate[1])):
        if sentence.end - sentence.start <= left:
            kept[rank].append(sentence)
            left -= sentence.end - sentence.start
    return [_joined(passage, chosen) for passage, chosen in zip(passages, kept, strict=True)]


def _joined(passage: str, chosen: list[Sentence]) -> str:
    """Join the chosen sentences in order, with a mark where text was left out."""
    parts: list[str] = []
    end = None
    for sentence in sorted(chosen, key=lambda sentence: sentence.start):
        if end is not None:
            between = passage[end : sentence.start]
            parts.append(between if not between.strip() else GAP)
        parts.append(passage[sentence.start : sentence.end])
        end = sentence.end
    return "".join(parts)
