"""`GET /ingest/{job_id}/events`: a job's progress as server-sent events."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from serve.errors import NothingToStreamError
from serve.ingestion_schemas import JobProgress, SourceOutcome
from serve.jobs import Job, JobQueue, QueueUnavailableError, SourceStatus
from serve.routers.jobs import KnownJob

router = APIRouter(prefix="/ingest", tags=["ingestion"])

_POLL_SECONDS = 0.3
_AWAY_SECONDS = 2.0
_PAGE = 500
_END = "end"
_POSITION = re.compile("[0-9]{1,9}")

log = logging.getLogger("thresher.events")


async def first_position(
    job: KnownJob,
    last_event_id: Annotated[
        str | None, Header(description="Go on after this event; browsers send it when they connect again.")
    ] = None,
) -> int:
    """
    Tell where a job's stream goes on.

    :param job: the job.
    :param last_event_id: the last event that the client has seen, `run:position`.
    :returns: the first position to tell; 0 when the job was started anew since.
    :raises NothingToStreamError: if the client has seen the last event of a finished job.
    """
    run, _, position = (last_event_id or "").partition(":")
    if run != str(job.run):
        return 0
    if position == _END and job.status.finished:
        raise NothingToStreamError
    return int(position) + 1 if _POSITION.fullmatch(position) else 0


@router.get("/{job_id}/events", response_class=EventSourceResponse)
async def job_events(
    request: Request, job: KnownJob, position: Annotated[int, Depends(first_position)]
) -> AsyncIterator[ServerSentEvent]:
    """
    Stream a job's progress.

    `source` tells what became of a document, and `progress` how far the job is; `done`, `failed` or `cancelled` ends
    the stream with the job.
    """
    jobs: JobQueue = request.app.state.service.jobs
    stopping: asyncio.Event = getattr(request.state, "stopping", asyncio.Event())
    told = None
    while not stopping.is_set():
        progress = JobProgress(**{name: getattr(job, name) for name in JobProgress.model_fields})
        try:
            if progress != told:
                async for outcome in _outcomes(jobs, job, position):
                    position = outcome.position + 1
                    yield ServerSentEvent(event="source", id=f"{job.run}:{outcome.position}", data=outcome)
                if job.status.finished:
                    yield ServerSentEvent(event=job.status.value, id=f"{job.run}:{_END}", data=job)
                    return
                told = progress
                yield ServerSentEvent(event="progress", data=progress)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _POLL_SECONDS)
            # Read before the outcomes: those of a job that is finished now are all there then.
            found = await jobs.get(job.job_id)
        except QueueUnavailableError as error:
            log.warning("the events of job %s wait for the job store: %s", job.job_id, error)
            await asyncio.sleep(_AWAY_SECONDS)
            continue
        if found is None:
            return
        if found.run != job.run:
            position, told = 0, None
        job = found


async def _outcomes(jobs: JobQueue, job: Job, position: int) -> AsyncIterator[SourceOutcome]:
    """Tell what became of the sources from a position on, as far as it is known."""
    while found := await jobs.sources(job.job_id, position, _PAGE):
        for place, result in found:
            if result.status is SourceStatus.PENDING:
                return
            position = place + 1
            yield SourceOutcome(position=place, **dict(result))
