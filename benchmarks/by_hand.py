"""Embedding and upserting by hand: what an ingest costs at least."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chromadb

from benchmarks.hashing import embed_all
from components.embedding import OnnxEmbeddingModel

Embed = Callable[[Sequence[str]], Any]

BATCH_SIZE = 256
_SETTINGS = chromadb.config.Settings(anonymized_telemetry=False)


@dataclass
class Rows:
    """The chunks of a corpus as the service writes them."""

    documents: list[str] = field(default_factory=list)
    metadatas: list[Any] = field(default_factory=list)

    @property
    def count(self) -> int:
        """:returns: How many there are."""
        return len(self.documents)

    def batches(self) -> Iterator[tuple[int, list[str], list[Any]]]:
        """:returns: Where each batch begins, its texts and their metadata."""
        for begin in range(0, self.count, BATCH_SIZE):
            part = slice(begin, begin + BATCH_SIZE)
            yield begin, self.documents[part], self.metadatas[part]


class ByHand:
    """A Chroma database that rows are written into with as little as it takes."""

    def __init__(self, folder: Path, embed: Embed) -> None:
        """
        Open the database.

        :param folder: where it is; empty at first.
        :param embed: gives one row for each text.
        """
        self.client = chromadb.PersistentClient(str(folder), _SETTINGS)
        self.embed = embed

    def write(self, rows: Rows, name: str) -> float:
        """
        Embed and write rows into a new collection.

        :param rows: the rows.
        :param name: the collection's name.
        :returns: how many in a second.
        """
        collection = self.client.create_collection(
            name, metadata={"hnsw:space": "cosine"}, embedding_function=None
        )
        start = time.perf_counter()
        for begin, documents, metadatas in rows.batches():
            titled = [
                f"{meta['title']}\n{text}" if meta.get("title") else text
                for text, meta in zip(documents, metadatas, strict=True)
            ]
            ids = [f"{begin + place:064d}" for place in range(len(documents))]
            collection.upsert(
                ids=ids, documents=documents, embeddings=self.embed(titled), metadatas=metadatas
            )
        return rows.count / (time.perf_counter() - start)


def rows_in(folder: Path) -> Rows:
    """
    Read what a service has written.

    :param folder: its Chroma directory; no process may use it.
    :returns: the rows of the largest collection.
    """
    client = chromadb.PersistentClient(str(folder), _SETTINGS)
    try:
        collections = [
            client.get_collection(found.name, embedding_function=None) for found in client.list_collections()
        ]
        largest = max(collections, key=lambda collection: collection.count())
        held = largest.get(include=["documents", "metadatas"])
    finally:
        client.close()
    return Rows(list(held["documents"] or []), [dict(meta) for meta in held["metadatas"] or []])


def embedder(kind: str, model: OnnxEmbeddingModel | None) -> Embed:
    """
    Give the function that embeds.

    :param kind: "hashing" or "minilm".
    :param model: the built-in model.
    :returns: the function; it has embedded once.
    """
    embed = embed_all if kind == "hashing" or model is None else model.encode
    embed(["Warm up."])
    return embed
