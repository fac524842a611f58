"""What tenants hold, beside the jobs that bring more: indexing it anew, and deleting it."""

import asyncio
from itertools import count

from components.storing import UnknownTenantError
from registry import ModeRegistry
from serve.ingestion_schemas import DEFAULT_PIPELINE
from serve.jobs import Job, JobKind, JobQueue, Source
from serve.reindexing import Reindexer
from serve.telemetry.run_metrics import RunMetrics
from serve.traces.errors import RunsNotForgottenError, TraceStoreError
from serve.traces.keeping import RunKeeper

# No client's key has a line break, as a header can't.
_KEY = "reindex\n{}"


class Holdings:
    """
    Changes what tenants hold, so that no job that is under way undoes it.

    Usage example:
    ```python
    holdings = Holdings(registry, jobs)
    await holdings.delete_document("acme", "policy.md")
    ```
    """

    def __init__(
        self,
        registry: ModeRegistry,
        jobs: JobQueue,
        runs: RunKeeper | None = None,
        figures: RunMetrics | None = None,
    ) -> None:
        """
        Create the holdings.

        :param registry: has the stores and the indexing pipelines.
        :param jobs: the job queue.
        :param runs: keeps runs, where they are kept.
        :param figures: counts runs.
        """
        self._runs = runs
        self._figures = figures
        self._registry = registry
        self._stores = registry.resources.document_stores
        self._jobs = jobs

    async def delete_document(self, tenant_id: str, document_id: str) -> int:
        """
        Delete a document; versions of it that still wait in jobs are not indexed any more.

        :param tenant_id: whose document.
        :param document_id: which.
        :returns: how many chunks were deleted.
        :raises UnknownTenantError: if the tenant has no documents.
        :raises UnknownDocumentError: if it holds none of that id.
        """
        await self._jobs.mark_deleted(tenant_id, document_id)
        return await self._stores.delete_document_async(tenant_id, document_id)

    async def delete_tenant(self, tenant_id: str) -> int:
        """
        Delete all that a tenant has and that is kept of its questions, and cancel its jobs.

        :param tenant_id: the tenant.
        :returns: how many jobs were cancelled.
        :raises UnknownTenantError: if there is nothing of it.
        :raises RunsNotForgottenError: if all went but what is kept of its questions.
        """
        await self._jobs.mark_deleted(tenant_id, None)
        unfinished = [job.job_id for job in await self._jobs.unfinished(tenant_id)]
        await asyncio.gather(*(self._jobs.cancel(job_id) for job_id in unfinished))
        await self._jobs.forget_sources(tenant_id)
        dropped = await self._stores.drop_async(tenant_id)
        # Last, so that nothing is kept of questions that were asked until now and are being answered.
        forgotten = await self._forget(tenant_id)
        if not dropped and not unfinished and not forgotten:
            raise UnknownTenantError(f"tenant '{tenant_id}' has no documents and no jobs")
        return len(unfinished)

    async def _forget(self, tenant_id: str) -> int:
        if self._figures is not None:
            self._figures.forget(tenant_id)
        try:
            return 0 if self._runs is None else await self._runs.forget(tenant_id)
        except TraceStoreError as error:
            raise RunsNotForgottenError(str(error)) from error

    async def reindex(self, tenant_id: str, request_id: str) -> Job:
        """
        Index all documents of a tenant anew, as the settings and pipeline files now say.

        :param tenant_id: the tenant.
        :param request_id: the request's id.
        :returns: the job; the one that does it already, where there is one.
        :raises UnknownTenantError: if the tenant has no documents.
        """
        job_id = await reindexing_job(self._jobs, tenant_id)
        if job_id is not None and (job := await self._jobs.get(job_id)) is not None:
            return job
        await self._jobs.room(tenant_id)
        names = await asyncio.to_thread(Reindexer(self._registry).begin, tenant_id)
        if not names:
            raise UnknownTenantError(f"tenant '{tenant_id}' has no documents to index anew")
        for earlier in count():
            # Of two who ask at once, both come to the first key whose job has not ended, and get one job.
            submission = await self._jobs.submit(
                tenant_id,
                [Source(id=name) for name in names],
                request_id=request_id,
                pipeline=DEFAULT_PIPELINE,
                kind=JobKind.REINDEX,
                idempotency_key=_KEY.format(earlier),
            )
            if not submission.job.status.finished:
                return submission.job
        raise AssertionError("there is always a next key")


async def reindexing_job(jobs: JobQueue, tenant_id: str) -> str | None:
    """
    Look for the job that indexes a tenant anew.

    :param jobs: the job queue.
    :param tenant_id: the tenant.
    :returns: the job's id; None when there is none that is not finished.
    """
    return next((job.job_id for job in await jobs.unfinished(tenant_id, JobKind.REINDEX)), None)
