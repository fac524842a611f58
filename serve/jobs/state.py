"""JobState: how far a run has come, and from it the job as its owner sees it."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from hayhooks.durable.engine import ExecutionControl, ExecutionStatus, PayloadKind
from hayhooks.durable.store import StoredExecution
from pydantic import BaseModel

from serve.jobs.model import Job, JobInput, JobStatus, SourceResult, SourceStatus

STATUSES = {
    ExecutionStatus.QUEUED: JobStatus.PENDING,
    ExecutionStatus.WAITING: JobStatus.PENDING,
    ExecutionStatus.RUNNING: JobStatus.RUNNING,
    ExecutionStatus.COMPLETED: JobStatus.DONE,
    ExecutionStatus.FAILED: JobStatus.FAILED,
    ExecutionStatus.CANCELED: JobStatus.CANCELLED,
}


class JobRun(BaseModel):
    """What the durable execution carries: the name of a job, and of the run that it is."""

    job_id: str
    run_id: str


class JobState(BaseModel):
    """
    The checkpoint of a run, saved after each batch.

    Sources before `cursor` are through, well or not. `starts` counts the attempts that began at this cursor and
    `retries` the transient faults since it was reached; each batch sets both back to 0. `paused` says that the last
    attempt ended only to let others go first. Sources before `single_until` come one by one:
    a batch with them failed.
    """

    cursor: int = 0
    documents_ok: int = 0
    documents_skipped: int = 0
    documents_failed: int = 0
    chunks_ok: int = 0
    first_error: str | None = None
    error: str | None = None
    started_at_ms: int | None = None
    attempts: int = 0
    starts: int = 0
    retries: int = 0
    paused: bool = False
    single_until: int = 0

    @classmethod
    def first(cls, job: JobInput) -> "JobState":
        """
        :param job: a job whose run has no checkpoint yet.
        :returns: the state that it begins with: what earlier runs have done.
        """
        return cls(
            documents_ok=job.documents_ok,
            documents_skipped=job.documents_skipped,
            chunks_ok=job.chunks_ok,
        )

    def advance(self, cursor: int, results: Sequence[SourceResult]) -> None:
        """
        :param cursor: the position behind the last source of the batch.
        :param results: what became of its sources.
        """
        count = [result.status for result in results].count
        self.cursor = cursor
        self.documents_ok += count(SourceStatus.OK)
        self.documents_skipped += count(SourceStatus.SKIPPED)
        self.documents_failed += count(SourceStatus.FAILED)
        self.chunks_ok += sum(result.chunks for result in results)
        if self.first_error is None:
            failed = (result.reason for result in results if result.status is SourceStatus.FAILED)
            self.first_error = next(failed, None)
        self.starts = 0
        self.retries = 0


def view_job(job: JobInput, stored: StoredExecution | None) -> Job:
    """
    :param job: the row of a job.
    :param stored: the execution of its present run with its private payloads, or None where it is only coming.
    :returns: the job as its owner sees it, without its sources.
    """
    state = JobState.first(job)
    status = JobStatus.PENDING
    finished_at = None
    error = None
    if stored is not None:
        if PayloadKind.CHECKPOINT in stored.payloads:
            state = JobState(**json.loads(stored.payloads[PayloadKind.CHECKPOINT])["application_state"])
        status = _status(stored.control, state)
        if status.finished:
            finished_at = stored.control.updated_at_ms
        if status is JobStatus.FAILED:
            # Hayhooks keeps a type and a general message; what the runner wrote down says more.
            error = state.error or json.loads(stored.payloads[PayloadKind.ERROR])["message"]
    through = state.documents_ok + state.documents_skipped + state.documents_failed
    if status is JobStatus.FAILED:
        # What a failed job has not reached has failed with it.
        state.documents_failed = job.total - state.documents_ok - state.documents_skipped
    return Job(
        job_id=job.job_id,
        tenant_id=job.tenant_id,
        kind=job.kind,
        pipeline=job.pipeline,
        status=status,
        total=job.total,
        documents_ok=state.documents_ok,
        documents_skipped=state.documents_skipped,
        documents_failed=state.documents_failed,
        chunks_ok=state.chunks_ok,
        progress=min(1.0, through / job.total),
        error=error,
        run=job.run,
        attempts=state.attempts,
        request_id=job.request_id,
        created_at=datetime.fromtimestamp(job.created_at, UTC),
        started_at=_time(state.started_at_ms),
        finished_at=_time(finished_at),
    )


def _status(control: ExecutionControl, state: JobState) -> JobStatus:
    status = STATUSES[control.status]
    if status is JobStatus.PENDING and state.started_at_ms is not None:
        # It waits for its next slice, or for a fault to pass.
        return JobStatus.RUNNING
    return status


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1_000, UTC)
