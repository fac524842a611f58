"""`GET /pipelines`: how documents can be indexed."""

from fastapi import APIRouter, Request

from serve.ingestion_schemas import PipelineInfo, PipelineList

router = APIRouter(prefix="/pipelines", tags=["ingestion"])


@router.get("", response_model=PipelineList)
async def list_pipelines(request: Request) -> PipelineList:
    """List the indexing pipelines that `pipeline` may name."""
    registry = request.app.state.service.registry
    items = [
        PipelineInfo(
            name=pipeline.name,
            description=pipeline.description,
            takes_files=pipeline.takes_files,
            origin=pipeline.origin,
            file=pipeline.path.name,
        )
        for pipeline in registry.indexing.values()
    ]
    return PipelineList(items=items)
