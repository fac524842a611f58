"""The job queue of a service or a worker, made from the settings and given the work that its jobs are about."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import ollama
import openai

from components.converting.errors import SourceError
from components.storing import DocumentStoreError, DocumentStoreUnavailableError
from registry import ModeRegistry
from serve.holdings import reindexing_job
from serve.indexer import Indexer
from serve.jobs import JobInput, JobQueue, LoadedSource, QueueUnavailableError, SourceResult
from serve.jobs.faults import causes, clean, describe, is_transient
from serve.jobs.redis_backend import open_backend
from serve.pacing import Activity
from serve.telemetry import bound_request_id
from serve.telemetry.metrics import JobMetrics
from serve.tracing import current_traceparent
from serve.tracing.recording import Tracing
from settings import Settings

_PASSING = (
    DocumentStoreUnavailableError,
    QueueUnavailableError,
    httpx.TransportError,
    openai.APIConnectionError,
    openai.InternalServerError,
    openai.RateLimitError,
)


def open_queue(
    settings: Settings,
    registry: ModeRegistry,
    tracing: Tracing,
    *,
    works: bool,
    metrics: JobMetrics,
    activity: Activity | None = None,
) -> JobQueue:
    """
    Make the job queue.

    :param settings: say where the jobs are, and how many at a time are worked on.
    :param registry: has the indexing pipelines.
    :param tracing: records the work on jobs.
    :param works: whether this process works on jobs, or only accepts them.
    :param metrics: counts the work.
    :param activity: knows whether somebody waits for an answer of this process, who then comes first.
    :returns: the queue; nothing is opened yet.
    """
    activity = activity or Activity()
    indexer = Indexer(
        registry,
        deleted=lambda tenant_id, ids: queue.call(queue.deleted_since(tenant_id, ids)),
        reindexed_by=lambda tenant_id: queue.call(reindexing_job(queue, tenant_id)),
    )

    @contextmanager
    def bind(job: JobInput, check: Callable[[], None]) -> Iterator[None]:
        with bound_request_id(job.request_id or None, job.run_id), tracing.job(job), activity.paced(check):
            yield

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        results = indexer.work(job, sources)
        metrics.indexed(results)
        return results

    queue = JobQueue(
        work,
        open_backend(settings),
        works=works,
        workers=settings.ingest_workers,
        batch_size=settings.ingest_batch_size,
        max_jobs_per_tenant=settings.max_queued_jobs_per_tenant,
        max_retries=settings.ingest_retries,
        grace_seconds=settings.worker_grace,
        prepare=indexer.prepare,
        finish=indexer.finish,
        transient=may_pass,
        describe=reason_of,
        bind=bind,
        ended=metrics.ended,
        traceparent=current_traceparent,
    )
    return queue


def may_pass(error: BaseException) -> bool:
    """
    Say whether an error of the work on documents may be gone later.

    :param error: the error.
    :returns: True where Chroma, a model server or the job store did not answer, or not now.
    """
    return any(
        isinstance(cause, _PASSING) or (isinstance(cause, ollama.ResponseError) and cause.status_code >= 429)
        for cause in causes(error)
    ) or is_transient(error)


def reason_of(error: BaseException) -> str:
    """
    Tell an error to the person who sent the document.

    :param error: the error.
    :returns: its own words where they were written for that, else its kind and message.
    """
    return clean(str(error)) if isinstance(error, SourceError | DocumentStoreError) else describe(error)
