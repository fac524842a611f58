"""Ingestion jobs that no crash loses: `JobQueue` is the port, hayhooks.durable with our SQLite store the engine."""

from serve.jobs.before_model import DocumentError, Job, JobStatus
from serve.jobs.queue import JobQueue, QueueFullError, QueueUnavailableError

__all__ = ["DocumentError", "Job", "JobQueue", "JobStatus", "QueueFullError", "QueueUnavailableError"]
