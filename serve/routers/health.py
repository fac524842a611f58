"""`GET /health` and `GET /ready`."""

import asyncio

from fastapi import APIRouter, Request, Response

from serve.schemas import Health, Ready

router = APIRouter(tags=["health"])


@router.get("/health", response_model=Health)
async def health(request: Request) -> Health:
    """Say that the process is alive; asks nothing else."""
    return Health(version=request.app.state.service.settings.api_version)


@router.get("/ready", response_model=Ready, responses={503: {"model": Ready}})
async def ready(request: Request, response: Response) -> Ready:
    """Say whether queries can be served: 503 names what is in the way."""
    draining: asyncio.Event | None = getattr(request.state, "draining", None)
    state = await request.app.state.service.ready(stopping=draining is not None and draining.is_set())
    if state.status != "ok":
        response.status_code = 503
        response.headers["Retry-After"] = "2"
    return state
