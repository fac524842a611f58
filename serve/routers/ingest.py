"""`POST /ingest/` and `POST /ingest/files`: bringing documents."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from serve.bodies import body_schema, read_body
from serve.errors import LimitError
from serve.ingestion_schemas import DEFAULT_PIPELINE, IngestBody
from serve.intake import files_intake, texts_intake
from serve.jobs import Job
from serve.schemas import TenantID, Text
from serve.service import Service
from serve.tenancy import CallerTenancy
from serve.uploads import UploadLimits, received_upload

router = APIRouter(prefix="/ingest", tags=["ingestion"])

POLL_SECONDS = "1"
FILES_PATH = "/ingest/files"
_FORM_FIELDS = frozenset({"tenant_id", "pipeline", "metadata"})
_UPLOAD_SCHEMA = {
    "type": "object",
    "required": ["files"],
    "properties": {
        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "tenant_id": {"type": "string"},
        "pipeline": {"type": "string", "default": DEFAULT_PIPELINE},
        "metadata": {
            "type": "string",
            "description": 'JSON, by file name: `{"policy.md": {"id": "…", "title": "…", "meta": {…}}}`.',
        },
    },
}

TenantParameter = Annotated[
    TenantID | None,
    Query(description="Whose documents; wins over the body, and lets a full queue refuse before it is sent."),
]
PipelineParameter = Annotated[
    Text | None, Query(description="Which indexing pipeline takes the documents; wins over the body.")
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="Names this request: repeated with the same content it gives the same job.",
    ),
]


async def admitted_tenant(
    request: Request, tenancy: CallerTenancy, tenant_id: TenantParameter = None
) -> str | None:
    """
    Refuse a request while the queue is full, before its body is read.

    :param request: the request.
    :param tenancy: what the caller may name.
    :param tenant_id: the tenant, where the URL names it.
    :returns: that tenant.
    """
    tenant = None if tenant_id is None else tenancy.tenant(tenant_id)
    await request.app.state.service.jobs.room(tenant)
    return tenant


AdmittedTenant = Annotated[str | None, Depends(admitted_tenant)]


@router.post("/", response_model=Job, status_code=202, openapi_extra=body_schema(IngestBody))
async def ingest(
    request: Request,
    tenancy: CallerTenancy,
    tenant: AdmittedTenant,
    pipeline: PipelineParameter = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """
    Accept documents and index them in the background.

    From the 202 on, no end of the process loses them. Poll the job at `Location` until it is `done`, `failed` or
    `cancelled`. The same document sent again is there once; a changed one of the same id replaces the old.
    """
    service: Service = request.app.state.service
    body = await read_body(request, IngestBody)
    if pipeline is not None:
        body.pipeline = pipeline
    count, limit = len(body.texts or body.documents or []), service.settings.max_documents_per_job
    if count > limit:
        raise LimitError(
            "texts" if body.texts else "documents",
            f"has {count} documents, more than {limit} (MAX_DOCUMENTS_PER_JOB); send several requests",
        )
    intake = await asyncio.to_thread(texts_intake, body, tenant or tenancy.tenant(body.tenant_id))
    return accepted(await service.submit(intake, request.state.request_id, idempotency_key))


@router.post(
    "/files",
    response_model=Job,
    status_code=202,
    openapi_extra={
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _UPLOAD_SCHEMA}}}
    },
)
async def ingest_files(
    request: Request,
    tenancy: CallerTenancy,
    tenant: AdmittedTenant,
    pipeline: PipelineParameter = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """
    Accept files and index them in the background; see `POST /ingest/`.

    A file's document is named after the file, so a changed file of the same name replaces it.
    """
    service: Service = request.app.state.service
    settings = service.settings
    limits = UploadLimits(settings.max_documents_per_job, settings.max_file_bytes, settings.max_body_bytes)
    async with received_upload(request, settings.data_dir, limits, _FORM_FIELDS) as upload:
        named = tenant or tenancy.tenant(upload.fields.get("tenant_id"))
        if pipeline is None:
            pipeline = upload.fields.get("pipeline", DEFAULT_PIPELINE)
        intake = files_intake(upload, named, pipeline)
        return accepted(await service.submit(intake, request.state.request_id, idempotency_key))


def accepted(job: Job) -> Response:
    """
    Answer a request that gave a job.

    :param job: the job.
    :returns: 202 with the job, where to follow it and when.
    """
    headers = {"Location": f"/ingest/{job.job_id}", "Retry-After": POLL_SECONDS}
    # Made just now: returned as it is, FastAPI would check it once more.
    return Response(job.model_dump_json(), 202, headers, media_type="application/json")
