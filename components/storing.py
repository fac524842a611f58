"""Tenants' document stores on Chroma, embedded in the process or on a server.

Stock `ChromaDocumentStore` cannot run async in the process, writes one row a call, gives distances for scores and
fails when two callers create a collection at once; `TenantDocumentStore` mends these four.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import chromadb
import httpx
from chromadb.api import ClientAPI
from chromadb.config import Settings as ChromaSettings
from chromadb.errors import ChromaError, NotFoundError
from haystack import Document
from haystack.document_stores.types import DuplicatePolicy
from haystack_integrations.document_stores.chroma import ChromaDocumentStore

from components.filtering import InvalidFilterError, chroma_filters

T = TypeVar("T")

TENANT_PATTERN = r"^[a-zA-Z0-9](?:[a-zA-Z0-9_-]{0,62}[a-zA-Z0-9])?$"
_DISTANCE = "cosine"


class DocumentStoreError(Exception):
    """A tenant's documents can't be read or written."""


class InvalidTenantError(DocumentStoreError):
    """A tenant id has a form that is not allowed."""


class UnknownTenantError(DocumentStoreError):
    """Nothing was ever ingested for a tenant."""


class EmbeddingMismatchError(DocumentStoreError):
    """A collection was made with another embedding model than the one in use."""


class DocumentStoreUnavailableError(DocumentStoreError):
    """Chroma does not answer, or not in time."""


def check_tenant_id(tenant_id: str) -> str:
    """
    Check the form of a tenant id.

    :param tenant_id: the id.
    :returns: the id.
    :raises InvalidTenantError: if it is not 1 to 64 letters, digits, `_` and `-`, beginning and ending with a letter
        or digit.
    """
    if not re.fullmatch(TENANT_PATTERN, tenant_id):
        raise InvalidTenantError(
            "a tenant id has 1 to 64 letters, digits, '_' or '-', and begins and ends with a letter or digit"
        )
    return tenant_id


class TenantDocumentStore(ChromaDocumentStore):
    """
    One tenant's documents: a Haystack document store over one Chroma collection.

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
        forget: Callable[[], Any],
    ) -> None:
        """
        Wrap an open collection; use `TenantDocumentStores.get` or `.get_or_create`.

        :param collection: the tenant's collection.
        :param client: the client that the collection belongs to; shared.
        :param executor: runs the asynchronous methods.
        :param timeout: seconds an asynchronous call may take.
        :param batch_size: rows written in one call.
        :param forget: called when the collection turns out to be gone, so that the next use looks it up again.
        """
        super().__init__(collection.name, distance_function=_DISTANCE)
        self._client = client
        self._collection = collection
        self._executor = executor
        self._timeout = timeout
        self._batch_size = batch_size
        self._forget = forget
        # Held by who compares versions and then writes.
        self.writing = threading.Lock()

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.OVERWRITE
    ) -> int:
        """
        Write documents in batches.

        :param documents: documents with embeddings; of two with one id the last counts.
        :param policy: what to do with ids that exist; unlike Haystack's, the default replaces them, so that
            writing twice is harmless.
        :returns: how many were written.
        :raises DuplicateDocumentError: with `FAIL`, if an id exists.
        """
        by_id = {document.id: document for document in documents if document.content is not None}
        if policy in (DuplicatePolicy.FAIL, DuplicatePolicy.SKIP) and by_id:
            with self._calling():
                existing = set(self._rows.get(ids=list(by_id), include=[])["ids"])
            payloads = [{"ids": [key]} for key in by_id]
            by_id = {
                p["ids"][0]: by_id[p["ids"][0]]
                for p in self._apply_duplicate_policy(payloads, existing, policy)
            }
        unique = list(by_id.values())
        for begin in range(0, len(unique), self._batch_size):
            rows = [
                self._convert_document_to_chroma(document)
                for document in unique[begin : begin + self._batch_size]
            ]
            with self._calling():
                self._rows.upsert(
                    ids=[row["ids"][0] for row in rows if row],
                    documents=[row["documents"][0] for row in rows if row],
                    embeddings=[row["embeddings"][0] for row in rows if row],
                    metadatas=[row["metadatas"][0] for row in rows if row],
                )
        return len(unique)

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
        with self._calling():
            result = self._rows.query(
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

    def held_chunks(self, document_ids: list[str]) -> list[tuple[str, str, float]]:
        """
        List the chunks that belong to documents.

        :param document_ids: values of the metadata field `document_id`.
        :returns: for each chunk its id, its document's id, and when the document was accepted (0 when not known).
        """
        with self._calling():
            found = self._rows.get(where={"document_id": {"$in": document_ids}}, include=["metadatas"])
        return [
            (key, str(meta["document_id"]), float(meta.get("accepted_at", 0.0)))
            for key, meta in zip(found["ids"], found["metadatas"], strict=True)
        ]

    def delete_documents(self, document_ids: list[str]) -> None:
        """
        Delete documents by id; ids that are not there, and an empty list, are no error.

        :param document_ids: the ids.
        """
        for begin in range(0, len(document_ids), self._batch_size):
            with self._calling():
                self._rows.delete(ids=document_ids[begin : begin + self._batch_size])

    async def count_documents_async(self) -> int:
        """Count the documents; see `count_documents`."""
        return await self._off_loop(self.count_documents)

    async def filter_documents_async(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """List documents; see `filter_documents`."""
        return await self._off_loop(self.filter_documents, filters)

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.OVERWRITE
    ) -> int:
        """Write documents; see `write_documents`."""
        return await self._off_loop(self.write_documents, documents, policy)

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """Delete documents; see `delete_documents`."""
        await self._off_loop(self.delete_documents, document_ids)

    async def search_embeddings_async(
        self, query_embeddings: list[list[float]], top_k: int, filters: dict[str, Any] | None = None
    ) -> list[list[Document]]:
        """Find the nearest documents; see `search_embeddings`."""
        return await self._off_loop(self.search_embeddings, query_embeddings, top_k, filters)

    def close(self) -> None:
        """Do nothing: the client is shared and closed by `TenantDocumentStores`."""

    @property
    def _rows(self) -> chromadb.Collection:
        assert self._collection is not None
        return self._collection

    @contextmanager
    def _calling(self) -> Iterator[None]:
        try:
            with _translated_errors():
                yield
        except UnknownTenantError:
            # Another process dropped the tenant's collection, and may have made it anew.
            self._forget()
            raise

    async def _off_loop(self, call: Callable[..., T], *args: Any) -> T:
        return await _with_deadline(self._executor, self._timeout, call, *args)


class TenantDocumentStores:
    """
    Every tenant's document store, from one Chroma client.

    Usage example:
    ```python
    stores = TenantDocumentStores(path=Path("data/chroma"), embedding_model="all-MiniLM-L6-v2")
    store = stores.get_or_create("acme")
    store.write_documents(documents)
    ```
    """

    def __init__(
        self,
        path: Path | None = None,
        host: str | None = None,
        port: int = 8000,
        prefix: str = "tenant_",
        embedding_model: str = "",
        timeout: float = 10.0,
        batch_size: int = 64,
        threads: int = 4,
    ) -> None:
        """
        Choose where the documents are; nothing is opened yet.

        :param path: directory of the embedded database; one process at a time may use it.
        :param host: host of a Chroma server, instead of `path`.
        :param port: port of that server.
        :param prefix: what a collection's name begins with; the tenant id follows.
        :param embedding_model: name kept with each new collection; a collection of another model is refused.
        :param timeout: seconds a call to Chroma may take.
        :param batch_size: rows in one write; embedded Chroma holds the interpreter for a whole call.
        :param threads: threads for the asynchronous methods.
        """
        self._path = path
        self._host = host
        self._port = port
        self._prefix = prefix
        self._embedding_model = embedding_model
        self._timeout = timeout
        self._batch_size = batch_size
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="chroma")
        self._lock = threading.Lock()
        self._client: ClientAPI | None = None
        self._stores: dict[str, TenantDocumentStore] = {}

    @property
    def location(self) -> str:
        """`embedded` or `server`."""
        return "server" if self._host else "embedded"

    def get(self, tenant_id: str) -> TenantDocumentStore:
        """
        Give the store of a tenant that has documents.

        :param tenant_id: the tenant.
        :returns: its store.
        :raises InvalidTenantError: if the id has a wrong form.
        :raises UnknownTenantError: if nothing was ingested for it.
        :raises EmbeddingMismatchError: if another embedding model filled it.
        """
        return self._stores.get(tenant_id) or self._open(tenant_id, create=False)

    def get_or_create(self, tenant_id: str) -> TenantDocumentStore:
        """
        Give the store of a tenant, making its collection when there is none.

        :param tenant_id: the tenant.
        :returns: its store.
        :raises InvalidTenantError: if the id has a wrong form.
        :raises EmbeddingMismatchError: if another embedding model filled it.
        """
        return self._stores.get(tenant_id) or self._open(tenant_id, create=True)

    async def get_async(self, tenant_id: str) -> TenantDocumentStore:
        """Give the store of a tenant that has documents; see `get`."""
        if (store := self._stores.get(tenant_id)) is not None:
            return store
        return await _with_deadline(self._executor, self._timeout, self._open, tenant_id, False)

    async def ping(self) -> None:
        """
        Ask Chroma whether it is there.

        :raises DocumentStoreUnavailableError: if it does not answer within the deadline.
        """

        def heartbeat() -> None:
            with _translated_errors():
                self._connect().heartbeat()

        await _with_deadline(self._executor, self._timeout, heartbeat)

    def close(self) -> None:
        """Close the client; the stores made by this object can't be used any more."""
        with self._lock:
            self._stores.clear()
            if self._client is not None:
                for session in _sessions(self._client) if self._host else []:
                    session.close()
                self._client.close()
                self._client = None
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _connect(self) -> ClientAPI:
        with self._lock:
            if self._client is None:
                self._client = self._make_client()
            return self._client

    def _make_client(self) -> ClientAPI:
        settings = ChromaSettings(anonymized_telemetry=False)
        if self._host:
            # Chroma's client sets no timeout and calls the server when it is made: a frozen server would hold this
            # thread for ever. So ask first, and set the timeout after.
            httpx.get(
                f"http://{self._host}:{self._port}/api/v2/heartbeat", timeout=self._timeout, trust_env=False
            )
            client = chromadb.HttpClient(self._host, self._port, settings=settings)
            for session in _sessions(client):
                session.timeout = httpx.Timeout(self._timeout)
            return client
        if self._path is None:
            return chromadb.EphemeralClient(settings)
        self._path.mkdir(parents=True, exist_ok=True)
        return chromadb.PersistentClient(str(self._path), settings)

    def _open(self, tenant_id: str, create: bool) -> TenantDocumentStore:
        name = self._prefix + check_tenant_id(tenant_id)
        with _translated_errors():
            client = self._connect()
            if create:
                metadata = {"hnsw:space": _DISTANCE, "embedding_model": self._embedding_model}
                # `get_or_create` is atomic in Chroma, unlike listing and then creating.
                collection = client.get_or_create_collection(name, metadata=metadata, embedding_function=None)
            else:
                try:
                    collection = client.get_collection(name, embedding_function=None)
                except NotFoundError:
                    raise UnknownTenantError(
                        f"tenant '{tenant_id}' has no documents; ingest some with POST /ingest/ or `thresher ingest`"
                    ) from None
        made_with = (collection.metadata or {}).get("embedding_model", self._embedding_model)
        if made_with != self._embedding_model:
            raise EmbeddingMismatchError(
                f"the documents of tenant '{tenant_id}' were embedded with '{made_with}', but the service now embeds"
                f" with '{self._embedding_model}': set the embedding model back, or ingest into another tenant"
            )
        store = TenantDocumentStore(
            collection,
            client,
            self._executor,
            self._timeout,
            self._batch_size,
            forget=lambda: self._stores.pop(tenant_id, None),
        )
        return self._stores.setdefault(tenant_id, store)


