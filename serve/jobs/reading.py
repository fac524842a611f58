"""JobReader: jobs, their sources and lists of them, put together from the spool and the store of executions."""

import asyncio
import re
from collections.abc import Sequence

from serve.jobs.backend import JobBackend
from serve.jobs.model import SOURCES_SHOWN, Job, JobInput, JobKind, JobStatus, SourceResult, SourceStatus
from serve.jobs.state import view_job

# Rows of a list that are looked at for one page, where few have the status that is asked for.
LIST_LOOKS = 200
VIEWS_AT_ONCE = 10
JOB_ID = re.compile(r"[0-9a-f]{32}")

# What becomes of the sources that a job has not reached when it ends.
LEFT = {
    JobStatus.FAILED: (SourceStatus.FAILED, "not reached: {error}"),
    JobStatus.CANCELLED: (SourceStatus.CANCELLED, "not finished when the job was cancelled"),
}


class JobReader:
    """
    Reads jobs as their owners see them.

    Usage example:
    ```python
    reader = JobReader(backend)
    row = await reader.row(job_id)
    job = None if row is None else await reader.view(row)
    ```
    """

    def __init__(self, backend: JobBackend) -> None:
        """
        :param backend: where the jobs are kept.
        """
        self._store = backend.store
        self._spool = backend.spool

    async def row(self, job_id: str) -> JobInput | None:
        """
        :param job_id: any text.
        :returns: the row of the job of this id, or None where there is none.
        :raises ExecutionStoreError: when the store fails.
        """
        return await self._spool.get(job_id) if JOB_ID.fullmatch(job_id) else None

    async def view(self, row: JobInput, *, with_sources: bool = True) -> Job | None:
        """
        :param row: a job's row.
        :param with_sources: whether to read what became of its sources, too.
        :returns: the job as it stands, or None when its time is over.
        :raises ExecutionStoreError: when the store fails.
        """
        stored = await self._store.read(row.run_id)
        if stored is None and row.finished_at is not None:
            return None  # the engine has forgotten it, and soon so will the spool
        job = view_job(row, stored)
        if with_sources:
            wanted = None if job.total <= SOURCES_SHOWN else {SourceStatus.FAILED, SourceStatus.SKIPPED}
            if wanted is None or job.documents_failed or job.documents_skipped:
                found = await self.sources(job, 0, SOURCES_SHOWN, wanted)
                job.sources = [result for _, result in found]
        return job

    async def sources(
        self, job: Job, start: int, limit: int, wanted: set[SourceStatus] | None
    ) -> list[tuple[int, SourceResult]]:
        """
        :param job: a job as it stands.
        :param start: the position of the first source, counted from 0.
        :param limit: how many at most.
        :param wanted: only those with one of these outcomes.
        :returns: positions and outcomes, in order.
        :raises ExecutionStoreError: when the store fails.
        """
        left, reason = LEFT.get(job.status, (SourceStatus.PENDING, None))
        if wanted is not None:
            wanted = (wanted - {SourceStatus.PENDING}) | ({SourceStatus.PENDING} if left in wanted else set())
        found = await self._spool.sources(job.job_id, start, limit, wanted)
        for _, result in found:
            if result.status is SourceStatus.PENDING:
                result.status = left
                result.reason = reason and reason.format(error=job.error)
        return found

    async def unfinished(self, tenant_id: str, kind: JobKind | None) -> list[Job]:
        """
        :param tenant_id: whose jobs.
        :param kind: only jobs of this kind.
        :returns: the tenant's jobs that have not ended, without their sources.
        :raises ExecutionStoreError: when the store fails.
        """
        rows = await self._spool.unfinished_of(tenant_id)
        views = await self._views([row for row in rows if kind in (None, row.kind)])
        return [job for job in views if not job.status.finished]

    async def page(
        self, tenant_id: str, status: JobStatus | None, limit: int, cursor: str | None
    ) -> tuple[list[Job], str | None]:
        """
        :param tenant_id: whose jobs.
        :param status: only jobs that stand so.
        :param limit: how many at most.
        :param cursor: what the page before gave.
        :returns: jobs without their sources, the newest first, and a cursor for the next page.
        :raises ValueError: when the cursor is none of the spool's.
        :raises ExecutionStoreError: when the store fails.
        """
        found: list[Job] = []
        looks = 0
        while True:
            rows, cursor = await self._spool.jobs(tenant_id, limit - len(found), cursor)
            found += [job for job in await self._views(rows) if status in (None, job.status)]
            looks += len(rows)
            if cursor is None or len(found) == limit or looks >= LIST_LOOKS:
                return found, cursor

    async def _views(self, rows: Sequence[JobInput]) -> list[Job]:
        # Some at a time: one by one takes long where the store is far, and all at once takes a connection for each.
        views: list[Job | None] = []
        for begin in range(0, len(rows), VIEWS_AT_ONCE):
            part = rows[begin : begin + VIEWS_AT_ONCE]
            views += await asyncio.gather(*(self.view(row, with_sources=False) for row in part))
        return [job for job in views if job is not None]
