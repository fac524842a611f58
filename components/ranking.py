"""Ranking the candidates of a vector search by the terms of the question that they hold."""

from dataclasses import replace

from haystack import Document

from components.terms import TermWeights, coverage, remembered_stems


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
        found = remembered_stems(document.content or "") | remembered_stems(
            str(document.meta.get("title") or "")
        )
        scored.append((((document.score or 0.0) + weight * coverage(wanted, found)) / (1 + weight), document))
    best = sorted(scored, key=lambda pair: pair[0], reverse=True)[:top_k]
    return [replace(document, score=score) for score, document in best]
