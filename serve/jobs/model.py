"""What a job is: the sources that it carries, what became of each, and the job as its owner sees it."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field, model_validator

SOURCES_SHOWN = 100


class StagedFile(BaseModel):
    """A file that was posted; its content is kept under its hash. `content_type` is what the client declared."""

    name: str
    sha256: str
    size: int
    content_type: str | None = None


class Source(BaseModel):
    """
    One thing that was posted, which becomes one document: a text or a file.

    Sources of a job that indexes anew have neither; they name documents that are there. `accepted_at` is set when the
    job is kept, by the one clock that the store has for all processes. `repeated` says that an earlier source of the
    job is the very same, so that its chunks count once.
    """

    id: str
    title: str | None = None
    meta: dict[str, Any] = Field(default_factory=dict)
    accepted_at: float = 0.0
    text: str | None = None
    file: StagedFile | None = None
    repeated: bool = False

    @model_validator(mode="after")
    def _not_both(self) -> "Source":
        if self.text is not None and self.file is not None:
            raise ValueError("a source is a text or a file, not both")
        return self


class LoadedSource(Source):
    """A source with what its file holds."""

    content: bytes | None = Field(None, repr=False)


class SourceStatus(StrEnum):
    """What became of a source."""

    PENDING = "pending"
    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"


class SourceResult(BaseModel):
    """
    What became of one source, and why.

    Also what went well may have a reason: that nothing had changed, or what was left out. `name` is the file's.
    """

    document_id: str
    name: str | None = None
    status: SourceStatus
    reason: str | None = None
    chunks: int = 0


class JobKind(StrEnum):
    """What a job does with its sources."""

    INGEST = "ingest"
    REINDEX = "reindex"


class JobStatus(StrEnum):
    """Where a job stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        return self in (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED)


class JobInput(BaseModel):
    """
    What is kept of a job as long as it is known: the row that the spool has of it.

    A retry is a new run of the same job. `request_id` and `traceparent` (W3C) are those of the request that began the
    run. `documents_ok`, `documents_skipped` and `chunks_ok` count what earlier runs
    have done for good; `finished_at` is set while no run is under way.
    """

    job_id: str
    tenant_id: str
    kind: JobKind = JobKind.INGEST
    pipeline: str = "ingest"
    request_id: str = ""
    traceparent: str = ""
    body_digest: str = ""
    total: int
    created_at: float
    run: int = 0
    documents_ok: int = 0
    documents_skipped: int = 0
    chunks_ok: int = 0
    finished_at: float | None = None

    @property
    def run_id(self) -> str:
        """The name of the present run's execution; the time keeps it apart from a job of this id long ago."""
        return f"{self.job_id}-{int(self.created_at * 1_000_000):x}-{self.run}"


class Job(BaseModel):
    """
    A job as its owner sees it.

    `sources` holds the outcome of every source where there are at most 100 of them, else the first 100 that failed
    or were skipped; in lists of jobs it is empty. `error` says why a failed job failed.
    """

    job_id: str
    tenant_id: str
    kind: JobKind = JobKind.INGEST
    pipeline: str = "ingest"
    status: JobStatus
    total: int
    documents_ok: int = 0
    documents_skipped: int = 0
    documents_failed: int = 0
    chunks_ok: int = 0
    progress: float = Field(default=0.0, ge=0.0, le=1.0)
    error: str | None = None
    sources: list[SourceResult] = Field(default_factory=list)
    run: int = Field(0, description="How often it was started anew by a retry.")
    attempts: int = 0
    request_id: str = ""
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class PostponeError(Exception):
    """Raised by the work on a job that can't go on yet, without anything being wrong."""

    def __init__(self, seconds: float) -> None:
        """
        :param seconds: when the job shall be tried again.
        """
        super().__init__(f"not before {seconds:g} s")
        self.seconds = seconds


class JobInterrupted(BaseException):
    """
    Ends the work on a batch: the job was cancelled, or another process has it.

    Not an `Exception`, as a pipeline wraps those and a component may take them for a fault of the document.
    """
