"""What the HTTP API takes and gives about documents and the jobs that bring them."""

import math
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from haystack import Document
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, model_validator

from components.filtering import CHROMA_KEYS
from components.storing import DocumentInfo
from components.writing import RESERVED_META
from serve.jobs.model import Job, JobStatus, SourceResult
from serve.naming import LONGEST_ID
from serve.schemas import FilledText, Request, TenantID, Text, encodable

LONGEST_TITLE = 1_024
DEFAULT_PIPELINE = "ingest"
# Where a chunk stands; the writer keeps them, as they come from the indexing pipeline.
PLACE_META = frozenset({"page", "section", "sections"})


def _meta_value(value: Any) -> Any:
    # Before the union, whose own message has a line for each of its members.
    if not isinstance(value, str | int | float | bool):
        raise ValueError("must be a text, a number or a boolean")
    return encodable(value) if isinstance(value, str) else value


MetaValue = Annotated[str | int | float | bool, BeforeValidator(_meta_value)]


class DocumentFields(Request):
    """What is said about a document beside its content."""

    id: Annotated[FilledText, Field(max_length=LONGEST_ID)] | None = Field(
        None,
        description=(
            "Names the document; ingesting it again replaces it. Made from the text, or from the file's name, when left"
            " out."
        ),
    )
    title: Annotated[Text, Field(max_length=LONGEST_TITLE)] | None = None
    meta: dict[Annotated[FilledText, Field(max_length=128)], MetaValue] = Field(
        default_factory=dict,
        description="Further metadata, for filters: texts, numbers and booleans.",
        max_length=64,
    )

    @model_validator(mode="after")
    def _check_meta(self) -> "DocumentFields":
        for key, value in self.meta.items():
            if key in RESERVED_META or key in PLACE_META or key.startswith(CHROMA_KEYS):
                raise ValueError(f"meta.{key} is the service's own; choose another name")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"meta.{key} is not a finite number")
            if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
                raise ValueError(f"meta.{key} has more than 64 bits")
        return self


class DocumentInput(DocumentFields):
    """A document to ingest."""

    text: FilledText


class IngestBody(Request):
    """Documents to ingest, as plain texts or with ids, titles and metadata."""

    tenant_id: TenantID | None = None
    pipeline: Text = Field(
        DEFAULT_PIPELINE, description="Which indexing pipeline turns the documents into chunks."
    )
    texts: list[FilledText] | None = Field(None, min_length=1, examples=[["chunk one", "chunk two"]])
    documents: list[DocumentInput] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one_of_both(self) -> "IngestBody":
        if (self.texts is None) == (self.documents is None):
            raise ValueError("give either 'texts' or 'documents'")
        ids = Counter(document.id for document in self.documents or [] if document.id is not None)
        if ids and (most := ids.most_common(1)[0])[1] > 1:
            raise ValueError(f"two documents have the id '{most[0][:80]}'")
        return self


FileFields: TypeAdapter[dict[str, DocumentFields]] = TypeAdapter(dict[str, DocumentFields])
"""The field `metadata` of an upload: what is said about its files, by their names."""


class JobList(BaseModel):
    """Jobs of a tenant, the newest first."""

    items: list[Job]
    next: str | None = Field(None, description="Give it as `cursor` to get the next page; null at the end.")


class PipelineInfo(BaseModel):
    """An indexing pipeline."""

    name: str
    description: str
    takes_files: bool = Field(description="Whether it takes files; every one takes texts.")
    origin: str = Field(description="`built-in`, `directory` (PIPELINES_DIR), `package` or `added`.")
    file: str = Field(description="The file's name.")


class PipelineList(BaseModel):
    """Every indexing pipeline that can be asked for."""

    items: list[PipelineInfo]
    next: str | None = None


class JobProgress(BaseModel):
    """How far a job is."""

    status: JobStatus
    progress: float
    total: int
    documents_ok: int
    documents_skipped: int
    documents_failed: int
    chunks_ok: int


class SourceOutcome(SourceResult):
    """What became of one document or file of a job."""

    position: int = Field(description="Its place in the request, from 0.")


class SourceList(BaseModel):
    """Documents or files of a job, in the order in which they were sent."""

    items: list[SourceOutcome]
    next: str | None = Field(None, description="Give it as `cursor` to get the next page; null at the end.")


class DocumentItem(BaseModel):
    """A document that a tenant holds."""

    document_id: str
    title: str
    chunks: int
    source: str | None = Field(description="The name of the file it came from; null when it came as text.")
    pipeline: str | None = Field(description="The indexing pipeline that wrote it.")
    job_id: str | None = Field(description="The job that brought it.")
    ingested_at: datetime | None
    meta: dict[str, Any]

    @classmethod
    def of(cls, info: DocumentInfo) -> Self:
        """
        Take over what the store tells.

        :param info: the document.
        :returns: the document as the API gives it.
        """
        return cls(
            document_id=info.id,
            title=info.title,
            chunks=info.chunks,
            source=info.source or None,
            pipeline=info.pipeline,
            job_id=info.job_id,
            ingested_at=None if info.ingested_at is None else datetime.fromtimestamp(info.ingested_at, UTC),
            meta=info.meta,
        )


class DocumentList(BaseModel):
    """Documents of a tenant."""

    items: list[DocumentItem]
    next: str | None = Field(None, description="Give it as `cursor` to get the next page; null at the end.")


class Chunk(BaseModel):
    """A part of a document, as it is searched."""

    chunk_id: str
    text: str
    start: int = Field(description="Where it begins in the document's text, in characters.")
    page: int | None = None
    section: str | None = None

    @classmethod
    def of(cls, document: Document) -> Self:
        """
        Take over what the store tells.

        :param document: the chunk.
        :returns: the chunk as the API gives it.
        """
        meta = document.meta
        return cls(
            chunk_id=document.id,
            text=document.content or "",
            start=meta.get("start", 0),
            page=meta.get("page"),
            section=meta.get("section"),
        )


class DocumentDetail(DocumentItem):
    """A document with its chunks."""

    items: list[Chunk] = Field(description="Chunks in the order of the text.")
    next: str | None = Field(None, description="Give it as `cursor` to get more chunks; null at the end.")


class DeletedDocument(BaseModel):
    """A document that is gone."""

    tenant_id: str
    document_id: str
    chunks: int = Field(description="How many chunks were deleted.")


class DeletedTenant(BaseModel):
    """A tenant that is gone."""

    tenant_id: str
    jobs_cancelled: int
