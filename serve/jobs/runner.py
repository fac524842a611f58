"""JobRunner: works one job off, batch by batch, so that a restart goes on where the last batch ended."""

import logging
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager
from typing import Any, NoReturn, TypeVar

from hayhooks.durable import DurableContext, DurableExecutionCancelledError
from hayhooks.durable.engine import ExecutionLeaseLostError
from hayhooks.durable.store import ExecutionStoreError

from serve.jobs.before_model import DocumentError, JobInput, JobState
from serve.jobs.before_spool import Document, JobSpool
from serve.jobs.gate import BatchGate

T = TypeVar("T")
Work = Callable[[list[Document], str], int]
Bind = Callable[[str, str], AbstractContextManager[Any]]

MAX_ERRORS_KEPT = 100
MAX_ERROR_LENGTH = 500
MAX_RETRY_SECONDS = 60.0
# An attempt that follows this many without progress takes one document at a time, and then blames that one.
ATTEMPTS_BEFORE_SINGLE_DOCUMENTS = 1
ATTEMPTS_BEFORE_BLAME = 3

log = logging.getLogger(__name__)


class JobFailedError(RuntimeError):
    """A job has come to its end without success; the message is for the person who posted it."""


class _HandBackError(Exception):
    """The queue closes; the job goes on later, perhaps in another process."""


class JobRunner:
    """
    The function that a `DurableDeployment` runs in a thread for each job.

    A fault of one document is written down and the others go on. A transient fault (a store that doesn't
    answer) ends the attempt; the job goes on later from its last batch. A document that kills the process
    each time is found too: attempts that begin at the same document are counted.
    """

    def __init__(
        self,
        work: Work,
        spool: JobSpool,
        call: Callable[[Coroutine[Any, Any, T]], T],
        *,
        batch_size: int,
        is_transient: Callable[[BaseException], bool],
        bind: Bind,
        max_retries: int,
        retry_seconds: float,
    ) -> None:
        """
        :param work: indexes documents of a tenant and returns the number of chunks written; may be called
            again with the same documents.
        :param spool: where the documents are.
        :param call: runs a coroutine on the event loop, called from the job's thread.
        :param batch_size: how many documents `work` is given at once.
        :param is_transient: whether an error of `work` may be gone later.
        :param bind: given request id and job id, makes all log lines inside carry them.
        :param max_retries: how many transient faults in a row a job survives.
        :param retry_seconds: the first wait after a transient fault; the next ones double it.
        """
        self._work = work
        self._spool = spool
        self._call: Callable[[Coroutine[Any, Any, Any]], Any] = call
        self._batch_size = batch_size
        self._is_transient = is_transient
        self._bind = bind
        self._max_retries = max_retries
        self._retry_seconds = retry_seconds
        self._gate = BatchGate()
        self._busy = 0
        self._busy_changed = threading.Condition()
        self._closing = threading.Event()
        self._closed = threading.Event()

    def halt(self, timeout: float) -> None:
        """
        Let every job stop at the end of its batch, so that it can be handed back unharmed, and wait for that.

        :param timeout: seconds to wait at most.
        """
        self._closing.set()
        with self._busy_changed:
            self._busy_changed.wait_for(lambda: self._busy == 0, timeout)

    def let_go(self) -> None:
        """End the threads that have stopped; their jobs must have been handed back."""
        self._closed.set()

    def __call__(self, context: DurableContext, request: JobInput) -> dict[str, Any]:
        """
        :param context: Hayhooks' handle on the execution.
        :param request: the job.
        :returns: nothing of interest: the outcome is in the checkpoint.
        :raises JobFailedError: when no document could be indexed.
        """
        self._count_busy(+1)
        try:
            with self._bind(self._request_id(request), request.job_id):
                handed_back = self._run(context, request)
        finally:
            self._count_busy(-1)
        if handed_back:
            # Returning would complete the job.
            self._closed.wait()
            raise ExecutionLeaseLostError("the job was handed back at shutdown")
        return {}

    def _run(self, context: DurableContext, request: JobInput) -> bool:
        """Work on the job; True when it has to be handed back unfinished."""
        state = JobState.model_validate(context.state)
        try:
            self._finish_batches(context, request, state)
            # From here on a repetition has nothing left to do, and needs no documents for it.
            self._call(self._spool.drop_documents([request.job_id]))
        except DurableExecutionCancelledError:
            self._call(self._spool.drop_documents([request.job_id]))
            log.info("Job %s was cancelled after %d documents", request.job_id, state.cursor)
            raise
        except _HandBackError:
            return True
        except ExecutionLeaseLostError:
            raise
        except Exception as error:
            self._retry_or_fail(context, state, error)
        log.info(
            "Job %s is done: %d documents indexed, %d failed, %d chunks",
            request.job_id,
            state.documents_ok,
            state.documents_failed,
            state.chunks_ok,
        )
        return False

    def _finish_batches(self, context: DurableContext, request: JobInput, state: JobState) -> None:
        """Index what is left."""

        def check() -> None:
            context.check_cancelled_sync()
            if self._closing.is_set():
                raise _HandBackError

        # A job that goes on where an attempt ended without progress is a suspect. Nothing runs beside its first
        # batch, nor is the attempt counted before: so only the document that ends processes collects attempts.
        with self._gate.alone(check) if state.starts else self._gate.shared(check):
            check()
            self._begin(context, request, state)
            self._next_batch(context, request, state)
        while state.cursor < request.total:
            with self._gate.shared(check):
                check()
                self._next_batch(context, request, state)
        if not state.documents_ok:
            raise JobFailedError(_explain_failure(state))

    def _next_batch(self, context: DurableContext, request: JobInput, state: JobState) -> None:
        if state.cursor >= request.total:
            return
        alone = state.starts > ATTEMPTS_BEFORE_SINGLE_DOCUMENTS
        documents = self._documents(request, state, 1 if alone else self._batch_size)
        chunks, errors = self._index(context, documents, request.tenant_id)
        _advance(state, len(documents), chunks, errors)
        _save(context, state)

    def _begin(self, context: DurableContext, request: JobInput, state: JobState) -> None:
        """Note that an attempt begins: the next one sees whether this one ended without progress."""
        if state.cursor >= request.total:
            return
        if state.started_at_ms is None:
            state.started_at_ms = time.time_ns() // 1_000_000
            log.info("Job %s begins: %d documents", request.job_id, request.total)
        else:
            log.info("Job %s goes on at document %d of %d", request.job_id, state.cursor, request.total)
        if state.starts >= ATTEMPTS_BEFORE_BLAME:
            [document] = self._documents(request, state, 1)
            reason = f"the process ended {state.starts} times while it indexed this document"
            _advance(state, 1, 0, [_document_error(document, reason)])
        state.starts += 1
        _save(context, state)

    def _index(
        self, context: DurableContext, documents: list[Document], tenant_id: str
    ) -> tuple[int, list[DocumentError]]:
        """Index documents together, or one by one when that fails; the number of chunks and what failed."""
        try:
            return self._work(documents, tenant_id), []
        except (DurableExecutionCancelledError, ExecutionLeaseLostError):
            raise
        except Exception as error:
            if self._may_pass(error):
                raise
            if len(documents) == 1:
                log.warning("Document %r can't be indexed: %s", documents[0]["id"], describe(error))
                return 0, [_document_error(documents[0], describe(error))]
            log.info(
                "A batch of %d documents failed, each is tried alone: %s", len(documents), describe(error)
            )
        chunks, errors = 0, []
        for document in documents:
            context.check_cancelled_sync()
            more_chunks, more_errors = self._index(context, [document], tenant_id)
            chunks += more_chunks
            errors += more_errors
        return chunks, errors

    def _documents(self, request: JobInput, state: JobState, count: int) -> list[Document]:
        documents = self._call(self._spool.batch(request.job_id, state.cursor, count))
        if not documents:
            raise JobFailedError("the documents of this job are gone; post them again")
        return documents

    def _request_id(self, request: JobInput) -> str:
        try:
            return self._call(self._spool.request_id(request.job_id))
        except ExecutionStoreError:  # log lines without it are better than no job
            return ""

    def _may_pass(self, error: Exception) -> bool:
        return isinstance(error, ExecutionStoreError) or self._is_transient(error)

    def _retry_or_fail(self, context: DurableContext, state: JobState, error: Exception) -> NoReturn:
        """Leave this attempt: queue the job again where the fault may pass, else write down why it failed."""
        reason = str(error) if isinstance(error, JobFailedError) else describe(error)
        if self._may_pass(error):
            if state.retries < self._max_retries:
                delay = min(MAX_RETRY_SECONDS, self._retry_seconds * 2**state.retries)
                delay *= random.uniform(0.5, 1.0)
                log.warning("A transient fault, the job goes on in %.1f s: %s", delay, reason)
                state.retries += 1
                state.starts = 0
                _save(context, state)
                context.retry_sync(reason, delay=delay)
            reason = f"given up after {state.retries} repetitions: {reason}"
        state.error = reason
        _save(context, state)
        raise error

    def _count_busy(self, change: int) -> None:
        with self._busy_changed:
            self._busy += change
            self._busy_changed.notify_all()


