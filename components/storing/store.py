"""One tenant's chunks: a Haystack document store over one Chroma collection.

Stock `ChromaDocumentStore` cannot run async in the process, writes one row a call, gives distances for scores and
fails when two callers create a collection at once; `ChunkStore` mends the first three.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import chromadb
from chromadb.api import ClientAPI
from haystack import Document
from haystack.document_stores.types import DuplicatePolicy
from haystack_integrations.document_stores.chroma import ChromaDocumentStore

from components.filtering import chroma_filters
from components.pacing import slices
from components.storing.errors import (
    DocumentStoreUnavailableError,
    UnknownTenantError,
    translated_errors,
)
from components.storing.safekeeping import IndexKeeper
from components.storing.sharing import SharedLock

T = TypeVar("T")

DISTANCE = "cosine"
# Rows asked for in one call, by id or by document: SQLite bounds the parts of a query.
IDS_AT_ONCE = 250


class ChunkStore(ChromaDocumentStore):
    """
    The chunks in one Chroma collection.

    Scores are cosine similarity cut to 0..1, larger is better. Every asynchronous method runs in the executor of the
    `TenantDocumentStores` that made it, under its deadline.
    """

    def __init__(
        self,
        collection: chromadb.Collection,
        client: ClientAPI,
        executor: ThreadPoolExecutor,
        timeout: float,
        batch_size: int,
        reopen: Callable[[], "ChunkStore"],
        lock: SharedLock | None = None,
        keeper: IndexKeeper | None = None,
    ) -> None:
        """
        Wrap an open collection; use `TenantDocumentStores.get` or `.get_or_create`.

        :param collection: the tenant's collection.
        :param client: the client that the collection belongs to; shared.
        :param executor: runs the asynchronous methods.
        :param timeout: seconds an asynchronous call may take.
        :param batch_size: rows written in one call.
        :param reopen: called when the collection turns out to be gone; looks up what is in its place.
        :param lock: keeps searches and writes of the collection apart, where Chroma does not.
        :param keeper: keeps a copy of the index while it is written to, where Chroma does not.
        """
        super().__init__(collection.name, distance_function=DISTANCE)
        self._client = client
        self._collection = collection
        self._executor = executor
        self._timeout = timeout
        self._batch_size = batch_size
        self._reopen = reopen
        self._lock = lock
        self._keeper = keeper
        # Held by who compares versions and then writes.
        self.writing = threading.Lock()

    @property
    def collection_name(self) -> str:
        """Name of the collection."""
        return self.rows.name

    @property
    def rows(self) -> chromadb.Collection:
        """The collection."""
        assert self._collection is not None
        return self._collection

    def renew(self, collection: chromadb.Collection) -> None:
        """
        Take over what was just looked up of the collection: its metadata and dimension change.

        :param collection: the same collection.
        """
        self._collection = collection

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.OVERWRITE
    ) -> int:
        """
        Write documents in batches, in the order given, with a pause before each; see `components.pacing`.

        :param documents: documents with embeddings; of two with one id the last counts.
        :param policy: what to do with ids that exist; unlike Haystack's, the default replaces them, so that
            writing twice is harmless.
        :returns: how many were written.
        :raises DuplicateDocumentError: with `FAIL`, if an id exists.
        """
        by_id = {document.id: document for document in documents if document.content is not None}
        if policy in (DuplicatePolicy.FAIL, DuplicatePolicy.SKIP) and by_id:
            with translated_errors():
                existing = set(self.rows.get(ids=list(by_id), include=[])["ids"])
            payloads = [{"ids": [key]} for key in by_id]
            by_id = {
                p["ids"][0]: by_id[p["ids"][0]]
                for p in self._apply_duplicate_policy(payloads, existing, policy)
            }
        for part in slices(list(by_id.values()), most=self._batch_size):
            rows = [self._convert_document_to_chroma(document) for document in part]
            with self.changing():
                self.rows.upsert(
                    ids=[row["ids"][0] for row in rows if row],
                    documents=[row["documents"][0] for row in rows if row],
                    embeddings=[row["embeddings"][0] for row in rows if row],
                    # Chroma knows no empty metadata, and Haystack's row then lacks the field.
                    metadatas=[row.get("metadatas", [None])[0] for row in rows if row],
                )
        return len(by_id)

    def search_embeddings(
        self, query_embeddings: list[list[float]], top_k: int, filters: dict[str, Any] | None = None
    ) -> list[list[Document]]:
        """
        Find the documents nearest to embeddings.

        :param query_embeddings: one embedding a query.
        :param top_k: how many documents at most for each.
        :param filters: Haystack filters over metadata and content.
        :returns: for each embedding its documents, best first, with similarity scores and without embeddings.
        :raises InvalidFilterError: if the filters can't be read.
        """
        try:
            return self._search(query_embeddings, top_k, filters)
        except UnknownTenantError:
            # Meanwhile `thresher reindex` put another collection in its place, or somebody dropped the tenant.
            return self._reopen()._search(query_embeddings, top_k, filters)

    def _search(
        self, query_embeddings: list[list[float]], top_k: int, filters: dict[str, Any] | None
    ) -> list[list[Document]]:
        with translated_errors(), self._lock.reading() if self._lock else nullcontext():
            result = self.rows.query(
                query_embeddings=query_embeddings,
                n_results=top_k,
                include=["documents", "metadatas", "distances"],
                **chroma_filters(filters),
            )
        return [
            [
                Document(
                    id=row_id, content=text, meta=dict(meta or {}), score=min(1.0, max(0.0, 1.0 - distance))
                )
                for row_id, text, meta, distance in zip(*columns, strict=True)
            ]
            for columns in zip(
                result["ids"], result["documents"], result["metadatas"], result["distances"], strict=True
            )
        ]

    def delete_documents(self, document_ids: list[str]) -> None:
        """
        Delete chunks by id; ids that are not there, and an empty list, are no error.

        :param document_ids: the ids.
        """
        for part in slices(document_ids, most=self._batch_size):
            with self.changing():
                self.rows.delete(ids=list(part))

    def discard(self, chunk_ids: list[str]) -> None:
        """
        Delete chunks without a pause, so that nothing interrupts it half-way.

        :param chunk_ids: their ids.
        """
        for begin in range(0, len(chunk_ids), self._batch_size):
            with self.changing():
                self.rows.delete(ids=chunk_ids[begin : begin + self._batch_size])

    async def count_documents_async(self) -> int:
        """Count the chunks; see `count_documents`."""
        return await self.off_loop(self.count_documents)

    async def filter_documents_async(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """List chunks; see `filter_documents`."""
        return await self.off_loop(self.filter_documents, filters)

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.OVERWRITE
    ) -> int:
        """Write documents; see `write_documents`."""
        return await self.off_loop(self.write_documents, documents, policy)

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """Delete chunks; see `delete_documents`."""
        await self.off_loop(self.delete_documents, document_ids)

    async def search_embeddings_async(
        self, query_embeddings: list[list[float]], top_k: int, filters: dict[str, Any] | None = None
    ) -> list[list[Document]]:
        """Find the nearest documents; see `search_embeddings`."""
        return await self.off_loop(self.search_embeddings, query_embeddings, top_k, filters)

    def close(self) -> None:
        """Do nothing: the client is shared and closed by `TenantDocumentStores`."""

    @contextmanager
    def changing(self) -> Iterator[None]:
        """
        Change rows inside the block.

        :raises DocumentStoreError: see `translated_errors`.
        """
        with (
            translated_errors(),
            self._lock.writing() if self._lock else nullcontext(),
            self._keeper.keeping(str(self.rows.id)) if self._keeper else nullcontext(),
        ):
            yield

    async def off_loop(self, call: Callable[..., T], *args: Any) -> T:
        """
        Run what blocks in the executor, under the deadline.

        :param call: what to run.
        :param args: its arguments.
        :returns: what it returns.
        :raises DocumentStoreUnavailableError: if it takes too long.
        """
        return await with_deadline(self._executor, self._timeout, call, *args)


async def with_deadline(
    executor: ThreadPoolExecutor, timeout: float, call: Callable[..., T], *args: Any
) -> T:
    """
    Run what blocks in an executor, under a deadline.

    :param executor: where to run it.
    :param timeout: seconds it may take.
    :param call: what to run.
    :param args: its arguments.
    :returns: what it returns.
    :raises DocumentStoreUnavailableError: if it takes longer.
    """
    future = asyncio.get_running_loop().run_in_executor(executor, call, *args)
    try:
        # `asyncio.wait_for` forgets that it was cancelled when the future is done at the same moment.
        async with asyncio.timeout(timeout):
            return await future
    except TimeoutError as error:
        raise DocumentStoreUnavailableError(f"Chroma did not answer within {timeout:g} s") from error
