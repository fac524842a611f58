"""Writing a document's chunks so that doing it twice changes nothing."""

import hashlib
from typing import Any

from haystack import Document, component

from components.storing import TenantDocumentStores

# What splitters leave behind that Chroma can't store or nobody reads.
_SPLITTER_META = frozenset({"_split_overlap", "parent_id", "source_id", "split_id", "split_idx_start"})


@component
class TenantDocumentWriter:
    """
    Writes chunks into a tenant's store under ids made from tenant, document and content.

    The same document written again gives the same rows, and chunks that a changed document no longer has are deleted
    after the new ones are there, so a reader never finds neither.

    Usage example:
    ```python
    writer = TenantDocumentWriter(document_stores=stores)
    writer.run(documents=chunks, tenant_id="acme")  # {"documents_written": 12}
    ```
    """

    def __init__(self, document_stores: TenantDocumentStores) -> None:
        """
        Create a writer.

        :param document_stores: every tenant's store.
        """
        self.document_stores = document_stores

    @component.output_types(documents_written=int)
    def run(self, documents: list[Document], tenant_id: str) -> dict[str, int]:
        """
        Write all chunks of some documents.

        :param documents: embedded chunks with `document_id` in their metadata; all chunks of a document at once.
        :param tenant_id: whose they are.
        :returns: `documents_written`, the number of chunks that the documents now have.
        :raises ValueError: if a chunk names no document.
        """
        chunks = [as_chunk(document, tenant_id) for document in documents]
        if not chunks:
            return {"documents_written": 0}
        store = self.document_stores.get_or_create(tenant_id)
        written = {chunk.id for chunk in chunks}
        before = store.chunk_ids(sorted({chunk.meta["document_id"] for chunk in chunks}))
        store.write_documents(chunks)
        store.delete_documents([chunk_id for chunk_id in before if chunk_id not in written])
        return {"documents_written": len(written)}


def as_chunk(document: Document, tenant_id: str) -> Document:
    """
    Give a split document its lasting id and metadata.

    :param document: a chunk as a Haystack splitter makes it, with `document_id` in its metadata.
    :param tenant_id: whose it is.
    :returns: the chunk with `document_id`, `title`, `start` (offset in the document's text) and `chunk_index`.
    :raises ValueError: if it names no document.
    """
    meta: dict[str, Any] = {key: value for key, value in document.meta.items() if key not in _SPLITTER_META}
    if "document_id" not in meta:
        raise ValueError("a chunk has no 'document_id' in its metadata; name the document before the writer")
    meta.setdefault("title", "")
    meta["start"] = document.meta.get("split_idx_start", 0)
    meta["chunk_index"] = document.meta.get("split_id", 0)
    identity = "\0".join([tenant_id, str(meta["document_id"]), str(meta["start"]), document.content or ""])
    chunk_id = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()
    return Document(id=chunk_id, content=document.content, meta=meta, embedding=document.embedding)
