"""JobQueue: ingestion jobs that no crash loses. The one module that knows that hayhooks.durable runs them."""

import asyncio
import json
import logging
import re
import secrets
from collections.abc import Callable, Coroutine
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from hayhooks.durable import DurableDeployment, ExecutionStore, RuntimeConfig, StoreConfig
from hayhooks.durable.engine import ExecutionControl, ExecutionNotFoundError, ExecutionStatus
from hayhooks.durable.store import ExecutionAdmissionError, ExecutionStoreError, SubmissionResult

from serve.jobs.before_model import (
    Job,
    JobInput,
    JobState,
    job_from_parts,
    job_from_stored,
)
from serve.jobs.before_spool import Document, JobSpool, SqliteJobSpool
from serve.jobs.database import JobDatabase
from serve.jobs.runner import Bind, JobRunner, Work, is_transient
from serve.jobs.store import SqliteExecutionStore

T = TypeVar("T")

log = logging.getLogger(__name__)

DEPLOYMENT = "ingest"
# Executions of another revision are never claimed: change it only with the format of JobInput or JobState.
REVISION = "ingest-v1"
DATABASE_NAME = "jobs.sqlite3"
RETRY_AFTER_SECONDS = 5
PRUNE_SECONDS = 3_600.0
# Hayhooks' own limits never end a job: JobRunner counts deaths and faults since the last progress instead,
# so a long job may be interrupted as often as it likes.
NO_LIMIT = 1_000_000
JOB_ID = re.compile(r"[0-9a-f]{32}")


class QueueFullError(RuntimeError):
    """The queue takes no more jobs for now."""

    def __init__(self, retry_after: int) -> None:
        """
        :param retry_after: seconds after which it is worth to try again.
        """
        super().__init__(f"the job queue is full; try again in {retry_after} seconds")
        self.retry_after = retry_after


class QueueUnavailableError(RuntimeError):
    """The queue can't work: its store fails, or it is not running."""


