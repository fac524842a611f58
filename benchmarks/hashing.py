"""Embeddings by feature hashing: they cost next to nothing, so that a measurement shows what is around them."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from haystack import Document, component

from resources import Resources

DIMENSION = 384


def embed(text: str) -> np.ndarray:
    """
    Embed a text.

    :param text: the text.
    :returns: a vector of length one.
    """
    places = [zlib.crc32(word.encode()) % DIMENSION for word in text.lower().split()]
    counts = np.bincount(places, minlength=DIMENSION).astype(np.float32)
    return counts / max(float(np.linalg.norm(counts)), 1.0)


def embed_all(texts: Sequence[str]) -> np.ndarray:
    """
    Embed texts.

    :param texts: the texts.
    :returns: one row for each.
    """
    return np.stack([embed(text) for text in texts])


@component
class HashingTextEmbedder:
    """Embeds a question."""

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """
        Embed a text.

        :param text: the text.
        :returns: `embedding`.
        """
        return {"embedding": embed(text)}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, Any]:
        """Embed a text; see `run`."""
        return self.run(text)


@component
class HashingDocumentEmbedder:
    """Embeds documents."""

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """
        Embed documents.

        :param documents: the documents.
        :returns: `documents` with embeddings.
        """
        vectors: Sequence[np.ndarray] = []
        if documents:
            vectors = list(embed_all([document.content or "" for document in documents]))
        return {
            "documents": [replace(d, embedding=v.tolist()) for d, v in zip(documents, vectors, strict=True)]
        }

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """Embed documents; see `run`."""
        return self.run(documents)


class HashingResources(Resources):
    """The service's shared objects with embeddings by hashing."""

    embedding_name = "hashing"

    @cached_property
    def text_embedder(self) -> Any:
        """Embeds questions."""
        return HashingTextEmbedder()

    @cached_property
    def document_embedder(self) -> Any:
        """Embeds documents."""
        return HashingDocumentEmbedder()
