"""Job and JobStatus: a job as its owner sees it, and the records that it is made from."""

import json
from datetime import UTC, datetime
from enum import StrEnum

from hayhooks.durable.engine import ExecutionControl, ExecutionStatus, PayloadKind
from hayhooks.durable.store import StoredExecution
from pydantic import BaseModel, Field


class JobInput(BaseModel):
    """What the durable execution carries: a reference to the spool."""

    job_id: str
    tenant_id: str
    total: int


class DocumentError(BaseModel):
    """A document that could not be indexed, and why."""

    document_id: str
    error: str


class JobState(BaseModel):
    """
    The checkpoint of a job, saved after each batch.

    `cursor` counts the documents that are finished, well or not. `starts` counts the attempts that began at
    this cursor and `retries` the transient faults since it was reached; each batch sets both back to 0.
    """

    cursor: int = 0
    documents_ok: int = 0
    documents_failed: int = 0
    chunks_ok: int = 0
    errors: list[DocumentError] = Field(default_factory=list)
    error: str | None = None
    started_at_ms: int | None = None
    starts: int = 0
    retries: int = 0


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


STATUSES = {
    ExecutionStatus.QUEUED: JobStatus.PENDING,
    ExecutionStatus.WAITING: JobStatus.PENDING,
    ExecutionStatus.RUNNING: JobStatus.RUNNING,
    ExecutionStatus.COMPLETED: JobStatus.DONE,
    ExecutionStatus.FAILED: JobStatus.FAILED,
    ExecutionStatus.CANCELED: JobStatus.CANCELLED,
}


class Job(BaseModel):
    """
    An ingestion job as its owner sees it.

    `errors` names the first 100 documents that could not be indexed; `documents_failed` counts all of them.
    `error` says why a failed job failed.
    """

    job_id: str
    tenant_id: str
    status: JobStatus
    total: int
    documents_ok: int = 0
    documents_failed: int = 0
    chunks_ok: int = 0
    progress: float = Field(default=0.0, ge=0.0, le=1.0)
    error: str | None = None
    errors: list[DocumentError] = Field(default_factory=list)
    attempts: int = 0
    request_id: str = ""
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


def job_from_stored(stored: StoredExecution, request_id: str) -> Job:
    """
    :param stored: an execution with its private payloads.
    :param request_id: the request that brought the job.
    :returns: the job as its owner sees it.
    """
    request = JobInput.model_validate_json(stored.payloads[PayloadKind.INPUT])
    checkpoint = stored.payloads.get(PayloadKind.CHECKPOINT)
    state = JobState() if checkpoint is None else JobState(**json.loads(checkpoint)["application_state"])
    failure = stored.payloads.get(PayloadKind.ERROR)
    return job_from_parts(stored.control, request, state, request_id, failure)


def job_from_parts(
    control: ExecutionControl,
    request: JobInput,
    state: JobState,
    request_id: str,
    failure: bytes | None = None,
) -> Job:
    """
    :param control: where the execution stands.
    :param request: what was submitted.
    :param state: the last checkpoint.
    :param request_id: the request that brought the job.
    :param failure: Hayhooks' record of a failure.
    :returns: the job as its owner sees it.
    """
    status = STATUSES[control.status]
    error = None
    if status is JobStatus.FAILED:
        # Hayhooks keeps a type and a general message; what the runner wrote down says more.
        error = state.error or (json.loads(failure)["message"] if failure else "the job failed")
    return Job(
        job_id=control.run_id,
        tenant_id=request.tenant_id,
        status=status,
        total=request.total,
        documents_ok=state.documents_ok,
        documents_failed=state.documents_failed,
        chunks_ok=state.chunks_ok,
        progress=state.cursor / request.total,
        error=error,
        errors=state.errors,
        attempts=control.run_attempt,
        request_id=request_id,
        created_at=_time(control.created_at_ms),
        started_at=None if state.started_at_ms is None else _time(state.started_at_ms),
        finished_at=_time(control.updated_at_ms) if status.finished else None,
    )


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1_000, UTC)
