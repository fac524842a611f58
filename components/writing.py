"""Writing a document's chunks so that doing it twice changes nothing."""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from haystack import Document, component

from components.pacing import WorkCancelled, pause
from components.storing import (
    TenantDocumentStore,
    TenantDocumentStores,
    UnknownTenantError,
)
from components.storing.contract import check_dimension
from components.storing.indexing import current_indexing
from components.storing.records import HEAD_META, VERSION_LENGTH, HeldVersion

# What splitters leave behind that Chroma can't store or nobody reads.
SPLITTER_META = frozenset(
    {"_split_overlap", "header", "parent_headers", "parent_id", "source_id", "split_id", "split_idx_start"}
)
# What a document may not bring along: it would be lost, or take the place of a chunk's own.
RESERVED_META = (
    SPLITTER_META
    | frozenset(HEAD_META)
    | {"accepted_at", "chunk_index", "document_id", "page_number", "start", "title"}
)
# How often a write goes on in another collection that came into use meanwhile.
_MOST_MOVES = 3


@dataclass(frozen=True)
class DocumentVersion:
    """All chunks of one version of a document, ready to be written."""

    document_id: str
    accepted_at: float
    name: str
    """What the ids of its chunks begin with."""
    chunks: list[Document]
    """In the order of the text; the first one is the head."""

    @property
    def age(self) -> tuple[float, str]:
        """What orders versions, as `HeldVersion.age` does."""
        return self.accepted_at, self.name


@component
class TenantDocumentWriter:
    """
    Writes chunks into a tenant's store under ids made from tenant, document, version and content.

    The same version written again gives the same rows. Chunks of an older version are deleted after the new ones are
    there, so a reader never finds neither. Of two versions the one accepted later stays, whichever is written first
    and by whichever process.

    Usage example:
    ```python
    writer = TenantDocumentWriter(document_stores=stores)
    writer.run(documents=chunks, tenant_id="acme")  # {"documents_written": 12, "written": {"manual": 12}}
    ```
    """

    def __init__(self, document_stores: TenantDocumentStores) -> None:
        """
        Create a writer.

        :param document_stores: every tenant's store.
        """
        self.document_stores = document_stores

    @component.output_types(documents_written=int, written=dict[str, int])
    def run(self, documents: list[Document], tenant_id: str) -> dict[str, Any]:
        """
        Write all chunks of some documents.

        :param documents: embedded chunks with `document_id` in their metadata; all chunks of a document at once.
            `fingerprint`, `accepted_at`, `ingested_at`, `job_id` and `source` are kept where a document has them.
        :param tenant_id: whose they are.
        :returns: `documents_written`, the number of chunks written, and `written`, the number by document id: 0 for a
            document that was left alone because a later version of it is there.
        :raises ValueError: if a chunk names no document.
        :raises IndexMismatchError: if the tenant's index was made in another way.
        """
        versions = as_versions(documents, tenant_id)
        written = self._write(versions, tenant_id) if versions else {}
        return {"documents_written": sum(written.values()), "written": written}

    def _write(self, versions: list[DocumentVersion], tenant_id: str) -> dict[str, int]:
        for attempt in range(_MOST_MOVES):
            # Whose job is cancelled makes no collection that nobody asks for.
            pause()
            store = self.document_stores.get_or_create(tenant_id)
            try:
                with store.writing:
                    written = _write_into(store, versions, tenant_id)
            except UnknownTenantError:
                # The collection was dropped or replaced behind our back.
                if attempt == _MOST_MOVES - 1:
                    raise
                continue
            if self.document_stores.in_use(tenant_id, store):
                break
        return written


def _write_into(
    store: TenantDocumentStore, versions: list[DocumentVersion], tenant_id: str
) -> dict[str, int]:
    embedding = versions[0].chunks[0].embedding
    if embedding is not None:
        check_dimension(store.rows, tenant_id, len(embedding))
    names = [version.document_id for version in versions]
    held = store.held_versions(names)
    there = [version for version in versions if _is_there(version, held.get(version.document_id, []))]
    names_there = {version.document_id for version in there}
    wanted = [version for version in versions if version.document_id not in names_there]
    # A document counts as complete once its head is there, so the heads come last.
    bodies = [chunk for version in wanted for chunk in version.chunks[1:]]
    with _all_or_nothing(store, wanted):
        store.write_documents(bodies + [version.chunks[0] for version in wanted])
    store.touch({version.document_id: version.accepted_at for version in there})
    new = {version.document_id: [chunk.id for chunk in version.chunks] for version in wanted}
    # Most documents are new and nobody else writes them: then there is nothing to settle, and this is cheaper to see.
    if all(len(rivals) == 1 for rivals in held.values()) and store.holds_just(new):
        held |= {version.document_id: [HeldVersion(version.name)] for version in wanted}
    else:
        held = store.settle(names)
    return {
        version.document_id: len(version.chunks)
        if any(rival.version == version.name for rival in held.get(version.document_id, []))
        else 0
        for version in versions
    }


