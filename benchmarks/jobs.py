"""Ingestion jobs of a running service, by HTTP."""

import asyncio
from typing import Any

import orjson

from benchmarks.processes import RunningServer

POLL_SECONDS = 0.05
ENDS = ("done", "failed", "cancelled")


def body_of(documents: list[dict[str, Any]], tenant_id: str) -> bytes:
    """
    Make the body of `POST /ingest/`.

    :param documents: the documents.
    :param tenant_id: whose they are.
    :returns: JSON.
    """
    return orjson.dumps({"tenant_id": tenant_id, "documents": documents})


async def submit(server: RunningServer, body: bytes) -> str:
    """
    Post documents.

    :param server: the service.
    :param body: from `body_of`.
    :returns: the job's id.
    :raises RuntimeError: if they are not accepted.
    """
    status, answer = await server.client.send("POST", "/ingest/", body)
    if status != 202:
        raise RuntimeError(f"POST /ingest/ answered {status}: {answer[:500]!r}")
    return str(orjson.loads(answer)["job_id"])


async def finished(server: RunningServer, job_id: str) -> dict[str, Any]:
    """
    Wait for the end of a job.

    :param server: the service.
    :param job_id: the job.
    :returns: the job.
    :raises RuntimeError: if a document failed.
    """
    job = await ended(server, job_id)
    if job["status"] != "done" or job["documents_failed"]:
        raise RuntimeError(f"documents could not be ingested: {job}")
    return job


async def ended(server: RunningServer, job_id: str) -> dict[str, Any]:
    """
    Wait for the end of a job, whichever it is.

    :param server: the service.
    :param job_id: the job.
    :returns: the job.
    """
    while True:
        job: dict[str, Any] = await server.get(f"/ingest/{job_id}")
        if job["status"] in ENDS:
            return job
        await asyncio.sleep(POLL_SECONDS)


async def chunks_so_far(server: RunningServer, job_id: str) -> int:
    """
    Tell how far a job has come.

    :param server: the service.
    :param job_id: the job.
    :returns: the number of chunks written.
    :raises RuntimeError: if it has ended, so that nothing more can be measured on it.
    """
    job = await server.get(f"/ingest/{job_id}")
    if job["status"] in ENDS:
        raise RuntimeError(f"the job ended before the measurement: {job}")
    return int(job["chunks_ok"])


async def cancel(server: RunningServer, job_id: str) -> None:
    """
    End a job and wait until it has.

    :param server: the service.
    :param job_id: the job.
    """
    await server.client.send("DELETE", f"/ingest/{job_id}")
    await ended(server, job_id)
