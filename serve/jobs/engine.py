"""JobEngine: has hayhooks.durable run the jobs of a backend, as often as their store comes and goes."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from hayhooks.durable import DurableDeployment, ExecutionStore, RuntimeConfig
from hayhooks.durable.engine import ExecutionControl
from hayhooks.durable.store import ExecutionAdmissionError, ExecutionStoreError

from serve.jobs.backend import DEPLOYMENT, JobBackend
from serve.jobs.errors import QueueUnavailableError
from serve.jobs.model import JobInput
from serve.jobs.runner import JobRunner
from serve.jobs.state import JobRun
from serve.jobs.stores import NamedExecutions, SubmitOnly

T = TypeVar("T")

log = logging.getLogger(__name__)

# Executions of another revision are never claimed: change it only with the format of JobRun or JobState. Nothing
# was released with "ingest-v1", so nobody has such jobs waiting.
REVISION = "ingest-v2"
PRUNE_SECONDS = 300.0
# Longer than a request takes from its job's row to the execution.
SUBMISSION_SECONDS = 60.0
# Hayhooks' own limits never end a job: attempts and faults since the last progress are counted instead, so a long job
# may be interrupted as often as it likes.
NO_LIMIT = 1_000_000
LONGEST_DELAY_SECONDS = 24 * 3_600.0


class LoopBridge:
    """Lets the threads of jobs run coroutines on the event loop of the queue."""

    def __init__(self) -> None:
        """Begin without a loop."""
        self.loop: asyncio.AbstractEventLoop | None = None

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """
        :param coroutine: runs on the loop, while this thread waits.
        :returns: what it returned.
        :raises RuntimeError: when the loop is closed.
        """
        assert self.loop is not None
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RuntimeError:  # the loop is closed
            coroutine.close()
            raise
        return future.result()


class JobEngine:
    """The life of a deployment of Hayhooks, and the care for what a crash left between its store and the spool."""

    def __init__(
        self,
        backend: JobBackend,
        runner: JobRunner,
        bridge: LoopBridge,
        *,
        works: bool,
        workers: int,
        lease_seconds: float,
        poll_seconds: float,
        grace_seconds: float,
    ) -> None:
        """
        :param backend: where the jobs are kept.
        :param runner: works on one job.
        :param bridge: is given the loop.
        :param works: whether jobs are worked on here; otherwise they are only accepted.
        :param workers: how many jobs run at once.
        :param lease_seconds: after how long another process takes over the jobs of one that fell silent.
        :param poll_seconds: how often idle workers look for jobs that another process accepted.
        :param grace_seconds: how long `close` waits for the batches that are under way.
        """
        self._spool = backend.spool
        self._store: ExecutionStore = NamedExecutions(backend.store if works else SubmitOnly(backend.store))
        self._runner = runner
        self._bridge = bridge
        self._works = works
        self._grace_seconds = grace_seconds
        self._config = RuntimeConfig(
            worker_concurrency=workers if works else 1,
            poll_interval_seconds=poll_seconds,
            maintenance_interval_seconds=1.0,
            shutdown_grace_seconds=0.2,
            lease_duration_ms=int(lease_seconds * 1_000),
            max_run_attempts=NO_LIMIT,
            max_application_retries=NO_LIMIT,
            retry_max_delay_seconds=LONGEST_DELAY_SECONDS,
            release_running_on_close=True,
        )
        self._running: DurableDeployment | None = None
        self._pruning: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """
        Open the store and go on with the jobs that are not finished; may be repeated after it failed.

        :raises QueueUnavailableError: when the store can't be opened.
        """
        self._bridge.loop = asyncio.get_running_loop()
        # One that failed to start can't be started again.
        deployment = DurableDeployment(
            DEPLOYMENT, REVISION, self._store, JobRun, self._runner, config=self._config
        )
        try:
            await self._spool.open()
            await deployment.start()
        except ExecutionStoreError as error:
            raise QueueUnavailableError(str(error)) from error
        self._running = deployment
        if self._works:
            self._pruning = asyncio.create_task(self._prune_regularly(), name="jobs-prune")

    async def close(self) -> None:
        """Stop at the end of the batches under way, hand unfinished jobs back, and close the store."""
        while self._pruning is not None and not self._pruning.done():
            # Until it is: in Python 3.11 a task that waits for Redis may miss that it was cancelled.
            self._pruning.cancel()
            await asyncio.wait({self._pruning}, timeout=0.1)
        if self._running is not None:
            await self._running.quiesce()
            await asyncio.to_thread(self._runner.halt, self._grace_seconds)
            await self._runner.forgive()
            await self._running.close()
            await self._running.wait_drained()
        self._runner.let_go()
        await self._spool.close()

    def require_running(self) -> None:
        """
        Check that jobs can be accepted.

        :raises QueueUnavailableError: before `start` has succeeded, and from `close` on.
        """
        if self._running is None or not self._running.accepting:
            raise QueueUnavailableError("the job queue is not running")

    async def launch(self, job: JobInput) -> None:
        """
        Queue the present run of a job; does nothing when it has been.

        :param job: the job's row, which must be in the spool.
        :raises ExecutionAdmissionError: when too many jobs are unfinished.
        :raises ExecutionStoreError: when the store fails.
        :raises QueueUnavailableError: when the engine is not running.
        """
        deployment = self._deployment
        try:
            await deployment.submit(
                {"job_id": job.job_id, "run_id": job.run_id},
                owner_id=job.tenant_id,
                idempotency_key=job.run_id,
            )
        except ExecutionAdmissionError as error:
            if not deployment.accepting:
                raise QueueUnavailableError("the job queue is not running") from error
            raise

    async def cancel(self, job: JobInput) -> ExecutionControl:
        """
        Ask for the end of a job's present run.

        :param job: the job's row.
        :returns: how the execution then stands.
        :raises ExecutionNotFoundError: when there is no such execution.
        :raises ExecutionStoreError: when the store fails.
        :raises QueueUnavailableError: when the engine is not running.
        """
        return (await self._deployment.cancel(job.run_id, enforce_owner=False)).next_control

    async def ping(self) -> None:
        """
        Check that jobs are accepted and, if they are to be, worked on.

        :raises QueueUnavailableError: when they are not, with the reason.
        """
        health = await self._deployment.health()
        if not health["healthy"]:
            raise QueueUnavailableError("the job store can't be read or written; the log says why")

    @property
    def _deployment(self) -> DurableDeployment:
        self.require_running()
        assert self._running is not None
        return self._running

    async def _prune_regularly(self) -> None:
        grace = 0.0
        while True:
            try:
                await self._prune(time.time() - grace)
            except (ExecutionStoreError, QueueUnavailableError) as error:
                log.warning("The jobs can't be pruned now: %s", error)
            except Exception:  # the next round may go well, and without any the disk fills up
                log.exception("Pruning the jobs failed")
            # The age keeps away from jobs that are being submitted.
            grace = SUBMISSION_SECONDS
            await asyncio.sleep(PRUNE_SECONDS)

    async def _prune(self, created_before: float) -> None:
        """Mend what a crash between spool and store left half done, and delete what has expired."""
        for job in await self._spool.unfinished(created_before):
            control = await self._store.read_control(job.run_id)
            if control is None:
                # Its documents are here, so it may have been accepted.
                with suppress(ExecutionAdmissionError):
                    await self.launch(job)
            elif control.terminal:
                await self._spool.finish(job)
        await self._spool.expire()
