"""What the store tells about documents, read from the metadata of their chunks."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

# Only the first chunk of a document has these; `_kind` is the kind of file that the document was, as splitters ask.
HEAD_META = ("_kind", "chunks", "fingerprint", "ingested_at", "job_id", "pipeline")
# What a chunk has of its own, besides what its document was given.
CHUNK_META = (
    *HEAD_META,
    *("accepted_at", "chunk_index", "document_id", "page", "section", "sections", "source", "start", "title"),
)
VERSION_LENGTH = 16


@dataclass(frozen=True)
class DocumentState:
    """Which version of a document is held."""

    fingerprint: str | None
    """Hash of what the version was made from; None when it is not known."""
    accepted_at: float
    """When it was accepted, in seconds since 1970; 0 when not known."""
    chunks: int
    """How many chunks of it are held."""
    complete: bool
    """Whether these are all."""
    alone: bool = True
    """Whether no chunk of another version is held; otherwise a writer has not come to `settle`."""


@dataclass(frozen=True)
class DocumentInfo:
    """What is known of a document."""

    id: str
    title: str
    chunks: int
    source: str
    """Name of the file it came from; empty when it came as text."""
    ingested_at: float | None
    """When it was written, in seconds since 1970; None when not known."""
    job_id: str | None
    accepted_at: float
    pipeline: str | None
    """Name of the indexing pipeline that wrote it."""
    fingerprint: str | None
    meta: dict[str, Any] = field(default_factory=dict)
    """The metadata it was given."""


@dataclass
class HeldVersion:
    """The chunks held of one version of a document."""

    version: str
    chunk_ids: list[str] = field(default_factory=list)
    accepted_at: float = 0.0
    head: dict[str, Any] | None = None
    head_id: str = ""

    @property
    def complete(self) -> bool:
        """Whether all its chunks are held, as far as can be told."""
        return self.head is not None and self.head.get("chunks", len(self.chunk_ids)) == len(self.chunk_ids)

    @property
    def age(self) -> tuple[float, str]:
        """What orders versions: the larger is the later one, and no two are equal."""
        return self.accepted_at, self.version


def version_of(chunk_id: str) -> str:
    """
    Read from a chunk's id which version of its document it belongs to.

    :param chunk_id: the id.
    :returns: the version; empty for a chunk written before there were versions.
    """
    return chunk_id[:VERSION_LENGTH] if chunk_id[VERSION_LENGTH : VERSION_LENGTH + 1] == "-" else ""


def held_versions(rows: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, list[HeldVersion]]:
    """
    Sort chunks by document and version.

    :param rows: id and metadata of each chunk.
    :returns: for each document its versions, the latest first.
    """
    found: dict[str, dict[str, HeldVersion]] = {}
    for chunk_id, meta in rows:
        version = version_of(chunk_id)
        held = found.setdefault(str(meta["document_id"]), {}).setdefault(version, HeldVersion(version))
        held.chunk_ids.append(chunk_id)
        held.accepted_at = max(held.accepted_at, float(meta.get("accepted_at", 0.0)))
        if meta.get("chunk_index") == 0:
            held.head, held.head_id = meta, chunk_id
    return {
        name: sorted(versions.values(), key=lambda held: held.age, reverse=True)
        for name, versions in found.items()
    }


def current(versions: list[HeldVersion]) -> HeldVersion:
    """
    Choose the version that counts.

    :param versions: the versions of a document, the latest first.
    :returns: the latest complete one, or the latest when none is complete.
    """
    return next((held for held in versions if held.complete), versions[0])


def document_info(head: dict[str, Any], chunks: int) -> DocumentInfo:
    """
    Read what a document's first chunk tells.

    :param head: the chunk's metadata.
    :param chunks: how many chunks the document has.
    :returns: what is known of the document.
    """
    return DocumentInfo(
        id=str(head["document_id"]),
        title=str(head.get("title", "")),
        chunks=chunks,
        source=str(head.get("source", "")),
        ingested_at=head.get("ingested_at"),
        job_id=head.get("job_id"),
        accepted_at=float(head.get("accepted_at", 0.0)),
        pipeline=head.get("pipeline"),
        fingerprint=head.get("fingerprint"),
        meta={key: value for key, value in head.items() if key not in CHUNK_META},
    )
