"""What the tests of jobs have in common: sources, a queue for a while, and waiting for what is sure to come."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from serve.jobs import (
    Job,
    JobInput,
    JobQueue,
    LoadedSource,
    Source,
    SourceResult,
    SourceStatus,
    sqlite_backend,
)
from serve.jobs.database import JobDatabase

DEADLINE_SECONDS = 60


class Gate:
    """Work that says when it has begun, goes on when it is let, and remembers what it was given."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.open = threading.Event()
        self.given: list[str] = []

    def __call__(self, job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        self.given += [source.id for source in sources]
        self.started.set()
        assert self.open.wait(DEADLINE_SECONDS)
        return index_all(job, sources)


def make_sources(count: int) -> list[Source]:
    return [Source(id=f"d{n}", accepted_at=1.5, text=f"Text {n}.", meta={"n": n}) for n in range(count)]


def ok(source: Source, chunks: int = 2) -> SourceResult:
    name = None if source.file is None else source.file.name
    return SourceResult(document_id=source.id, name=name, status=SourceStatus.OK, chunks=chunks)


def index_all(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
    return [ok(source) for source in sources]


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool]) -> None:
    """Wait for something that is sure to come, for as long as a busy machine may need."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        met = condition()
        if met if isinstance(met, bool) else await met:
            return
        assert time.monotonic() < deadline, "nothing happened for too long"
        await asyncio.sleep(0.01)


async def finished(queue: JobQueue, job_id: str) -> Job:
    async def is_finished() -> bool:
        job = await queue.get(job_id)
        return job is not None and job.status.finished

    await until(is_finished)
    job = await queue.get(job_id)
    assert job is not None
    return job


async def submit(queue: JobQueue, sources: Sequence[Source], tenant_id: str = "acme", **options: Any) -> str:
    """Submit a job and give its id."""
    return (await queue.submit(tenant_id, sources, **{"request_id": "req", **options})).job.job_id


def with_queue(
    scenario: Callable[[JobQueue], Awaitable[None]],
    data_dir: Path,
    work: Any = index_all,
    *,
    kept: dict[str, int] | None = None,
    **options: Any,
) -> None:
    """Run a scenario on a queue with a SQLite file; `kept` are options of the backend."""

    async def main() -> None:
        backend = sqlite_backend(data_dir, **(kept or {}))
        queue = JobQueue(work, backend, **{"retry_seconds": 0.01, **options})
        await queue.start()
        try:
            await scenario(queue)
        finally:
            await queue.close()

    asyncio.run(main())


def spooled(data_dir: Path) -> tuple[int, int]:
    """The number of jobs and of sources that are kept."""

    async def count() -> tuple[int, int]:
        database = JobDatabase(data_dir / "jobs.sqlite3")
        try:
            return await database.read(
                lambda db: (
                    db.execute("SELECT COUNT(*) FROM jobs").fetchone()[0],
                    db.execute("SELECT COUNT(*) FROM sources").fetchone()[0],
                )
            )
        finally:
            await database.close()

    return asyncio.run(count())
