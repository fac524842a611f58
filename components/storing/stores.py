"""Every tenant's document store, from one Chroma client."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

import chromadb

from components.breaking import Breaker
from components.storing import contract
from components.storing.catalogue import CollectionCatalogue
from components.storing.connecting import ChromaConnection
from components.storing.contract import Splitting
from components.storing.documents import TenantDocumentStore
from components.storing.errors import UnknownDocumentError, UnknownTenantError, translated_errors
from components.storing.indexing import Indexing, current_indexing, indexing_as
from components.storing.sharing import SharedLock
from components.storing.store import with_deadline
from components.threads import ContextThreads

# Handles are small; only so many tenants are looked up in Chroma once.
_MOST_HANDLES = 2_000
# So long another process may read what was replaced by `thresher reindex` or dropped.
FRESH_SECONDS = 5.0
# So long a question may hold a collection between looking it up and searching it.
IN_FLIGHT_SECONDS = 2.0


@dataclass
class _Handle:
    store: TenantDocumentStore
    checked: float = field(default_factory=time.monotonic)


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
        batch_size: int = 256,
        threads: int = 4,
        open_tenants: int = 100,
        breaker: Breaker | None = None,
    ) -> None:
        """
        Choose where the documents are; nothing is opened yet.

        :param path: directory of the embedded database; one process at a time may use it.
        :param host: host of a Chroma server, instead of `path`.
        :param port: port of that server.
        :param prefix: what a collection's name begins with; the tenant id follows.
        :param embedding_model: name kept with each new collection; a collection of another model is refused.
        :param timeout: seconds a call to Chroma may take.
        :param batch_size: rows in one write at most; embedded Chroma holds the interpreter for a whole call, so a pacer
            makes it smaller while somebody waits.
        :param threads: threads for the asynchronous methods.
        :param open_tenants: tenants whose index the embedded database keeps in memory, rounded up to a multiple of 64.
        :param breaker: opens when a server keeps failing.
        """
        self.embedding_model = embedding_model
        self._connection = ChromaConnection(path, host, port, timeout, open_tenants, breaker)
        self.catalogue = CollectionCatalogue(self._connection, prefix, embedding_model)
        self._timeout = timeout
        self._batch_size = batch_size
        self._executor = ContextThreads(threads, thread_name_prefix="chroma")
        # Of its own, so that whoever asks whether Chroma is there does not wait behind those that work.
        self._pinger = ContextThreads(1, thread_name_prefix="chroma-ping")
        self._lock = threading.Lock()
        self._handles: OrderedDict[str, _Handle] = OrderedDict()
        self._replayed: set[str] = set()
        self._locks: WeakValueDictionary[str, SharedLock] = WeakValueDictionary()

    @property
    def location(self) -> str:
        """`embedded` or `server`."""
        return "embedded" if self._connection.embedded else "server"

    @property
    def seconds_until_noticed(self) -> float:
        """How long a reader, in another process too, may go on with a collection that is no longer in use."""
        return IN_FLIGHT_SECONDS if self._connection.embedded else FRESH_SECONDS + self._timeout

    def get(self, tenant_id: str) -> TenantDocumentStore:
        """
        Give the store of a tenant that has documents.

        :param tenant_id: the tenant.
        :returns: its store.
        :raises InvalidTenantError: if the id has a wrong form.
        :raises UnknownTenantError: if nothing was ingested for it.
        :raises EmbeddingMismatchError: if another embedding model filled it.
        """
        return self._fresh(tenant_id) or self._open(tenant_id, create=False)

    def get_or_create(self, tenant_id: str) -> TenantDocumentStore:
        """
        Give the store to write a tenant's documents to, making its collection when there is none.

        :param tenant_id: the tenant.
        :returns: its store.
        :raises InvalidTenantError: if the id has a wrong form.
        :raises EmbeddingMismatchError: if another embedding model filled it.
        :raises SplittingMismatchError: inside `indexing`, if the pipeline split otherwise before.
        """
        return self._open(tenant_id, create=True)

    def has_opened(self, tenant_id: str) -> bool:
        """
        Say whether a tenant has documents, as far as is known without asking Chroma.

        :param tenant_id: the tenant.
        :returns: whether it had some when it was last looked up; False of one that was not looked up for long.
        """
        with self._lock:
            return tenant_id in self._handles

    async def get_async(self, tenant_id: str) -> TenantDocumentStore:
        """Give the store of a tenant that has documents; see `get`."""
        if (store := self._fresh(tenant_id)) is not None:
            return store
        return await with_deadline(self._executor, self._timeout, self._open, tenant_id, False)

    @contextmanager
    def indexing(
        self, tenant_id: str, pipeline: str, splitting: Splitting, into: str | None = None
    ) -> Iterator[None]:
        """
        Say which pipeline writes a tenant's documents inside the block, in this thread or task.

        The collection keeps how each pipeline splits, and refuses another splitting under the same name.

        :param tenant_id: the tenant.
        :param pipeline: name of the indexing pipeline.
        :param splitting: the settings of its splitters, by component.
        :param into: the collection to write to, when it is not the one in use; see `Generation`.
        :raises EmbeddingMismatchError: if another embedding model filled the collection.
        :raises SplittingMismatchError: if the pipeline split otherwise before.
        """
        with indexing_as(Indexing(tenant_id, pipeline, splitting, into)):
            if into is None and (collection := self.catalogue.in_use(tenant_id)) is not None:
                contract.check_embedding(collection, tenant_id, self.embedding_model)
                contract.check_splitting(collection, tenant_id, pipeline, splitting)
            yield

    def drop(self, tenant_id: str) -> bool:
        """
        Delete everything of a tenant.

        :param tenant_id: the tenant.
        :returns: whether there was anything.
        """
        dropped = self.catalogue.drop(tenant_id)
        self.forget(tenant_id)
        return dropped

    async def drop_async(self, tenant_id: str) -> bool:
        """Delete everything of a tenant; see `drop`."""
        return await with_deadline(self._executor, self._timeout, self.drop, tenant_id)

    def in_use(self, tenant_id: str, store: TenantDocumentStore) -> bool:
        """
        Say whether a store that was written to is still the one to write to.

        :param tenant_id: whose it is.
        :param store: what `get_or_create` gave.
        :returns: False when `thresher reindex` or a deletion put another in its place meanwhile.
        """
        indexing = current_indexing(tenant_id)
        if indexing is not None and indexing.collection is not None:
            return True
        found = self.catalogue.in_use(tenant_id)
        return found is not None and found.id == store.rows.id

    def delete_document(self, tenant_id: str, document_id: str) -> int:
        """
        Delete a document with all its chunks, from a collection that is being filled for `thresher reindex` too.

        :param tenant_id: whose it is.
        :param document_id: which one.
        :returns: how many chunks were deleted.
        :raises UnknownTenantError: if the tenant has no documents.
        :raises UnknownDocumentError: if there is none of that id.
        """
        store = self._open(tenant_id, create=False)
        deleted = store.delete_document(document_id)
        # Looked up after the deletion, so that one of the two sees the other.
        first = self.catalogue.first(tenant_id)
        metadata = (first.metadata or {}) if first else {}
        others = {str(metadata[key]) for key in ("building", "active") if key in metadata}
        for name in others - {store.collection_name}:
            if (collection := self.catalogue.get(name)) is not None:
                with suppress(UnknownDocumentError):
                    self.store_over(collection, tenant_id).delete_document(document_id)
        return deleted

    async def delete_document_async(self, tenant_id: str, document_id: str) -> int:
        """Delete a document; see `delete_document`."""
        return await with_deadline(
            self._executor, self._timeout, self.delete_document, tenant_id, document_id
        )

    async def ping(self, deadline: float | None = None) -> None:
        """
        Ask Chroma whether it is there.

        :param deadline: seconds to wait; as long as for any call by default.
        :raises DocumentStoreUnavailableError: if it does not answer within the deadline.
        """

        def heartbeat() -> None:
            with translated_errors():
                self._connection.client().heartbeat()

        await with_deadline(self._pinger, deadline or self._timeout, heartbeat)

    def close(self) -> None:
        """Close the client; the stores made by this object can't be used any more."""
        with self._lock:
            self._handles.clear()
        self._connection.close()
        for executor in (self._executor, self._pinger):
            executor.shutdown(wait=False, cancel_futures=True)

    def store_over(self, collection: chromadb.Collection, tenant_id: str) -> TenantDocumentStore:
        """
        Wrap a collection.

        :param collection: the collection.
        :param tenant_id: whose it is.
        :returns: the store.
        """
        client, embedded = self._connection.client(), self._connection.embedded
        if embedded:
            with translated_errors():
                contract.write_through(collection)
        store = TenantDocumentStore(
            collection,
            client,
            self._executor,
            self._timeout,
            self._batch_size,
            reopen=lambda: self._open(tenant_id, create=False),
            lock=self._lock_of(collection) if embedded else None,
            keeper=self._connection.keeper,
        )
        if embedded:
            self._replay(store)
        return store

    def forget(self, tenant_id: str) -> None:
        """
        Look a tenant's collection up again at its next use.

        :param tenant_id: the tenant.
        """
        with self._lock:
            self._handles.pop(tenant_id, None)

    def _replay(self, store: TenantDocumentStore) -> None:
        # The first call of a process that reads a collection makes Chroma write what a crash left in its log.
        collection_id = str(store.rows.id)
        if collection_id not in self._replayed:
            with store.changing():
                store.rows.count()
            self._replayed.add(collection_id)

    def _lock_of(self, collection: chromadb.Collection) -> SharedLock:
        # Embedded Chroma may load an index that it dropped from its cache while another thread writes to it, and go on
        # with what it loaded.
        with self._lock:
            return self._locks.setdefault(str(collection.id), SharedLock())

    def _fresh(self, tenant_id: str) -> TenantDocumentStore | None:
        with self._lock:
            handle = self._handles.get(tenant_id)
            if handle is None:
                return None
            self._handles.move_to_end(tenant_id)
        # Embedded, nobody else changes which collection is in use.
        if self._connection.embedded or time.monotonic() - handle.checked < FRESH_SECONDS:
            return handle.store
        return None

    def _open(self, tenant_id: str, create: bool) -> TenantDocumentStore:
        indexing = current_indexing(tenant_id) if create else None
        if indexing is not None and indexing.collection is not None:
            # Only `Generation.begin` makes it: when it is gone, somebody dropped the tenant, or began anew.
            collection = self.catalogue.there(indexing.collection)
            contract.check_embedding(collection, tenant_id, self.embedding_model)
            self._keep_contract(collection, indexing)
            return self.store_over(collection, tenant_id)
        found = self.catalogue.in_use(tenant_id)
        if found is None and create:
            found = self.catalogue.create_first(tenant_id)
        if found is None:
            self.forget(tenant_id)
            raise UnknownTenantError.without_documents(tenant_id)
        contract.check_embedding(found, tenant_id, self.embedding_model)
        if indexing is not None:
            self._keep_contract(found, indexing)
        return self._kept(tenant_id, found)

    def _keep_contract(self, collection: chromadb.Collection, indexing: Indexing) -> None:
        pipeline, splitting = indexing.pipeline, indexing.splitting
        if not contract.check_splitting(collection, indexing.tenant_id, pipeline, splitting):
            self.catalogue.record_splitting(collection.name, pipeline, splitting)

    def _kept(self, tenant_id: str, collection: chromadb.Collection) -> TenantDocumentStore:
        with self._lock:
            handle = self._handles.get(tenant_id)
            if handle is not None and handle.store.rows.id == collection.id:
                handle.checked = time.monotonic()
                handle.store.renew(collection)
                return handle.store
        made = _Handle(self.store_over(collection, tenant_id))
        with self._lock:
            self._handles[tenant_id] = made
            while len(self._handles) > _MOST_HANDLES:
                self._handles.popitem(last=False)
        return made.store
