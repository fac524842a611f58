"""`GET /modes`: what can be asked."""

from fastapi import APIRouter, Request

from modes.mode import Mode
from serve.schemas import ModeInfo, ModeList

router = APIRouter(prefix="/modes", tags=["modes"])


@router.get("", response_model=ModeList)
async def list_modes(request: Request) -> ModeList:
    """List every mode, and the files that could not be loaded."""
    registry = request.app.state.service.registry
    broken = [f"{fault.file.name}:{fault.line}: {fault.message}" for fault in registry.faults]
    return ModeList(items=[_info(mode) for mode in registry.values()], broken=broken)


@router.get("/{mode}", response_model=ModeInfo)
async def get_mode(request: Request, mode: str) -> ModeInfo:
    """Describe one mode."""
    return _info(request.app.state.service.registry[mode])


def _info(mode: Mode) -> ModeInfo:
    return ModeInfo(
        name=mode.name,
        description=mode.description,
        inputs=mode.inputs,
        outputs=mode.outputs,
        origin=mode.origin,
        file=mode.path.name,
    )
