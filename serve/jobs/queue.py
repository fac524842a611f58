"""JobQueue: ingestion jobs that no crash loses. The one port to them."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, TypeVar
from weakref import WeakValueDictionary

from hayhooks.durable.engine import ExecutionControl, ExecutionNotFoundError, ExecutionStatus
from hayhooks.durable.store import ExecutionAdmissionError, ExecutionStoreError

from components.breaking import CircuitOpenError
from serve.jobs.admission import Admission
from serve.jobs.attempt import Bind, Ended, Step, Work, Workshop
from serve.jobs.backend import JobBackend
from serve.jobs.engine import REVISION, JobEngine, LoopBridge
from serve.jobs.errors import (
    IdempotencyConflictError,
    JobNotFoundError,
    NothingToRetryError,
    QueueUnavailableError,
    SourcesGoneError,
)
from serve.jobs.faults import describe as describe_error
from serve.jobs.faults import is_transient
from serve.jobs.model import (
    Job,
    JobInput,
    JobKind,
    JobStatus,
    Source,
    SourceResult,
    SourceStatus,
)
from serve.jobs.reading import JobReader
from serve.jobs.runner import JobRunner
from serve.jobs.state import view_job

T = TypeVar("T")

CANCEL_SECONDS = 1.0
CANCEL_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Submission:
    """A job, and whether it is new: a repeated request gets the job that is there."""

    job: Job
    created: bool


class JobQueue:
    """
    Accepts documents and has them indexed in the background.

    What `submit` returned is on the disk: from then on the job survives the end of any process, and goes on
    from the last batch. The work on a batch may therefore happen twice and must be idempotent.

    Usage example:
    ```python
    queue = JobQueue(index_sources, sqlite_backend(Path("data")))
    await queue.start()
    source = Source(id="a", text="Some text.")
    job = (await queue.submit("demo", [source], request_id="")).job
    while not job.status.finished:
        await asyncio.sleep(0.2)
        job = await queue.get(job.job_id)
    await queue.close()
    ```
    """

    def __init__(
        self,
        work: Work,
        backend: JobBackend,
        *,
        works: bool = True,
        workers: int = 2,
        batch_size: int = 256,
        max_jobs_per_tenant: int = 1_000,
        max_retries: int = 8,
        retry_seconds: float = 1.0,
        slice_seconds: float = 2.0,
        lease_seconds: float = 30.0,
        poll_seconds: float = 0.5,
        grace_seconds: float = 10.0,
        prepare: Step = lambda job: None,
        finish: Step = lambda job: None,
        transient: Callable[[BaseException], bool] = is_transient,
        describe: Callable[[BaseException], str] = describe_error,
        bind: Bind = lambda job, check: nullcontext(),
        ended: Ended = lambda job, status: None,
        traceparent: Callable[[], str] = lambda: "",
    ) -> None:
        """
        :param work: indexes a batch of sources, several texts or one file, and says what became of each, in the
            same order. Called in a thread, possibly again with sources it has had before.
        :param backend: where the jobs are kept.
        :param works: whether jobs are worked on here. Where they are only accepted, other processes must.
        :param workers: how many jobs run at once.
        :param batch_size: how many texts `work` is given at once, at most; see `BatchSize`.
        :param max_jobs_per_tenant: how many unfinished jobs of one tenant the queue holds.
        :param max_retries: how many transient faults in a row a job survives.
        :param retry_seconds: the first wait after a transient fault; the next ones double it, up to a minute.
        :param slice_seconds: how long a job may go on while another tenant's waits.
        :param lease_seconds: after how long another process takes over the jobs of one that fell silent.
        :param poll_seconds: how often idle workers look for jobs that another process accepted.
        :param grace_seconds: how long `close` waits for the batches that are under way.
        :param prepare: makes ready what the work on a job needs. Should the process end here, that is not held
            against a document, as it is in `work`.
        :param finish: called when all sources are through, before the job is done; possibly again.
        :param transient: whether an error of `work` may be gone later.
        :param describe: tells an error of `work` to the person who posted the document.
        :param bind: given a job and a function, a context manager around all that is done for the job in its thread.
            The work may call the function between its steps: it ends work that is no longer wanted.
        :param ended: told of each job that was worked on to its end, in the job's thread.
        :param traceparent: names the trace that a submission stands in, for who works on the job.
        """
        self._spool = backend.spool
        self._store = backend.store
        self._presence = backend.presence
        self.breaker = backend.breaker
        self._traceparent = traceparent
        self._reader = JobReader(backend)
        self._bridge = LoopBridge()
        shop = Workshop(
            work=work,
            prepare=prepare,
            finish=finish,
            bind=bind,
            ended=ended,
            transient=transient,
            describe=describe,
            spool=backend.spool,
            call=self._bridge.call,
            others_wait=partial(backend.store.others_wait, revision=REVISION),
            batch_size=batch_size,
            slice_seconds=slice_seconds,
        )
        self._runner = JobRunner(shop, max_retries=max_retries, retry_seconds=retry_seconds)
        self._engine = JobEngine(
            backend,
            self._runner,
            self._bridge,
            works=works,
            workers=workers,
            lease_seconds=lease_seconds,
            poll_seconds=poll_seconds,
            grace_seconds=grace_seconds,
        )
        self._admission = Admission(
            backend.store,
            max_jobs_per_tenant=max_jobs_per_tenant,
            seconds_per_job=lambda: self._runner.seconds_per_job,
        )
        self._keys: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def start(self) -> None:
        """
        Open the store and go on with the jobs that are not finished; may be repeated after it failed.

        :raises QueueUnavailableError: when the store can't be opened.
        """
        await self._engine.start()

    async def close(self) -> None:
        """Stop at the end of the batches under way, hand unfinished jobs back, and close the store."""
        await self._engine.close()

    async def ping(self) -> None:
        """
        Check that jobs are accepted and, if they are to be, worked on.

        :raises QueueUnavailableError: when they are not, with the reason.
        """
        with _store_errors():
            await self._engine.ping()

    async def workers(self) -> int | None:
        """
        Count the processes that work on the jobs.

        :returns: how many; None where this process does it itself.
        :raises QueueUnavailableError: when the store fails.
        """
        if self._presence is None:
            return None
        with _store_errors():
            return await self._presence.count()

    async def show_worker(self, name: str) -> None:
        """
        Show that a worker lives, to those that only accept jobs; to be repeated every few seconds.

        :param name: the worker's name, no other's.
        :raises QueueUnavailableError: when the store fails.
        """
        if self._presence is not None:
            with _store_errors():
                await self._presence.show(name)

    async def worker_left(self, name: str) -> None:
        """
        Show that a worker has stopped.

        :param name: the worker's name.
        :raises QueueUnavailableError: when the store fails.
        """
        if self._presence is not None:
            with _store_errors():
                await self._presence.leave(name)

    async def counts(self) -> dict[str, int]:
        """
        Count the jobs that have not ended, of all tenants and processes.

        :returns: how many are `pending` and how many `running`.
        :raises QueueUnavailableError: when the store fails.
        """
        self._engine.require_running()
        with self._asking():
            counted = await self._store.operational_counts(revision=REVISION)
        waiting = counted["revision_runnable"]
        return {"pending": waiting, "running": max(0, counted["nonterminal"] - waiting)}

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """
        Run a coroutine on the queue's event loop, from the work on a job.

        :param coroutine: one of this queue's methods, such as `deleted_since`.
        :returns: what it returned.
        """
        return self._bridge.call(coroutine)

    async def room(self, tenant_id: str | None = None) -> None:
        """
        Check that a job would be taken now; cheap, to be asked before a body is read.

        :param tenant_id: whose job, where that is known.
        :raises QueueFullError: when too many jobs are unfinished.
        :raises TenantQueueFullError: when too many of this tenant are.
        :raises QueueUnavailableError: when the store fails.
        """
        with self._asking():
            await self._admission.check(tenant_id)

    async def submit(
        self,
        tenant_id: str,
        sources: Sequence[Source],
        *,
        request_id: str,
        pipeline: str = "ingest",
        kind: JobKind = JobKind.INGEST,
        files: Mapping[str, BinaryIO] | None = None,
        idempotency_key: str | None = None,
        body_digest: str = "",
    ) -> Submission:
        """
        Accept a job durably.

        :param tenant_id: whose documents these are.
        :param sources: what was posted; `accepted_at` is set.
        :param request_id: the id of the request that brings them, for the log.
        :param pipeline: which indexing pipeline takes them.
        :param kind: what to do with them.
        :param files: the content of each file that the sources name, by its SHA-256; read from the beginning.
        :param idempotency_key: a repetition with this key gets the job that is there.
        :param body_digest: a hash of what was posted; with another one the key is refused.
        :returns: the job, pending if it is new.
        :raises QueueFullError: when too many jobs are unfinished.
        :raises TenantQueueFullError: when too many of this tenant are.
        :raises IdempotencyConflictError: when the key was used for something else.
        :raises QueueUnavailableError: when the store fails or the queue is not running.
        :raises ValueError: when there are no sources, or one names a file that is not given.
        """
        files = files or {}
        if not sources:
            raise ValueError("a job needs at least one document")
        if missing := {source.file.sha256 for source in sources if source.file} - files.keys():
            raise ValueError(f"the content of {len(missing)} files is missing")
        job = JobInput(
            job_id=_job_id(tenant_id, idempotency_key),
            tenant_id=tenant_id,
            kind=kind,
            pipeline=pipeline,
            request_id=request_id,
            traceparent=self._traceparent(),
            body_digest=body_digest,
            total=len(sources),
            created_at=time.time(),
        )
        self._engine.require_running()
        with self._asking():
            if idempotency_key is None:
                return await self._submit_new(job, sources, files)
            # Of many repetitions at once, one alone stages what it brings.
            async with self._keys.setdefault(job.job_id, asyncio.Lock()):
                return await self._repeated(job) or await self._submit_new(job, sources, files)

    async def get(self, job_id: str) -> Job | None:
        """
        :param job_id: what `submit` gave.
        :returns: the job as it stands, or None when it is unknown or long finished.
        :raises QueueUnavailableError: when the store fails.
        """
        with self._asking():
            row = await self._reader.row(job_id)
            return None if row is None else await self._reader.view(row)

    async def sources(
        self, job_id: str, start: int, limit: int, status: SourceStatus | None = None
    ) -> list[tuple[int, SourceResult]]:
        """
        Tell what became of the sources of a job.

        :param job_id: what `submit` gave.
        :param start: the position of the first one, counted from 0.
        :param limit: how many at most.
        :param status: only those with this outcome.
        :returns: positions and outcomes, in order; nothing for an unknown job.
        :raises QueueUnavailableError: when the store fails.
        """
        with self._asking():
            row = await self._reader.row(job_id)
            job = None if row is None else await self._reader.view(row, with_sources=False)
            if job is None:
                return []
            return await self._reader.sources(job, start, limit, None if status is None else {status})

    async def cancel(self, job_id: str) -> Job | None:
        """
        End a job: at once when it is queued, and when it runs as soon as its work hears of it or its batch ends.

        What is finished stays so. Waits a second for a job that runs.

        :param job_id: what `submit` gave.
        :returns: the job as it then stands, or None when it is unknown.
        :raises QueueUnavailableError: when the store fails.
        """
        with self._asking():
            row = await self._reader.row(job_id)
            if row is None:
                return None
            control = await self._cancel(row)
            deadline = time.monotonic() + CANCEL_SECONDS
            while control is not None and not control.terminal and time.monotonic() < deadline:
                await asyncio.sleep(CANCEL_POLL_SECONDS)
                control = await self._store.read_control(row.run_id)
            if control is not None and control.status is ExecutionStatus.CANCELED:
                await self._spool.finish(row)
        return await self.get(job_id)

    async def retry(self, job_id: str, request_id: str) -> Job:
        """
        Index again what a finished job has failed to index or has not reached; the job is the same, pending again.

        :param job_id: what `submit` gave.
        :param request_id: the id of the request that asks for it, for the log.
        :returns: the job, pending.
        :raises JobNotFoundError: when it is unknown.
        :raises NothingToRetryError: when it is not finished, or everything is done.
        :raises SourcesGoneError: when what it needs is no longer kept.
        :raises QueueFullError: when too many jobs are unfinished.
        :raises TenantQueueFullError: when too many of this tenant are.
        :raises QueueUnavailableError: when the store fails.
        """
        with self._asking():
            row = await self._reader.row(job_id)
            job = None if row is None else await self._reader.view(row, with_sources=False)
            if row is None or job is None:
                raise JobNotFoundError(f"there is no job '{job_id[:64]}'")
            if not job.status.finished:
                raise NothingToRetryError(f"the job is {job.status}; only a finished job can be retried")
            if job.documents_ok + job.documents_skipped == job.total:
                raise NothingToRetryError("every document of this job is indexed or was skipped")
            await self._admission.check(row.tenant_id)
            await self._spool.finish(row)  # where a crash came between
            again = await self._spool.reopen(row, request_id, self._traceparent())
            if again is None:
                raise SourcesGoneError(
                    "the documents that failed are no longer kept (STAGED_TTL); post them again"
                )
            with suppress(ExecutionAdmissionError):  # then it is queued when there is room, as after a crash
                await self._engine.launch(again)
            return view_job(again, None)

    async def mark_deleted(self, tenant_id: str, document_id: str | None) -> None:
        """
        Remember that a document was deleted, so that a job accepted before does not bring it back.

        :param tenant_id: whose document.
        :param document_id: which; None stands for all of the tenant.
        :raises QueueUnavailableError: when the store fails.
        """
        with self._asking():
            await self._spool.mark_deleted(tenant_id, document_id)

    async def forget_sources(self, tenant_id: str) -> None:
        """
        Forget what the ended jobs of a tenant have failed to index or have not reached; they can't be retried then.

        With `mark_deleted` of the whole tenant before, those that end later keep nothing either.

        :param tenant_id: whose jobs.
        :raises QueueUnavailableError: when the store fails.
        """
        with self._asking():
            await self._spool.forget_sources(tenant_id)

    async def deleted_since(self, tenant_id: str, document_ids: Iterable[str]) -> dict[str, float]:
        """
        Tell when documents were last deleted.

        :param tenant_id: whose documents.
        :param document_ids: which.
        :returns: seconds since 1970 by document id, of those that were.
        :raises QueueUnavailableError: when the store fails.
        """
        with self._asking():
            return await self._spool.deleted_since(tenant_id, document_ids)

    async def list(
        self, tenant_id: str, status: JobStatus | None = None, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[Job], str | None]:
        """
        Give a page of a tenant's jobs, the newest first, without their sources.

        :param tenant_id: whose jobs.
        :param status: only jobs that stand so. Where few do, a page may have less than `limit` and yet a next one.
        :param limit: how many at most.
        :param cursor: what the page before gave.
        :returns: the jobs, and a cursor for the next page or None where there is none.
        :raises ValueError: when the cursor is none of this queue's.
        :raises QueueUnavailableError: when the store fails.
        """
        with self._asking():
            return await self._reader.page(tenant_id, status, limit, cursor)

    async def unfinished(self, tenant_id: str, kind: JobKind | None = None) -> Sequence[Job]:
        """
        Give a tenant's jobs that have not ended, without their sources.

        :param tenant_id: whose jobs.
        :param kind: only jobs of this kind.
        :returns: the jobs, each at least as far as it was when this was called.
        :raises QueueUnavailableError: when the store fails.
        """
        with self._asking():
            return await self._reader.unfinished(tenant_id, kind)

    async def _submit_new(
        self, job: JobInput, sources: Sequence[Source], files: Mapping[str, BinaryIO]
    ) -> Submission:
        async with self._admission.of(job.tenant_id):
            if not await self._spool.put(job, sources, files):
                # Another process was quicker with the same key.
                if repeated := await self._repeated(job):
                    return repeated
                raise QueueUnavailableError("the job could not be kept; try again")
            try:
                await self._engine.launch(job)
            except (ExecutionAdmissionError, QueueUnavailableError) as error:
                with suppress(ExecutionStoreError):
                    await self._spool.forget(job.job_id)
                if isinstance(error, QueueUnavailableError):
                    raise
                raise self._admission.full() from error
        return Submission(view_job(job, None), created=True)

    async def _repeated(self, job: JobInput) -> Submission | None:
        """The job that is there under this one's id, where there is one."""
        row = await self._spool.get(job.job_id)
        if row is None:
            return None
        view = await self._reader.view(row)
        if view is None:
            await self._spool.forget(job.job_id)
            return None
        if row.body_digest != job.body_digest:
            raise IdempotencyConflictError
        if row.finished_at is None:
            with suppress(ExecutionAdmissionError):
                await self._engine.launch(row)  # where a crash came between
        return Submission(view, created=False)

    async def _cancel(self, row: JobInput) -> ExecutionControl | None:
        try:
            return await self._engine.cancel(row)
        except ExecutionNotFoundError:
            if row.finished_at is not None:
                return None
        await self._engine.launch(row)  # where a crash came between
        return await self._engine.cancel(row)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        if self.breaker is not None:
            try:
                self.breaker.check()
            except CircuitOpenError as error:
                raise QueueUnavailableError(str(error), error.retry_after) from error
        with _store_errors():
            yield


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except ExecutionStoreError as error:
        raise QueueUnavailableError(str(error)) from error


def _job_id(tenant_id: str, idempotency_key: str | None) -> str:
    if idempotency_key is None:
        return secrets.token_hex(16)
    return hashlib.sha256(f"{tenant_id}\0{idempotency_key}".encode(errors="replace")).hexdigest()[:32]
