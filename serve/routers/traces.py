"""`GET /traces/{request_id}`: how the answers of a request came about, where runs are kept."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel

from components.storing import InvalidTenantError, UnknownTenantError
from serve.middleware import VALID_ID
from serve.schemas import TenantID
from serve.service import Service
from serve.tenancy import CallerTenancy
from serve.traces.errors import UnknownTraceError
from serve.traces.records import KeptRun

router = APIRouter(prefix="/traces", tags=["traces"])

_RequestID = Annotated[str, Path(description="The `request_id` of an answer, or its `X-Request-ID`.")]


class RunList(BaseModel):
    """The runs of one request; a batch has one for each question."""

    items: list[KeptRun]
    next: str | None = None


@router.get("/{request_id}", response_model=RunList)
async def get_trace(
    request: Request, tenancy: CallerTenancy, request_id: _RequestID, tenant_id: TenantID | None = None
) -> RunList:
    """Tell how the answers of a request came about: chunks, grades, model, times, and of texts the hashes."""

    def may_read(owner: str) -> bool:
        if tenant_id not in (None, owner):
            return False
        try:
            tenancy.tenant(owner)
        except (InvalidTenantError, UnknownTenantError):
            return False
        return True

    service: Service = request.app.state.service
    # No other text was ever the id of a request, and stores need not hold it.
    there = service.runs if VALID_ID.fullmatch(request_id) else None
    runs = await there.find(request_id, may_read) if there is not None else []
    if not runs:
        raise UnknownTraceError(request_id)
    return RunList(items=runs)
