"""`POST /query/`: every mode behind one route."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from serve.errors import LimitError
from serve.schemas import FilledText, QueryBody, QueryResponse, TenantID, Text
from serve.service import Service
from serve.tenancy import CallerTenancy

router = APIRouter(prefix="/query", tags=["query"])

DEFAULT_MODE = "standard"


@router.post("/", response_model=QueryResponse)
async def query(
    request: Request,
    tenancy: CallerTenancy,
    body: QueryBody | None = None,
    q: Annotated[FilledText | None, Query(description="The question.")] = None,
    mode: Annotated[
        Text | None, Query(description=f"Which mode answers; `{DEFAULT_MODE}` when left out.")
    ] = None,
    tenant_id: Annotated[
        TenantID | None, Query(description="Whose documents; `default` when left out.")
    ] = None,
    model: Annotated[Text | None, Query(description="Another language model, of those allowed.")] = None,
    k: Annotated[int | None, Query(ge=1, description="Chunks to retrieve.")] = None,
) -> Response:
    """Answer a question from a tenant's documents, given as query parameters, as a JSON body, or as both."""
    service: Service = request.app.state.service
    given = {"q": q, "mode": mode, "tenant_id": tenant_id, "model": model, "k": k}
    asked: dict[str, Any] = (body or QueryBody()).model_dump() | {
        n: v for n, v in given.items() if v is not None
    }
    if asked["q"] is None:
        raise LimitError("q", "is missing: give the question as query parameter 'q' or in a JSON body")
    result = await service.answering.ask(
        DEFAULT_MODE if asked["mode"] is None else asked["mode"],
        asked["q"],
        tenant_id=tenancy.tenant(asked["tenant_id"]),
        top_k=asked["k"],
        model=asked["model"],
        filters=asked["filters"],
    )
    answer = QueryResponse(**dict(result), request_id=request.state.request_id)
    # Checked just now: returned as it is, FastAPI would check it once more.
    return Response(answer.model_dump_json(), media_type="application/json")
