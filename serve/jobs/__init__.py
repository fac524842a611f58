"""Ingestion jobs that no crash loses: `JobQueue` is the port, hayhooks.durable with our own stores the engine."""

from serve.jobs.backend import JobBackend, sqlite_backend
from serve.jobs.errors import (
    IdempotencyConflictError,
    JobNotFoundError,
    NothingToRetryError,
    QueueFullError,
    QueueUnavailableError,
    SourcesGoneError,
    TenantQueueFullError,
)
from serve.jobs.model import (
    Job,
    JobInput,
    JobInterrupted,
    JobKind,
    JobStatus,
    LoadedSource,
    PostponeError,
    Source,
    SourceResult,
    SourceStatus,
    StagedFile,
)
from serve.jobs.queue import JobQueue, Submission

__all__ = [
    "IdempotencyConflictError",
    "Job",
    "JobBackend",
    "JobInput",
    "JobInterrupted",
    "JobKind",
    "JobNotFoundError",
    "JobQueue",
    "JobStatus",
    "LoadedSource",
    "NothingToRetryError",
    "PostponeError",
    "QueueFullError",
    "QueueUnavailableError",
    "Source",
    "SourceResult",
    "SourceStatus",
    "SourcesGoneError",
    "StagedFile",
    "Submission",
    "TenantQueueFullError",
    "sqlite_backend",
]
