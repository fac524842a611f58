"""`/documents` and `/tenants`: what a tenant holds, and removing it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from components.storing import TenantDocumentStores
from serve.ingestion_schemas import (
    Chunk,
    DeletedDocument,
    DeletedTenant,
    DocumentDetail,
    DocumentItem,
    DocumentList,
)
from serve.jobs import Job
from serve.routers.ingest import accepted
from serve.routers.jobs import Cursor, Limit, Position
from serve.schemas import TenantID
from serve.service import Service
from serve.tenancy import CallerTenancy

router = APIRouter(tags=["documents"])

OwnerParameter = Annotated[TenantID | None, Query(description="Whose documents; `default` when left out.")]
# The bare path with a slash at its end fits the routes of one document too.
DocumentID = Annotated[str, Path(min_length=1, description="Which document.")]


@router.get("/documents", response_model=DocumentList)
async def list_documents(
    request: Request,
    tenancy: CallerTenancy,
    tenant_id: OwnerParameter = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> DocumentList:
    """List a tenant's documents, in the order in which they first came."""
    store = await _stores(request).get_async(tenancy.tenant(tenant_id))
    documents, following = await store.list_documents_async(limit, cursor)
    return DocumentList(items=[DocumentItem.of(document) for document in documents], next=following)


@router.get("/documents/{document_id:path}", response_model=DocumentDetail)
async def get_document(
    request: Request,
    tenancy: CallerTenancy,
    document_id: DocumentID,
    tenant_id: OwnerParameter = None,
    limit: Limit = 100,
    cursor: Position = 0,
) -> DocumentDetail:
    """Describe a document and give its chunks, in the order of the text."""
    store = await _stores(request).get_async(tenancy.tenant(tenant_id))
    document, chunks = await store.get_document_async(document_id)
    end = cursor + limit
    return DocumentDetail(
        **dict(DocumentItem.of(document)),
        items=[Chunk.of(chunk) for chunk in chunks[cursor:end]],
        next=str(end) if end < len(chunks) else None,
    )


@router.delete("/documents/{document_id:path}", response_model=DeletedDocument)
async def delete_document(
    request: Request, tenancy: CallerTenancy, document_id: DocumentID, tenant_id: OwnerParameter = None
) -> DeletedDocument:
    """
    Delete a document with all its chunks.

    A version of it that still waits in a job is not indexed any more either.
    """
    service: Service = request.app.state.service
    tenant = tenancy.tenant(tenant_id)
    chunks = await service.holdings.delete_document(tenant, document_id)
    return DeletedDocument(tenant_id=tenant, document_id=document_id, chunks=chunks)


@router.delete("/tenants/{tenant_id}", response_model=DeletedTenant)
async def delete_tenant(request: Request, tenancy: CallerTenancy, tenant_id: TenantID) -> DeletedTenant:
    """Delete all documents of a tenant and its index, and cancel its jobs."""
    tenant = tenancy.tenant(tenant_id)
    cancelled = await request.app.state.service.holdings.delete_tenant(tenant)
    return DeletedTenant(tenant_id=tenant, jobs_cancelled=cancelled)


@router.post("/tenants/{tenant_id}/reindex", response_model=Job, status_code=202)
async def reindex_tenant(request: Request, tenancy: CallerTenancy, tenant_id: TenantID) -> Response:
    """
    Index all documents of a tenant anew, with the embedding model and the pipeline files as they are now.

    The new index is built beside the old one, which answers until the new one is whole. The tenant's other jobs wait
    meanwhile.
    """
    service: Service = request.app.state.service
    return accepted(await service.holdings.reindex(tenancy.tenant(tenant_id), request.state.request_id))


def _stores(request: Request) -> TenantDocumentStores:
    service: Service = request.app.state.service
    return service.registry.resources.document_stores
