"""JobAttempt: works on one job, batch by batch, until it is through or has to stop."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

from hayhooks.durable import DurableContext, DurableExecutionCancelledError
from hayhooks.durable.engine import ExecutionLeaseLostError
from hayhooks.durable.store import ExecutionStoreError

from serve.jobs.batching import BatchSize
from serve.jobs.faults import JobCancelled, JobFailedError, clean
from serve.jobs.gate import BatchGate
from serve.jobs.model import (
    JobInput,
    JobInterrupted,
    JobStatus,
    LoadedSource,
    PostponeError,
    Source,
    SourceResult,
    SourceStatus,
)
from serve.jobs.spool import JobSpool
from serve.jobs.state import JobState

Work = Callable[[JobInput, list[LoadedSource]], list[SourceResult]]
Step = Callable[[JobInput], None]
Bind = Callable[[JobInput, Callable[[], None]], AbstractContextManager[Any]]
Ended = Callable[[JobInput, JobStatus], None]

CHECK_SECONDS = 0.2
FORGIVE_SECONDS = 1.0
# An attempt that follows this many without progress takes one source at a time, and then blames that one.
ATTEMPTS_BEFORE_SINGLE_SOURCES = 1
ATTEMPTS_BEFORE_BLAME = 3

log = logging.getLogger(__name__)


class HandBackError(BaseException):
    """The queue closes; the job goes on later, perhaps in another process."""


class OthersWaitError(BaseException):
    """The job has had its time, and another tenant's waits."""


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What all attempts of a queue have in common; `JobQueue` says what each is for."""

    work: Work
    prepare: Step
    finish: Step
    bind: Bind
    ended: Ended
    transient: Callable[[BaseException], bool]
    describe: Callable[[BaseException], str]
    spool: JobSpool
    call: Callable[[Coroutine[Any, Any, Any]], Any]
    others_wait: Callable[[str], Coroutine[Any, Any, bool]]
    batch_size: int
    slice_seconds: float
    gate: BatchGate = field(default_factory=BatchGate)
    closing: threading.Event = field(default_factory=threading.Event)

    def may_pass(self, error: BaseException) -> bool:
        """
        :param error: what ended the work on a batch.
        :returns: whether it may be gone later.
        """
        return isinstance(error, ExecutionStoreError) or self.transient(error)


class JobAttempt:
    """One go at a job, from its last checkpoint on, in a thread of its own."""

    def __init__(self, shop: Workshop, context: DurableContext, job: JobInput) -> None:
        """
        :param shop: what all attempts share.
        :param context: Hayhooks' handle on the execution.
        :param job: the job.
        """
        self._shop = shop
        self._context = context
        self._job = job
        self._checked = 0.0
        self._batch_size = BatchSize(shop.batch_size)
        self.state = JobState.model_validate(context.state) if context.state else JobState.first(job)

    def run(self) -> None:
        """
        Work on what is left.

        :raises JobFailedError: when it ends and nothing could be indexed.
        :raises JobInterrupted: when the job was cancelled, or another process has it.
        :raises HandBackError: when the queue closes.
        :raises OthersWaitError: when another tenant's job shall come first.
        """
        self._shop.prepare(self._job)
        # A job that goes on where an attempt ended without progress is a suspect. Nothing runs beside its first
        # batch, nor is the attempt counted before: so only the source that ends processes collects attempts.
        with self._turn(alone=self.state.starts > 0):
            began = time.monotonic()
            self._begin()
            more = self._next_batch()
        while more:
            self._let_others_go_first(began)
            with self._turn(alone=self.state.starts > 1):
                more = self._next_batch()
        self._judge()
        with self._turn(alone=self.state.starts > 0):
            self._shop.finish(self._job)

    def save(self) -> None:
        """Make the state durable."""
        self._context.state.update(self.state.model_dump(mode="json"))
        self._context.checkpoint_sync()

    async def forgive(self) -> None:
        """
        Take back that this attempt was counted, as its process leaves it in good order.

        For the event loop, while the thread is in the midst of a batch that takes longer than the process has.
        """
        self._context.state["starts"] = max(0, self.state.starts - 1)
        with suppress(ExecutionLeaseLostError, ExecutionStoreError, TimeoutError):
            await asyncio.wait_for(self._context.checkpoint(), FORGIVE_SECONDS)

    def check(self) -> None:
        """
        End work that is no longer wanted; called between its slices, often.

        :raises JobInterrupted: when the job was cancelled, or another process has it.
        """
        if time.monotonic() - self._checked >= CHECK_SECONDS:
            self._check_now()

    def _check_now(self) -> None:
        self._checked = time.monotonic()
        try:
            self._context.check_cancelled_sync()
        except DurableExecutionCancelledError as error:
            raise JobCancelled(str(error)) from error
        except ExecutionLeaseLostError as error:
            raise JobInterrupted(str(error)) from error

    def _judge(self) -> None:
        state = self.state
        done = state.documents_ok + state.documents_skipped
        if state.documents_failed and not done:
            raise JobFailedError(
                f"none of the {state.documents_failed} documents could be indexed; the first error: {state.first_error}"
            )
        if missing := self._job.total - done - state.documents_failed:
            raise JobFailedError(f"{missing} documents of this job are no longer kept; post them again")

    def _turn(self, *, alone: bool = False) -> AbstractContextManager[None]:
        gate = self._shop.gate
        self._check_between_batches()
        return (gate.alone if alone else gate.shared)(self._check_between_batches)

    def _check_between_batches(self) -> None:
        self._check_now()
        if self._shop.closing.is_set():
            raise HandBackError

    def _let_others_go_first(self, began: float) -> None:
        if time.monotonic() - began < self._shop.slice_seconds:
            return
        if self._shop.call(self._shop.others_wait(self._job.tenant_id)):
            raise OthersWaitError

    def _begin(self) -> None:
        """Note that an attempt begins: the next one sees whether this one ended without progress."""
        state = self.state
        if state.started_at_ms is None:
            state.started_at_ms = time.time_ns() // 1_000_000
            log.info("Job %s begins: %d documents", self._job.job_id, self._job.total)
        elif not state.paused:
            log.info("Job %s goes on at document %d of %d", self._job.job_id, state.cursor, self._job.total)
        if state.starts >= ATTEMPTS_BEFORE_BLAME:
            self._blame()
        state.attempts += not state.paused
        state.paused = False
        state.starts += 1
        self.save()

    def _blame(self) -> None:
        reason = f"the process ended {self.state.starts} times while it indexed this document"
        [*batch] = self._sources(1)
        if not batch:
            raise JobFailedError(f"the process ended {self.state.starts} times after the last document")
        log.error("Document %d of job %s: %s", batch[0][0] + 1, self._job.job_id, reason)
        self._note([batch[0][0]], [_failed(batch[0][1], reason)])

    def _next_batch(self) -> bool:
        """Index some sources; False when none are left."""
        state = self.state
        alone = state.starts > ATTEMPTS_BEFORE_SINGLE_SOURCES or state.cursor < state.single_until
        batch = self._sources(1 if alone else self._batch_size.texts)
        if not batch:
            return False
        # Files come alone, so that what goes wrong is that file's.
        files = [at for at, (_, source) in enumerate(batch) if source.file is not None]
        batch = batch[: max(files[0], 1)] if files else batch
        began = time.monotonic()
        results = self._index([source for _, source in batch])
        if results is None:
            # Each is noted as it comes: an interruption finds no document that is there and not told.
            state.single_until = batch[-1][0] + 1
            return True
        self._note([position for position, _ in batch], results)
        if not files:
            self._batch_size.took(len(batch), time.monotonic() - began)
        return True

    def _index(self, sources: Sequence[Source]) -> list[SourceResult] | None:
        """Index sources together; None when that fails, and each is to be tried alone."""
        try:
            return self._work(sources)
        except (PostponeError, JobFailedError):
            # Not about one of these sources.
            raise
        except Exception as error:
            if self._shop.may_pass(error):
                raise
            reason = self._shop.describe(error)
            if len(sources) == 1:
                # Neither its id, which may be a file's name, nor the reason, which may quote it.
                log.warning(
                    "A document of job %s can't be indexed: %s", self._job.job_id, type(error).__name__
                )
                return [_failed(sources[0], reason)]
            kind = type(error).__name__
            log.info("A batch of %d documents failed, each is tried alone: %s", len(sources), kind)
            return None

    def _work(self, sources: Sequence[Source]) -> list[SourceResult]:
        loaded = [LoadedSource.model_construct(**dict(source), content=None) for source in sources]
        for source in loaded:
            if source.file is not None:
                source.content = self._shop.call(self._shop.spool.content(self._job, source.file.sha256))
                if source.content is None:
                    return [_failed(source, "the file is no longer kept; post it again")]
        results = self._shop.work(self._job, loaded)
        if len(results) != len(sources):
            raise RuntimeError(f"{len(sources)} documents were given to be indexed, {len(results)} came back")
        for result in results:
            result.reason = result.reason and clean(result.reason)
        return results

    def _note(self, positions: Sequence[int], results: Sequence[SourceResult]) -> None:
        outcomes = dict(zip(positions, results, strict=True))
        self._shop.call(self._shop.spool.put_results(self._job.job_id, outcomes))
        self.state.advance(positions[-1] + 1, results)
        self.save()

    def _sources(self, count: int) -> list[tuple[int, Source]]:
        return self._shop.call(self._shop.spool.batch(self._job.job_id, self.state.cursor, count))


def _failed(source: Source, reason: str) -> SourceResult:
    name = None if source.file is None else source.file.name
    return SourceResult(
        document_id=source.id, name=name, status=SourceStatus.FAILED, reason=clean(reason) or None
    )