class JobQueue:
    """
    Accepts documents and has them indexed in the background.

    What `submit` returned is on the disk: from then on the job survives the end of any process, and goes on
    from the last batch. The work on a batch may therefore happen twice and must be idempotent.

    Usage example:
    ```python
    queue = JobQueue(index_documents, data_dir=Path("data"))
    await queue.start()
    documents = [{"id": "a", "text": "Some text.", "title": None, "meta": {}}]
    job = await queue.submit("demo", documents, request_id="")
    while not job.status.finished:
        await asyncio.sleep(0.2)
        job = await queue.get(job.job_id)
    await queue.close()
    ```
    """

    def __init__(
        self,
        work: Work,
        *,
        data_dir: Path,
        workers: int = 2,
        batch_size: int = 16,
        max_jobs: int = 1_000,
        keep_seconds: int = 7 * 24 * 3_600,
        max_retries: int = 8,
        retry_seconds: float = 1.0,
        grace_seconds: float = 5.0,
        transient: Callable[[BaseException], bool] = is_transient,
        bind: Bind = lambda request_id, job_id: nullcontext(),
        store: ExecutionStore | None = None,
        spool: JobSpool | None = None,
    ) -> None:
        """
        :param work: indexes a batch of documents (`id`, `text`, `title`, `meta`) of a tenant and returns the
            number of chunks written. Called in a thread, possibly again with documents it has had before.
        :param data_dir: the directory of the SQLite file; without `store`, this process must own it alone.
        :param workers: how many jobs run at once.
        :param batch_size: how many documents `work` is given at once.
        :param max_jobs: how many unfinished jobs the queue holds.
        :param keep_seconds: how long a finished job is known, and the documents of a failed one.
        :param max_retries: how many transient faults in a row a job survives.
        :param retry_seconds: the first wait after a transient fault; the next ones double it, up to a minute.
        :param grace_seconds: how long `close` waits for the batches that are under way.
        :param transient: whether an error of `work` may be gone later.
        :param bind: given request id and job id, a context manager that makes log lines carry them.
        :param store: another store of executions, such as Hayhooks' RedisExecutionStore("...", "ingest").
        :param spool: another place for the documents.
        """
        self._database = JobDatabase(data_dir / DATABASE_NAME)
        self._spool = spool or SqliteJobSpool(self._database)
        self._store = store or SqliteExecutionStore(
            DEPLOYMENT,
            self._database,
            config=StoreConfig(
                max_nonterminal_executions=max_jobs,
                terminal_ttl_seconds=keep_seconds,
                max_stream_chunks=0,
                monitoring_enabled=True,
            ),
            exclusive=True,
        )
        self._runner = JobRunner(
            work,
            self._spool,
            self._call,
            batch_size=batch_size,
            is_transient=transient,
            bind=bind,
            max_retries=max_retries,
            retry_seconds=retry_seconds,
        )
        self._deployment = DurableDeployment(
            DEPLOYMENT,
            REVISION,
            _NamedExecutions(self._store),
            JobInput,
            self._runner,
            config=RuntimeConfig(
                worker_concurrency=workers,
                poll_interval_seconds=0.5,
                maintenance_interval_seconds=1.0,
                shutdown_grace_seconds=0.2,
                max_run_attempts=NO_LIMIT,
                max_application_retries=NO_LIMIT,
                release_running_on_close=True,
            ),
        )
        self._grace_seconds = grace_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pruning: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """
        Open the store and go on with the jobs that are not finished.

        :raises QueueUnavailableError: when the store can't be opened.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await self._spool.open()
            # Nothing is being submitted yet: what is spooled without an execution now never gets one.
            known = await self._spool.known_jobs(older_than_seconds=0)
            await self._deployment.start()
        except ExecutionStoreError as error:
            await self._database.close()
            raise QueueUnavailableError(str(error)) from error
        self._pruning = asyncio.create_task(self._prune_regularly(known), name="jobs-prune")

    async def close(self) -> None:
        """Stop at the end of the batches under way, hand unfinished jobs back, and close the store."""
        if self._pruning is not None:
            self._pruning.cancel()
            with suppress(asyncio.CancelledError):
                await self._pruning
        await self._deployment.quiesce()
        await asyncio.to_thread(self._runner.halt, self._grace_seconds)
        await self._deployment.close()
        await self._deployment.wait_drained()
        self._runner.let_go()
        await self._database.close()

    async def submit(self, tenant_id: str, documents: list[Document], request_id: str) -> Job:
        """
        Accept a job durably.

        :param tenant_id: whose documents these are.
        :param documents: `{"id": str, "text": str, "title": str | None, "meta": dict}` each.
        :param request_id: the id of the request that brings them, for the log.
        :returns: the job, pending.
        :raises QueueFullError: when too many jobs are unfinished.
        :raises QueueUnavailableError: when the store fails or the queue is not running.
        :raises ValueError: when there are no documents, or one holds NaN or infinity.
        """
        if not documents:
            raise ValueError("a job needs at least one document")
        job_id = secrets.token_hex(16)
        request = JobInput(job_id=job_id, tenant_id=tenant_id, total=len(documents))
        try:
            await self._refuse_when_full()
            await self._spool.put(job_id, documents, request_id)
            result = await self._deployment.submit(request.model_dump(), owner_id=tenant_id)
        except ExecutionAdmissionError as error:
            with suppress(ExecutionStoreError):  # then it is pruned later
                await self._spool.forget([job_id])
            if not self._deployment.accepting:
                raise QueueUnavailableError("the job queue is not running") from error
            raise QueueFullError(RETRY_AFTER_SECONDS) from error
        except ExecutionStoreError as error:
            # Whether the job was stored is unknown. If not, what is in the spool is pruned later.
            raise QueueUnavailableError(str(error)) from error
        return job_from_parts(result.control, request, JobState(), request_id)

    async def get(self, job_id: str) -> Job | None:
        """
        :param job_id: what `submit` gave.
        :returns: the job as it stands, or None when it is unknown or long finished.
        :raises QueueUnavailableError: when the store fails.
        """
        if not JOB_ID.fullmatch(job_id):
            return None
        try:
            stored = await self._store.read(job_id)
            if stored is None or stored.control.deployment != DEPLOYMENT:
                return None
            return job_from_stored(stored, await self._spool.request_id(job_id))
        except ExecutionStoreError as error:
            raise QueueUnavailableError(str(error)) from error

    async def cancel(self, job_id: str) -> Job | None:
        """
        End a job: at once when it is pending, after its batch when it runs. What is finished stays so.

        :param job_id: what `submit` gave.
        :returns: the job as it then stands, or None when it is unknown.
        :raises QueueUnavailableError: when the store fails.
        """
        if not JOB_ID.fullmatch(job_id):
            return None
        try:
            plan = await self._deployment.cancel(job_id, enforce_owner=False)
            if plan.next_control.status is ExecutionStatus.CANCELED:
                await self._spool.drop_documents([job_id])
        except ExecutionNotFoundError:
            return None
        except ExecutionStoreError as error:
            raise QueueUnavailableError(str(error)) from error
        return await self.get(job_id)

    async def ping(self) -> None:
        """
        Check that jobs are accepted and worked on.

        :raises QueueUnavailableError: when they are not, with the reason.
        """
        health = await self._deployment.health()
        if not health["healthy"]:
            faults = {name: health.get(name) for name in ("accepting", "running_slots", "store_error_streak")}
            reason = health.get("operational_error", "")
            raise QueueUnavailableError(f"the job queue is not working: {faults} {reason}".strip())

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the queue's event loop, from a job's thread."""
        assert self._loop is not None
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:  # the loop is closed
            coroutine.close()
            raise
        return future.result()

    async def _refuse_when_full(self) -> None:
        """Refuse before documents are written; the store checks exactly when it takes the job."""
        limit = self._store.config.max_nonterminal_executions
        counts = await self._store.operational_counts(revision=REVISION)
        if limit and counts["nonterminal"] >= limit:
            raise QueueFullError(RETRY_AFTER_SECONDS)

    async def _prune(self, known: dict[str, bool]) -> None:
        """Clear the spool of what a crash left there and of jobs that have expired."""
        unknown, finished = [], []
        for job_id, has_documents in known.items():
            control = await self._store.read_control(job_id)
            if control is None:
                unknown.append(job_id)
            elif has_documents and control.status in (ExecutionStatus.COMPLETED, ExecutionStatus.CANCELED):
                finished.append(job_id)
        await self._spool.forget(unknown)
        await self._spool.drop_documents(finished)

    async def _prune_regularly(self, known: dict[str, bool]) -> None:
        while True:
            try:
                await self._prune(known)
                await asyncio.sleep(PRUNE_SECONDS)
                # The age keeps away from jobs that are being submitted.
                known = await self._spool.known_jobs(older_than_seconds=PRUNE_SECONDS)
            except ExecutionStoreError as error:
                log.warning("The spool can't be pruned now: %s", error)
                await asyncio.sleep(PRUNE_SECONDS)


class _NamedExecutions:
    """An execution store that names executions by our job ids, known before their documents are spooled."""

    def __init__(self, store: ExecutionStore) -> None:
        self._store = store

    async def submit(self, control: ExecutionControl, input_payload: bytes) -> SubmissionResult:
        job_id = json.loads(input_payload)["job_id"]
        return await self._store.submit(replace(control, run_id=job_id), input_payload)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
