"""Indexing a tenant's documents anew: a further collection is filled beside the one in use and takes its place."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import chromadb
from haystack import Document

from components.storing import contract
from components.storing.contract import Splitting
from components.storing.documents import TenantDocumentStore
from components.storing.errors import (
    IndexMismatchError,
    ReindexingError,
    UnknownTenantError,
    translated_errors,
)
from components.storing.naming import generation_name
from components.storing.rebuilding import whole_document
from components.storing.records import current, held_versions
from components.storing.store import IDS_AT_ONCE
from components.storing.stores import TenantDocumentStores

_ROWS_AT_ONCE = 1_000


class Generation:
    """
    The collection that takes the place of the one in use.

    While it is filled, readers and writers go on with the one in use, also in other processes.

    Usage example:
    ```python
    generation = Generation.begin(stores, "acme")
    while names := generation.outstanding():
        with generation.indexing("ingest", pipeline.splitting):
            pipeline.run("acme", generation.documents(names))
    generation.switch()
    ```
    """

    def __init__(self, stores: TenantDocumentStores, tenant_id: str, name: str) -> None:
        """
        Name a generation; use `begin`.

        :param stores: every tenant's store.
        :param tenant_id: whose documents.
        :param name: name of the new collection.
        """
        self.tenant_id = tenant_id
        self.name = name
        self._stores = stores

    @classmethod
    def begin(
        cls, stores: TenantDocumentStores, tenant_id: str, pipelines: Mapping[str, Splitting] | None = None
    ) -> "Generation":
        """
        Begin a new collection, or go on with the one begun before.

        :param stores: every tenant's store.
        :param tenant_id: whose documents.
        :param pipelines: the indexing pipelines that will fill it, with their splitting. What was begun with another
            embedding model or splitting is thrown away.
        :returns: the generation.
        :raises UnknownTenantError: if the tenant has no documents.
        """
        first = _first(stores, tenant_id)
        metadata = first.metadata or {}
        if metadata.get("retired"):
            cls._clear(stores, tenant_id, metadata["retired"])
            first = _first(stores, tenant_id)
            metadata = first.metadata or {}
        begun = metadata.get("building")
        if begun and _goes_on(stores, tenant_id, begun, pipelines or {}):
            return cls(stores, tenant_id, begun)
        if begun:
            stores.catalogue.delete(begun)
        number = int(metadata.get("generation", 0)) + 1
        name = generation_name(first.name, number)
        stores.catalogue.update(first.name, building=name, generation=number)
        stores.catalogue.create(name)
        return cls(stores, tenant_id, name)

    @property
    def store(self) -> TenantDocumentStore:
        """The new collection's store."""
        return self._stores.store_over(self._stores.catalogue.there(self.name), self.tenant_id)

    @contextmanager
    def indexing(self, pipeline: str, splitting: Splitting) -> Iterator[None]:
        """
        Let the writer write into the new collection inside the block, in this thread or task.

        :param pipeline: name of the indexing pipeline.
        :param splitting: the settings of its splitters, by component.
        """
        with self._stores.indexing(self.tenant_id, pipeline, splitting, into=self.name):
            yield

    def document_ids(self) -> list[str]:
        """
        List the documents of the collection in use.

        :returns: their ids.
        :raises UnknownTenantError: if the tenant was dropped.
        """
        return list(_accepted(self._in_use()))

    def documents(self, document_ids: list[str]) -> list[Document]:
        """
        Put documents of the collection in use together again from their chunks.

        :param document_ids: which ones.
        :returns: those that are there: whole texts, with the metadata that each was given and `document_id`, `title`,
            `accepted_at`, `ingested_at`, and `fingerprint`, `job_id`, `pipeline` and `source` where they are known.
        :raises UnknownTenantError: if the tenant was dropped.
        """
        store = self._in_use()
        documents = []
        for begin in range(0, len(document_ids), IDS_AT_ONCE):
            where = {"document_id": {"$in": document_ids[begin : begin + IDS_AT_ONCE]}}
            with translated_errors():
                found = store.rows.get(where=where, include=["metadatas", "documents"])
            texts = dict(zip(found["ids"], found["documents"], strict=True))
            metas = dict(zip(found["ids"], found["metadatas"], strict=True))
            for name, versions in held_versions(metas.items()).items():
                keys = current(versions).chunk_ids
                chunks = [Document(id=key, content=texts[key], meta=dict(metas[key])) for key in keys]
                documents.append(whole_document(name, chunks))
        order = {name: place for place, name in enumerate(document_ids)}
        return sorted(documents, key=lambda document: order[document.id])

    def outstanding(self) -> list[str]:
        """
        List the documents that the new collection lacks or has in an older version.

        Documents that were deleted meanwhile are deleted in the new collection, too.

        :returns: the ids of documents still to be copied.
        :raises UnknownTenantError: if the tenant was dropped.
        """
        wanted, store = _accepted(self._in_use()), self.store
        copied = _accepted(store)
        gone = [name for name in copied if name not in wanted]
        if gone:
            store.delete_documents(
                [
                    key
                    for versions in store.held_versions(gone).values()
                    for held in versions
                    for key in held.chunk_ids
                ]
            )
        return [name for name, accepted_at in wanted.items() if copied.get(name, -1.0) < accepted_at]

    def switch(self, grace: float | None = None) -> bool:
        """
        Put the new collection in the place of the one in use, in one step, and delete the old one.

        :param grace: seconds until the old one is deleted, in which those who read it can finish; by default as long
            as another process may take to notice.
        :returns: whether the new one is in use. It is not where another process, which changed what the first
            collection says at that very moment, undid the switch: then all is as before it.
        :raises ReindexingError: if this generation is no longer being built.
        :raises UnknownTenantError: if the tenant was dropped.
        """
        first = _first(self._stores, self.tenant_id)
        metadata = first.metadata or {}
        if metadata.get("building") != self.name:
            raise ReindexingError(
                f"tenant '{self.tenant_id}' is being indexed anew by somebody else; try again later"
            )
        old = metadata.get("active", first.name)
        self._stores.catalogue.update(first.name, active=self.name, building=None, retired=old)
        self._stores.forget(self.tenant_id)
        time.sleep(self._stores.seconds_until_noticed if grace is None else grace)
        if (_first(self._stores, self.tenant_id).metadata or {}).get("active") != self.name:
            return False
        self._clear(self._stores, self.tenant_id, old)
        return True

    def abandon(self) -> None:
        """Throw the new collection away; the one in use stays."""
        first = self._stores.catalogue.first(self.tenant_id)
        if first is not None and (first.metadata or {}).get("building") == self.name:
            self._stores.catalogue.delete(self.name)
            self._stores.catalogue.update(first.name, building=None)

    @staticmethod
    def _clear(stores: TenantDocumentStores, tenant_id: str, name: str) -> None:
        first = _first(stores, tenant_id)
        if name == (first.metadata or {}).get("active", first.name):
            # Never what is in use, whatever it was said to be.
            pass
        elif name == first.name:
            stores.catalogue.empty_first(tenant_id)
        else:
            stores.catalogue.delete(name)
        stores.catalogue.update(_first(stores, tenant_id).name, retired=None)

    def _in_use(self) -> TenantDocumentStore:
        found = self._stores.catalogue.in_use(self.tenant_id)
        if found is None:
            raise UnknownTenantError(f"tenant '{self.tenant_id}' has no documents any more")
        return self._stores.store_over(found, self.tenant_id)


