"""`/ingest/{job_id}`: following, listing, cancelling and repeating jobs."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from components.storing import InvalidTenantError, UnknownTenantError
from serve.errors import InvalidCursorError, JobFinishedError, UnknownJobError
from serve.ingestion_schemas import JobList, SourceList, SourceOutcome
from serve.jobs import Job, JobQueue, JobStatus, SourceStatus
from serve.routers.ingest import POLL_SECONDS, accepted
from serve.schemas import TenantID
from serve.tenancy import CallerTenancy

router = APIRouter(prefix="/ingest", tags=["ingestion"])

Limit = Annotated[int, Query(ge=1, le=500, description="How many at most.")]
Cursor = Annotated[str | None, Query(max_length=500, description="`next` of the page before.")]
Position = Annotated[int, Query(ge=0, le=2**31, description="`next` of the page before.")]


async def known_job(
    request: Request,
    job_id: str,
    tenancy: CallerTenancy,
    tenant_id: Annotated[
        TenantID | None, Query(description="Whose the job must be; another one's is not found.")
    ] = None,
) -> Job:
    """
    Give the job that a route is about.

    :param request: the request.
    :param job_id: the job.
    :param tenancy: what the caller may name.
    :param tenant_id: whose it must be.
    :returns: the job as it stands.
    :raises UnknownJobError: if there is none that the caller may know of.
    """
    job: Job | None = await request.app.state.service.jobs.get(job_id)
    if job is None or tenant_id not in (None, job.tenant_id):
        raise UnknownJobError(job_id)
    try:
        tenancy.tenant(job.tenant_id)
    except (InvalidTenantError, UnknownTenantError):
        raise UnknownJobError(job_id) from None
    return job


KnownJob = Annotated[Job, Depends(known_job)]


@router.get("/", response_model=JobList)
async def list_jobs(
    request: Request,
    tenancy: CallerTenancy,
    tenant_id: TenantID | None = None,
    status: JobStatus | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> JobList:
    """List a tenant's jobs, the newest first."""
    jobs: JobQueue = request.app.state.service.jobs
    # Not below: of a tenant that can't be named something else is wrong than the cursor.
    tenant = tenancy.tenant(tenant_id)
    try:
        found, following = await jobs.list(tenant, status, limit, cursor)
    except ValueError as error:
        raise InvalidCursorError("the cursor was not given by GET /ingest/") from error
    return JobList(items=found, next=following)


@router.get("/{job_id}", response_model=Job)
async def get_job(response: Response, job: KnownJob) -> Job:
    """Tell the state of a job; `Retry-After` says when to ask again, as long as it is not finished."""
    if not job.status.finished:
        response.headers["Retry-After"] = POLL_SECONDS
    return job


@router.get("/{job_id}/sources", response_model=SourceList)
async def list_sources(
    request: Request,
    job: KnownJob,
    status: SourceStatus | None = None,
    limit: Limit = 100,
    cursor: Position = 0,
) -> SourceList:
    """Tell what became of each document or file of a job, in the order in which they were sent."""
    found = await request.app.state.service.jobs.sources(job.job_id, cursor, limit, status)
    items = [SourceOutcome(position=position, **dict(result)) for position, result in found]
    return SourceList(items=items, next=str(items[-1].position + 1) if len(items) == limit else None)


@router.delete("/{job_id}", response_model=Job, responses={202: {"model": Job}})
async def cancel_job(request: Request, response: Response, job: KnownJob) -> Job:
    """
    Cancel a job: 200 when it has ended, 202 while the batch under way is still to end.

    What it has indexed stays, and its `sources` say which documents these are.
    """
    if job.status.finished:
        raise _finished(job)
    after: Job | None = await request.app.state.service.jobs.cancel(job.job_id)
    if after is None:
        raise UnknownJobError(job.job_id)
    if not after.status.finished:
        response.status_code = 202
        response.headers["Retry-After"] = POLL_SECONDS
    elif after.status is not JobStatus.CANCELLED:
        raise _finished(after)
    return after


@router.post("/{job_id}/retry", response_model=Job, status_code=202)
async def retry_job(request: Request, job: KnownJob) -> Response:
    """Run the sources of a finished job again that failed or were not reached; the others stay as they are."""
    jobs: JobQueue = request.app.state.service.jobs
    return accepted(await jobs.retry(job.job_id, request.state.request_id))


def _finished(job: Job) -> JobFinishedError:
    return JobFinishedError(f"the job is {job.status} and can't be cancelled any more")