def _sessions(client: Any) -> list[httpx.Client]:
    # Private to Chroma, which neither bounds nor closes them; the admin client inside has a system of its own.
    return [client._server._session, client._admin_client._server._session]


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, ConnectionError) as error:
        raise DocumentStoreUnavailableError("Chroma does not answer") from error
    except InvalidFilterError:
        raise
    except ValueError as error:
        # chromadb.HttpClient turns a refused connection into a ValueError.
        if "Could not connect" in str(error):
            raise DocumentStoreUnavailableError("Chroma does not answer") from error
        if _is_about_filters(error):
            raise InvalidFilterError(f"Chroma refuses the filters: {error}") from error
        raise
    except NotFoundError as error:
        raise UnknownTenantError("the tenant's collection is gone; ingest its documents again") from error
    except ChromaError as error:
        if "dimension" in str(error):
            raise EmbeddingMismatchError(str(error)) from error
        if _is_about_filters(error):
            raise InvalidFilterError(f"Chroma refuses the filters: {error}") from error
        raise DocumentStoreError(f"Chroma refused the call: {error}") from error


def _is_about_filters(error: Exception) -> bool:
    return any(words in str(error) for words in ("Invalid where", "Expected where"))


async def _with_deadline(
    executor: ThreadPoolExecutor, timeout: float, call: Callable[..., T], *args: Any
) -> T:
    future = asyncio.get_running_loop().run_in_executor(executor, call, *args)
    try:
        return await asyncio.wait_for(future, timeout)
    except TimeoutError as error:
        raise DocumentStoreUnavailableError(f"Chroma did not answer within {timeout:g} s") from error
