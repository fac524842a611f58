"""JobRunner: what hayhooks.durable calls for each job, and how an attempt at it may end."""

import asyncio
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from hayhooks.durable import DurableContext, DurableExecutionCancelledError
from hayhooks.durable.engine import ExecutionLeaseLostError
from hayhooks.durable.store import ExecutionStoreError

from serve.jobs.attempt import HandBackError, JobAttempt, OthersWaitError, Workshop
from serve.jobs.faults import JobFailedError
from serve.jobs.model import JobInput, JobInterrupted, JobStatus, PostponeError
from serve.jobs.state import JobRun

MAX_RETRY_SECONDS = 60.0

log = logging.getLogger(__name__)


class JobRunner:
    """
    The function that a `DurableDeployment` runs in a thread for each job.

    A fault of one document is written down and the others go on. A transient fault (a store that doesn't answer) ends
    the attempt; the job goes on later from its last batch. A document that kills the process each time is found too:
    attempts that begin at the same document are counted.
    """

    def __init__(self, shop: Workshop, *, max_retries: int, retry_seconds: float) -> None:
        """
        :param shop: what the attempts share.
        :param max_retries: how many transient faults in a row a job survives.
        :param retry_seconds: the first wait after a transient fault; the next ones double it.
        """
        self._shop = shop
        self._max_retries = max_retries
        self._retry_seconds = retry_seconds
        self._attempts: set[JobAttempt] = set()
        self._busy = 0
        self._busy_changed = threading.Condition()
        self._closed = threading.Event()
        self._ends: deque[float] = deque(maxlen=20)

    @property
    def seconds_per_job(self) -> float | None:
        """How long it lately took until one more job had ended; None where too few have."""
        ends = tuple(self._ends)
        return (time.monotonic() - ends[0]) / len(ends) if ends else None

    def halt(self, timeout: float) -> None:
        """
        Let every job stop at the end of its batch, so that it can be handed back unharmed, and wait for that.

        :param timeout: seconds to wait at most.
        """
        self._shop.closing.set()
        with self._busy_changed:
            self._busy_changed.wait_for(lambda: self._busy == 0, timeout)

    async def forgive(self) -> None:
        """Hold nothing against the sources at which this process, which closes, leaves its jobs."""
        await asyncio.gather(*(attempt.forgive() for attempt in tuple(self._attempts)))

    def let_go(self) -> None:
        """End the threads that have stopped; their jobs must have been handed back."""
        self._closed.set()

    def __call__(self, context: DurableContext, run: JobRun) -> dict[str, Any]:
        """
        :param context: Hayhooks' handle on the execution.
        :param run: which job.
        :returns: nothing of interest: the outcome is in the checkpoint and the spool.
        :raises JobFailedError: when no document could be indexed.
        """
        self._count_busy(+1)
        try:
            self._attempt(context, run)
        except HandBackError:
            pass
        except (JobFailedError, DurableExecutionCancelledError):
            self._ends.append(time.monotonic())
            raise
        else:
            self._ends.append(time.monotonic())
            return {}
        finally:
            self._count_busy(-1)
        # Returning would complete the job.
        self._closed.wait()
        raise ExecutionLeaseLostError("the job was handed back at shutdown")

    def _attempt(self, context: DurableContext, run: JobRun) -> None:
        job = self._read(context, run)
        if job is None or job.run_id != run.run_id:
            raise JobFailedError("this job is no longer kept; post its documents again")
        attempt = JobAttempt(self._shop, context, job)
        with self._under_way(attempt), self._shop.bind(job, attempt.check):
            try:
                attempt.run()
                # From here on a repetition has nothing left to do, and needs no sources for it.
                self._shop.call(self._shop.spool.finish(job))
            except JobInterrupted as interruption:
                self._stop(attempt, job, interruption)
            except OthersWaitError:
                self._pause(attempt, context, "other tenants wait", 0)
            except PostponeError as postponed:
                log.info("Job %s goes on in %g s", job.job_id, postponed.seconds)
                self._pause(attempt, context, str(postponed), postponed.seconds)
            except ExecutionLeaseLostError:
                raise
            except Exception as error:
                self._retry_or_fail(attempt, context, job, error)
            self._shop.ended(job, JobStatus.DONE)
            log.info(
                "Job %s is done: %d documents indexed, %d skipped, %d failed, %d chunks",
                job.job_id,
                attempt.state.documents_ok,
                attempt.state.documents_skipped,
                attempt.state.documents_failed,
                attempt.state.chunks_ok,
            )

    def _read(self, context: DurableContext, run: JobRun) -> JobInput | None:
        try:
            return self._shop.call(self._shop.spool.get(run.job_id))
        except ExecutionStoreError as error:
            context.retry_sync(str(error), delay=self._retry_seconds)
            raise

    def _stop(self, attempt: JobAttempt, job: JobInput, interruption: JobInterrupted) -> NoReturn:
        if not isinstance(interruption.__cause__, DurableExecutionCancelledError):
            raise ExecutionLeaseLostError(str(interruption)) from interruption
        self._shop.call(self._shop.spool.finish(job))
        self._shop.ended(job, JobStatus.CANCELLED)
        log.info("Job %s was cancelled after %d documents", job.job_id, attempt.state.cursor)
        raise interruption.__cause__

    def _pause(self, attempt: JobAttempt, context: DurableContext, reason: str, delay: float) -> NoReturn:
        """Queue the job again with nothing held against it."""
        attempt.state.paused = True
        attempt.state.starts = 0
        attempt.save()
        context.retry_sync(reason, delay=delay)
        raise AssertionError("a retry ends the attempt")

    def _retry_or_fail(
        self, attempt: JobAttempt, context: DurableContext, job: JobInput, error: Exception
    ) -> NoReturn:
        """Leave this attempt: queue the job again where the fault may pass, else write down why it failed."""
        state = attempt.state
        reason = str(error) if isinstance(error, JobFailedError) else self._shop.describe(error)
        if self._shop.may_pass(error):
            if state.retries < self._max_retries:
                delay = min(MAX_RETRY_SECONDS, self._retry_seconds * 2**state.retries)
                delay *= random.uniform(0.5, 1.0)
                kind = type(error).__name__
                log.warning("A transient fault, job %s goes on in %.1f s: %s", job.job_id, delay, kind)
                state.retries += 1
                state.starts = 0
                attempt.save()
                context.retry_sync(reason, delay=delay)
            reason = f"given up after {state.retries} repetitions: {reason}"
        state.error = reason
        attempt.save()
        self._shop.call(self._shop.spool.finish(job))
        self._shop.ended(job, JobStatus.FAILED)
        # The reason is for who posted the documents, and may quote them.
        failed = state.documents_failed
        log.warning("Job %s failed: %s, %d documents failed", job.job_id, type(error).__name__, failed)
        raise error

    @contextmanager
    def _under_way(self, attempt: JobAttempt) -> Iterator[None]:
        self._attempts.add(attempt)
        try:
            yield
        finally:
            self._attempts.discard(attempt)

    def _count_busy(self, change: int) -> None:
        with self._busy_changed:
            self._busy += change
            self._busy_changed.notify_all()
