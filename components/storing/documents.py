"""A tenant's documents as wholes: listing, reading and deleting what the chunks in its collection belong to."""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from haystack import Document

from components.storing.errors import DocumentStoreError, UnknownDocumentError, translated_errors
from components.storing.records import (
    DocumentInfo,
    DocumentState,
    HeldVersion,
    current,
    document_info,
    held_versions,
    version_of,
)
from components.storing.store import IDS_AT_ONCE, ChunkStore

Row = tuple[str, dict[str, Any]]

_FEW_ROWS = 300


class InvalidCursorError(DocumentStoreError):
    """A cursor was not made by `list_documents`."""


class TenantDocumentStore(ChunkStore):
    """One tenant's documents, each a number of chunks."""

    # Whether the collection was once seen to be large.
    _many = False

    def held_versions(self, document_ids: Iterable[str]) -> dict[str, list[HeldVersion]]:
        """
        Say which chunks are held of documents.

        :param document_ids: which documents.
        :returns: for each document that has chunks its versions, the latest first; usually there is one.
        """
        wanted = set(document_ids)
        if (few := self._all_if_few()) is not None:
            return held_versions(row for row in few if row[1].get("document_id") in wanted)
        return held_versions(row for where in _of_documents(wanted) for row in self._read(where=where))

    def document_states(self, document_ids: Iterable[str]) -> dict[str, DocumentState]:
        """
        Say which version of documents is held.

        :param document_ids: which documents.
        :returns: the state of each document that is held.
        """
        states = {}
        for name, versions in self.held_versions(document_ids).items():
            held = current(versions)
            states[name] = DocumentState(
                fingerprint=(held.head or {}).get("fingerprint"),
                accepted_at=held.accepted_at,
                chunks=len(held.chunk_ids),
                complete=held.complete,
                alone=len(versions) == 1,
            )
        return states

    def touch(self, accepted_at: dict[str, float]) -> None:
        """
        Note that documents were accepted again unchanged, so that a version accepted before can't replace them.

        :param accepted_at: when, by document id; an earlier time than the one noted changes nothing.
        """
        heads: dict[str, float] = {}
        for name, versions in self.held_versions(accepted_at).items():
            held = current(versions)
            if held.head is not None and held.accepted_at < accepted_at[name]:
                heads[held.head_id] = accepted_at[name]
        if heads:
            with self.changing():
                self.rows.update(
                    ids=list(heads), metadatas=[{"accepted_at": since} for since in heads.values()]
                )

    def settle(self, document_ids: Iterable[str]) -> dict[str, list[HeldVersion]]:
        """
        Delete the chunks of documents that belong to older versions than the latest complete one.

        Whoever writes a version calls this after; so of several writers, in other processes too, each removes what it
        finds to be older, its own included, and the last one leaves one version.

        :param document_ids: which documents.
        :returns: what is held then, as `held_versions` gives it.
        """
        held = self.held_versions(document_ids)
        stale: list[str] = []
        for name, versions in held.items():
            latest = current(versions)
            if latest.complete:
                stale += [key for old in versions if old.age < latest.age for key in old.chunk_ids]
                held[name] = [version for version in versions if version.age >= latest.age]
        self.discard(stale)
        return held

    def holds_just(self, chunks: Mapping[str, Iterable[str]]) -> bool:
        """
        Say whether certain chunks are held of documents and no others.

        :param chunks: the ids of the chunks, by document id.
        :returns: whether it is so.
        """
        if (rows := self._all_if_few()) is not None:
            found = [key for key, meta in rows if meta.get("document_id") in chunks]
        else:
            found = []
            for where in _of_documents(chunks):
                with translated_errors():
                    found += self.rows.get(where=where, include=[])["ids"]
        return sorted(found) == sorted(key for keys in chunks.values() for key in keys)

    def list_documents(
        self, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[DocumentInfo], str | None]:
        """
        List documents in pages, in the order in which they were first written.

        :param limit: documents in a page.
        :param cursor: where the page begins; what the page before gave.
        :returns: the page, and the cursor of the next one; None when there is none.
        :raises InvalidCursorError: if the cursor was not made here.
        """
        offset, last = _read_cursor(cursor)
        # Rows deleted since the page before move up those that follow: look for the last one seen a page earlier.
        begin = max(0, offset - limit - 1) if last else 0
        found = self._heads(begin, offset - begin + limit + 1)
        ids = [key for key, _ in found]
        first = ids.index(last) + 1 if last in ids else min(offset - begin, len(ids))
        heads = found[first : first + limit]
        more = len(ids) > first + limit
        next_cursor = _make_cursor(begin + first + len(heads), heads[-1][0]) if heads and more else None
        return self._infos(heads), next_cursor

    def get_document(self, document_id: str) -> tuple[DocumentInfo, list[Document]]:
        """
        Read a document.

        :param document_id: which one.
        :returns: what is known of it, and its chunks in the order of the text, without embeddings.
        :raises UnknownDocumentError: if there is none of that id.
        """
        with translated_errors():
            found = self.rows.get(where={"document_id": document_id}, include=["metadatas", "documents"])
        versions = held_versions(zip(found["ids"], found["metadatas"], strict=True)).get(document_id)
        if not versions:
            raise UnknownDocumentError(f"there is no document '{document_id}'; GET /documents lists them")
        held = current(versions)
        chunks = [
            Document(id=key, content=text, meta=dict(meta))
            for key, text, meta in zip(found["ids"], found["documents"], found["metadatas"], strict=True)
            if version_of(key) == held.version
        ]
        chunks.sort(key=lambda chunk: (chunk.meta.get("chunk_index", 0), chunk.meta.get("start", 0)))
        return document_info(held.head or chunks[0].meta, len(chunks)), chunks

    def delete_document(self, document_id: str) -> int:
        """
        Delete a document with all its chunks.

        :param document_id: which one.
        :returns: how many chunks were deleted.
        :raises UnknownDocumentError: if there is none of that id.
        """
        with translated_errors():
            found = self.rows.get(where={"document_id": document_id}, include=[])["ids"]
        if not found:
            raise UnknownDocumentError(f"there is no document '{document_id}'; GET /documents lists them")
        self.delete_documents(found)
        return len(found)

    async def document_states_async(self, document_ids: Iterable[str]) -> dict[str, DocumentState]:
        """Say which version of documents is held; see `document_states`."""
        return await self.off_loop(self.document_states, document_ids)

    async def touch_async(self, accepted_at: dict[str, float]) -> None:
        """Note that documents were accepted again; see `touch`."""
        await self.off_loop(self.touch, accepted_at)

    async def list_documents_async(
        self, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[DocumentInfo], str | None]:
        """List documents; see `list_documents`."""
        return await self.off_loop(self.list_documents, limit, cursor)

    async def get_document_async(self, document_id: str) -> tuple[DocumentInfo, list[Document]]:
        """Read a document; see `get_document`."""
        return await self.off_loop(self.get_document, document_id)

    async def delete_document_async(self, document_id: str) -> int:
        """Delete a document; see `delete_document`."""
        return await self.off_loop(self.delete_document, document_id)

    def _heads(self, begin: int, count: int) -> list[Row]:
        if (rows := self._all_if_few()) is not None:
            heads = [row for row in rows if row[1].get("chunk_index") == 0]
            return heads[begin : begin + count]
        return self._read(where={"chunk_index": 0}, limit=count, offset=begin)

    def _all_if_few(self) -> list[Row] | None:
        # Chroma looks a condition up among the rows of all tenants, which is slow where these are many.
        if self._many:
            return None
        rows = self._read(limit=_FEW_ROWS + 1)
        self._many = len(rows) > _FEW_ROWS
        return None if self._many else rows

    def _read(self, **which: Any) -> list[Row]:
        with translated_errors():
            found = self.rows.get(include=["metadatas"], **which)
        return list(zip(found["ids"], found["metadatas"], strict=True))

    def _infos(self, heads: list[Row]) -> list[DocumentInfo]:
        # While a document is replaced it has two first chunks; the later one tells.
        latest: dict[str, dict[str, Any]] = {}
        for _, head in sorted(heads, key=lambda row: float(row[1].get("accepted_at", 0.0))):
            latest[str(head["document_id"])] = head
        uncounted = [name for name, head in latest.items() if "chunks" not in head]
        counted = {
            name: len(versions[0].chunk_ids) for name, versions in self.held_versions(uncounted).items()
        }
        names = dict.fromkeys(str(head["document_id"]) for _, head in heads)
        return [
            document_info(latest[name], latest[name].get("chunks") or counted.get(name, 0)) for name in names
        ]


def _of_documents(document_ids: Iterable[str]) -> Iterator[Any]:
    wanted = sorted(set(document_ids))
    for begin in range(0, len(wanted), IDS_AT_ONCE):
        yield {"document_id": {"$in": wanted[begin : begin + IDS_AT_ONCE]}}


def _make_cursor(offset: int, last: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([offset, last]).encode()).decode()


def _read_cursor(cursor: str | None) -> tuple[int, str]:
    if cursor is None:
        return 0, ""
    try:
        offset, last = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
        if isinstance(offset, int) and 0 <= offset < 2**31 and isinstance(last, str):
            return offset, last
    except (ValueError, binascii.Error, TypeError):
        pass
    raise InvalidCursorError("the cursor was not given by GET /documents")
