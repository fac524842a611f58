"""`POST /ingest/` and its jobs."""

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError

from serve.errors import UnknownJobError
from serve.ingestion_schemas import IngestBody
from serve.jobs import Job
from serve.service import Service, job_documents
from serve.tenancy import CallerTenancy

router = APIRouter(prefix="/ingest", tags=["ingestion"])

_POLL_SECONDS = "1"


@router.post("/", response_model=Job, status_code=202)
async def ingest(request: Request, response: Response, body: IngestBody, tenancy: CallerTenancy) -> Job:
    """
    Accept documents and index them in the background.

    From the 202 on, no end of the process loses them. Poll the job at `Location` until it is `done`, `failed` or
    `cancelled`. The same document sent again is there once; a changed one of the same id replaces the old.
    """
    service: Service = request.app.state.service
    documents = job_documents(body)
    if len(documents) > service.settings.max_documents_per_job:
        limit = service.settings.max_documents_per_job
        message = (
            f"{len(documents)} documents are more than {limit} (MAX_DOCUMENTS_PER_JOB); send several requests"
        )
        raise RequestValidationError([{"type": "too_many", "loc": ("body",), "msg": message}])
    job = await service.jobs.submit(tenancy.tenant(body.tenant_id), documents, request.state.request_id)
    response.headers["Location"] = f"/ingest/{job.job_id}"
    response.headers["Retry-After"] = _POLL_SECONDS
    return job


@router.get("/{job_id}", response_model=Job)
async def get_job(request: Request, response: Response, job_id: str) -> Job:
    """Tell the state of a job."""
    job: Job | None = await request.app.state.service.jobs.get(job_id)
    if job is None:
        raise UnknownJobError(
            f"there is no job '{job_id[:64]}'; jobs are forgotten a week after they finished"
        )
    if not job.status.finished:
        response.headers["Retry-After"] = _POLL_SECONDS
    return job
