"""`GET /modes`: what can be asked."""

from collections.abc import Iterator

from fastapi import APIRouter, Request

from modes.mode import Mode
from serve.schemas import ModeInfo, ModeList, RunnableInfo
from serve.service import Service

router = APIRouter(prefix="/modes", tags=["modes"])


@router.get("", response_model=ModeList)
async def list_modes(request: Request) -> ModeList:
    """List every mode, what else can be run, and the files that could not be loaded."""
    service: Service = request.app.state.service
    return ModeList(
        items=[_info(mode) for mode in service.registry.values()],
        pipelines=list(_others(service)),
        broken=[fault.brief for fault in service.registry.faults],
    )


@router.get("/{mode}", response_model=ModeInfo)
async def get_mode(request: Request, mode: str) -> ModeInfo:
    """Describe one mode."""
    return _info(request.app.state.service.registry[mode])


def _others(service: Service) -> Iterator[RunnableInfo]:
    for pipeline in service.registry.plain.values():
        yield RunnableInfo(
            name=pipeline.name,
            kind="pipeline",
            description=pipeline.description,
            inputs=pipeline.inputs,
            outputs=pipeline.outputs,
        )
    for wrapper in service.wrappers.values():
        yield RunnableInfo(
            name=wrapper.name,
            kind="wrapper",
            description=wrapper.description,
            protocols=wrapper.protocols,
        )


def _info(mode: Mode) -> ModeInfo:
    return ModeInfo(
        name=mode.name,
        description=mode.description,
        inputs=mode.inputs,
        outputs=mode.outputs,
        origin=mode.origin,
        file=mode.path.name,
        budget=mode.budget.to_dict(),
        fallback=mode.fallback,
    )
