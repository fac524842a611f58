"""Ranking the candidates of a vector search by the terms of the question that they hold."""

from dataclasses import replace
from functools import lru_cache

from haystack import Document

from components.terms import TermWeights, coverage, stems

# Chunks come up again in later questions; 1,000 characters make about 8 KB of stems.
_REMEMBERED = 4_000


def rank_by_terms(
    query: str, documents: list[Document], top_k: int, term_weights: TermWeights, weight: float
) -> list[Document]:
    """
    Rank documents by similarity and term coverage together.

    Vector search finds what a text is about and overlooks the name or number that makes it the right one; the share
    of the question's terms, weighed by how telling each is, sees just that. The weighted mean of both stands for a
    fusion with a BM25 index, which would have to be kept beside the vectors for each tenant.

    :param query: the question.
    :param documents: the candidates, with similarity scores from 0 to 1.
    :param top_k: how many to keep.
    :param term_weights: how telling each word is.
    :param weight: how much coverage counts beside similarity, which counts 1.
    :returns: the best documents, best first; `score` is the weighted mean, from 0 to 1.
    """
    wanted = term_weights.of(query)
    scored = []
    for document in documents:
        found = _stems(f"{document.meta.get('title', '')}\n{document.content}")
        scored.append((((document.score or 0.0) + weight * coverage(wanted, found)) / (1 + weight), document))
    best = sorted(scored, key=lambda pair: pair[0], reverse=True)[:top_k]
    return [replace(document, score=score) for score, document in best]


@lru_cache(maxsize=_REMEMBERED)
def _stems(text: str) -> frozenset[str]:
    return stems(text)