def is_transient(error: BaseException) -> bool:
    """
    :param error: an error of the work on documents.
    :returns: True where it, or what caused it, is a failed connection or a missed deadline.
    """
    return any(isinstance(cause, (ConnectionError, TimeoutError)) for cause in causes(error))


def causes(error: BaseException) -> Iterator[BaseException]:
    """
    :param error: any error.
    :returns: the error, what it was raised for, and so on to the first; each once, though causes may go in a circle.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        # Clients also hide the first error behind one of their own without "from", as chromadb does.
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def describe(error: BaseException) -> str:
    """
    :param error: any error.
    :returns: its type and message, short and without what UTF-8 can't hold.
    """
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return _clean(message)


def _explain_failure(state: JobState) -> str:
    first = f"; the first error: {state.errors[0].error}" if state.errors else ""
    return f"none of the {state.documents_failed} documents could be indexed{first}"


def _document_error(document: Document, reason: str) -> DocumentError:
    return DocumentError(document_id=_clean(str(document["id"])), error=reason)


def _advance(state: JobState, count: int, chunks: int, errors: list[DocumentError]) -> None:
    state.cursor += count
    state.documents_ok += count - len(errors)
    state.documents_failed += len(errors)
    state.chunks_ok += chunks
    # A checkpoint is limited to 1 MB; the count stays true.
    state.errors = (state.errors + errors)[:MAX_ERRORS_KEPT]
    state.starts = 0
    state.retries = 0


def _save(context: DurableContext, state: JobState) -> None:
    context.state.update(state.model_dump(mode="json"))
    context.checkpoint_sync()


def _clean(text: str) -> str:
    return text.encode(errors="replace").decode()[:MAX_ERROR_LENGTH]