def _first(stores: TenantDocumentStores, tenant_id: str) -> chromadb.Collection:
    first = stores.catalogue.first(tenant_id)
    if first is None:
        raise UnknownTenantError(f"tenant '{tenant_id}' has no documents")
    return first


def _goes_on(
    stores: TenantDocumentStores, tenant_id: str, name: str, pipelines: Mapping[str, Splitting]
) -> bool:
    collection = stores.catalogue.get(name)
    if collection is None:
        return False
    try:
        contract.check_embedding(collection, tenant_id, stores.embedding_model)
        for pipeline, splitting in pipelines.items():
            contract.check_splitting(collection, tenant_id, pipeline, splitting)
    except IndexMismatchError:
        return False
    return True


def _accepted(store: TenantDocumentStore) -> dict[str, float]:
    """:returns: When each document was accepted, by its id."""
    accepted: dict[str, float] = {}
    offset = 0
    while True:
        with translated_errors():
            heads = store.rows.get(
                where={"chunk_index": 0}, include=["metadatas"], limit=_ROWS_AT_ONCE, offset=offset
            )["metadatas"]
        for head in heads:
            name, since = str(head["document_id"]), float(head.get("accepted_at", 0.0))
            accepted[name] = max(accepted.get(name, 0.0), since)
        if len(heads) < _ROWS_AT_ONCE:
            return accepted
        offset += len(heads)
