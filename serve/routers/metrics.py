"""`GET /metrics`."""

from fastapi import APIRouter, Request, Response

from serve.errors import NOT_KEPT
from serve.telemetry.scraping import MEDIA_TYPE, PATH

router = APIRouter(tags=["health"])


@router.get(
    PATH,
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Give the figures of this process to Prometheus; where `METRICS_PORT` is set, they are there instead."""
    text = await request.app.state.service.scrape.text()
    return Response(text, media_type=MEDIA_TYPE, headers=NOT_KEPT)