@contextmanager
def _all_or_nothing(store: TenantDocumentStore, wanted: list[DocumentVersion]) -> Iterator[None]:
    """Take back what was written when the work is cancelled, for then nobody comes back to finish it."""
    try:
        yield
    except WorkCancelled:
        ours = {(version.name, version.accepted_at) for version in wanted}
        # Another job may have written the same version meanwhile: its rows have the same ids, and say a later time.
        store.discard(
            [
                key
                for versions in store.held_versions(version.document_id for version in wanted).values()
                for version in versions
                if (version.version, version.accepted_at) in ours
                for key in version.chunk_ids
            ]
        )
        raise


def _is_there(version: DocumentVersion, held: list[HeldVersion]) -> bool:
    return any(
        rival.complete and (rival.version == version.name or rival.age > version.age) for rival in held
    )


def as_versions(documents: list[Document], tenant_id: str) -> list[DocumentVersion]:
    """
    Give split documents their lasting ids and metadata.

    :param documents: chunks as a Haystack splitter makes them, with `document_id` in their metadata.
    :param tenant_id: whose they are.
    :returns: one version of each document. Its chunks have `document_id`, `title`, `start` (offset in the document's
        text), `chunk_index`, and `accepted_at` (when the document was accepted, in seconds since 1970; now, where it
        is not said). The first one also has `chunks` (how many there are), `fingerprint`, `ingested_at` and, where
        they are known, `job_id` and `pipeline`.
    :raises ValueError: if a chunk names no document.
    """
    parts: dict[str, list[Document]] = {}
    for document in documents:
        if "document_id" not in document.meta:
            raise ValueError(
                "a chunk has no 'document_id' in its metadata; name the document before the writer"
            )
        parts.setdefault(str(document.meta["document_id"]), []).append(document)
    now = time.time()
    return [_version(name, _latest(chunks), tenant_id, now) for name, chunks in parts.items()]


def _latest(chunks: list[Document]) -> list[Document]:
    """:returns: Of a document that was given twice, the chunks of the one accepted last."""
    versions: dict[tuple[float, str], list[Document]] = {}
    for chunk in chunks:
        key = (float(chunk.meta.get("accepted_at", 0.0)), str(chunk.meta.get("fingerprint", "")))
        versions.setdefault(key, []).append(chunk)
    return versions[max(versions)]


def _version(document_id: str, parts: list[Document], tenant_id: str, now: float) -> DocumentVersion:
    parts = sorted(parts, key=lambda part: part.meta.get("split_idx_start", 0))
    first = parts[0].meta
    accepted_at = float(first.get("accepted_at", now))
    fingerprint = str(first.get("fingerprint") or _fingerprint(parts))
    name = _hash(tenant_id, document_id, fingerprint)[:VERSION_LENGTH]
    chunks: dict[str, Document] = {}
    for part in parts:
        start = part.meta.get("split_idx_start", 0)
        chunk_id = f"{name}-{_hash(tenant_id, document_id, fingerprint, str(start), part.content or '')}"[:64]
        if chunk_id in chunks:
            continue
        meta = {key: value for key, value in part.meta.items() if key not in RESERVED_META}
        if meta.get("source") == "":
            del meta["source"]
        meta |= {"document_id": document_id, "title": part.meta.get("title") or "", "start": start}
        meta |= {"chunk_index": len(chunks), "accepted_at": accepted_at}
        chunks[chunk_id] = Document(id=chunk_id, content=part.content, meta=meta, embedding=part.embedding)
    next(iter(chunks.values())).meta.update(
        {
            "chunks": len(chunks),
            "fingerprint": fingerprint,
            "ingested_at": float(first.get("ingested_at", now)),
            **{key: first[key] for key in ("_kind", "job_id", "pipeline") if first.get(key)},
            **({"pipeline": indexing.pipeline} if (indexing := current_indexing(tenant_id)) else {}),
        }
    )
    return DocumentVersion(document_id, accepted_at, name, list(chunks.values()))


def _fingerprint(parts: list[Document]) -> str:
    told = [
        (part.content, sorted((key, value) for key, value in part.meta.items() if key not in RESERVED_META))
        for part in parts
    ]
    titles = [part.meta.get("title", "") for part in parts[:1]]
    return hashlib.sha256(json.dumps([titles, told], default=str).encode()).hexdigest()


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
