"""Writing a document's chunks so that doing it twice changes nothing."""

import hashlib
import time
from typing import Any

from haystack import Document, component

from components.storing import TenantDocumentStores, UnknownTenantError

# What splitters leave behind that Chroma can't store or nobody reads.
SPLITTER_META = frozenset({"_split_overlap", "parent_id", "source_id", "split_id", "split_idx_start"})
# What a document may not bring along: it would be lost, or take the place of a chunk's own.
RESERVED_META = SPLITTER_META | {"accepted_at", "chunk_index", "document_id", "page_number", "start", "title"}


@component
class TenantDocumentWriter:
    """
    Writes chunks into a tenant's store under ids made from tenant, document and content.

    The same document written again gives the same rows, and chunks that a changed document no longer has are deleted
    after the new ones are there, so a reader never finds neither. Of two versions the one accepted later stays,
    whichever is written first.

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
        :returns: `documents_written`, the number of chunks written; none of a document that has a later version.
        :raises ValueError: if a chunk names no document.
        """
        chunks = [as_chunk(document, tenant_id) for document in documents]
        if not chunks:
            return {"documents_written": 0}
        try:
            return {"documents_written": self._write(chunks, tenant_id)}
        except UnknownTenantError:
            # The collection was dropped behind our back; the handle is forgotten, so this makes it anew.
            return {"documents_written": self._write(chunks, tenant_id)}

    def _write(self, chunks: list[Document], tenant_id: str) -> int:
        accepted_at = {chunk.meta["document_id"]: chunk.meta["accepted_at"] for chunk in chunks}
        store = self.document_stores.get_or_create(tenant_id)
        with store.writing:
            held = store.held_chunks(sorted(accepted_at))
            newer = {name for _, name, since in held if since > accepted_at[name]}
            kept = [chunk for chunk in chunks if chunk.meta["document_id"] not in newer]
            store.write_documents(kept)
            written = {chunk.id for chunk in kept}
            store.delete_documents([key for key, name, _ in held if name not in newer and key not in written])
        return len(written)


def as_chunk(document: Document, tenant_id: str) -> Document:
    """
    Give a split document its lasting id and metadata.

    :param document: a chunk as a Haystack splitter makes it, with `document_id` in its metadata.
    :param tenant_id: whose it is.
    :returns: the chunk with `document_id`, `title`, `start` (offset in the document's text), `chunk_index` and
        `accepted_at` (when the document was accepted, in seconds since 1970; now, where it is not said).
    :raises ValueError: if it names no document.
    """
    meta: dict[str, Any] = {key: value for key, value in document.meta.items() if key not in SPLITTER_META}
    if "document_id" not in meta:
        raise ValueError("a chunk has no 'document_id' in its metadata; name the document before the writer")
    meta.setdefault("title", "")
    meta.setdefault("accepted_at", time.time())
    meta["start"] = document.meta.get("split_idx_start", 0)
    meta["chunk_index"] = document.meta.get("split_id", 0)
    identity = "\0".join([tenant_id, str(meta["document_id"]), str(meta["start"]), document.content or ""])
    chunk_id = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()
    return Document(id=chunk_id, content=document.content, meta=meta, embedding=document.embedding)
