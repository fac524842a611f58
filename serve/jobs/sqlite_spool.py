"""SqliteJobSpool: jobs, their sources and outcomes in the job database, the files that were posted beside it."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from hayhooks.durable.store import ExecutionStoreError

from serve.jobs.database import JobDatabase
from serve.jobs.model import JobInput, Source, SourceResult, SourceStatus
from serve.jobs.rows import JobRows
from serve.jobs.staging import StagedFiles

T = TypeVar("T")

# One transaction deletes no more jobs than this: each may have ten thousand sources, and writers wait.
EXPIRY_BATCH = 10
# A document may have been accepted so long before its job is there.
SUBMISSION_SECONDS = 3_600.0


class SqliteJobSpool:
    """
    A `JobSpool` for one machine.

    Usage example:
    ```python
    spool = SqliteJobSpool(JobDatabase(Path("data/jobs.sqlite3")), Path("data/staged"))
    await spool.open()
    await spool.put(job, [Source(id="a", text="Some text.")], {})
    [(position, source)] = await spool.batch(job.job_id, 0, 1)
    ```
    """

    def __init__(
        self,
        database: JobDatabase,
        folder: Path,
        *,
        job_ttl: float = 7 * 24 * 3_600,
        staged_ttl: float = 7 * 24 * 3_600,
    ) -> None:
        """
        :param database: the file.
        :param folder: the directory for files that were posted.
        :param job_ttl: seconds for which a finished job is known.
        :param staged_ttl: seconds for which the sources that were not done are kept after the end.
        """
        self._database = database
        self._files = StagedFiles(folder)
        self._job_ttl = job_ttl
        self._staged_ttl = staged_ttl

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def put(self, job: JobInput, sources: Sequence[Source], files: Mapping[str, BinaryIO]) -> bool:
        if files:
            await _on_disk(self._files.put, _pack(job), files)
        is_new = await self._write(lambda rows: rows.insert(job, sources))
        if files and not is_new:
            there = await self.get(job.job_id)
            if there is None or _pack(there) != _pack(job):
                await self._keep_files(job, ())
        return is_new

    async def get(self, job_id: str) -> JobInput | None:
        return await self._read(lambda rows: rows.load(job_id))

    async def jobs(self, tenant_id: str, limit: int, cursor: str | None) -> tuple[list[JobInput], str | None]:
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
            raise ValueError("this is no cursor of a list of jobs")
        before = 2**63 - 1 if cursor is None else int(cursor)
        found = await self._read(lambda rows: rows.newest(tenant_id, before, limit + 1))
        page = found[:limit]
        return [job for _, job in page], str(page[-1][0]) if len(found) > limit else None

    async def unfinished(self, created_before: float) -> list[JobInput]:
        return await self._read(lambda rows: rows.unfinished(created_before))

    async def unfinished_of(self, tenant_id: str) -> list[JobInput]:
        return await self._read(lambda rows: rows.unfinished_of(tenant_id))

    async def batch(self, job_id: str, start: int, count: int) -> list[tuple[int, Source]]:
        kept = await self._read(lambda rows: rows.batch(job_id, start, count))
        return [(position, Source.model_validate_json(source)) for position, source in kept]

    async def content(self, job: JobInput, sha256: str) -> bytes | None:
        return await _on_disk(self._files.read, _pack(job), sha256)

    async def put_results(self, job_id: str, results: Mapping[int, SourceResult]) -> None:
        await self._write(lambda rows: rows.put_results(job_id, results))

    async def sources(
        self, job_id: str, start: int, limit: int, status: Collection[SourceStatus] | None = None
    ) -> list[tuple[int, SourceResult]]:
        wanted = set(SourceStatus if status is None else status)
        found = await self._read(lambda rows: rows.outcomes(job_id, start, limit, wanted))
        return [
            (position, SourceResult.model_validate_json(outcome) if outcome else _pending(source))
            for position, outcome, source in found
        ]

    async def finish(self, job: JobInput) -> None:
        def end(rows: JobRows) -> list[str] | None:
            there = rows.load_run(job)
            if there is None:
                return None
            rows.save(there.model_copy(update={"finished_at": there.finished_at or time.time()}))
            return rows.drop_done(job)

        wanted = await self._write(end)
        if wanted is not None:
            await self._keep_files(job, wanted)

    async def reopen(self, job: JobInput, request_id: str, traceparent: str = "") -> JobInput | None:
        return await self._write(lambda rows: _reopen(rows, job, request_id, traceparent))

    async def forget(self, job_id: str) -> None:
        def delete(rows: JobRows) -> JobInput | None:
            job = rows.load(job_id)
            rows.delete(job_id)
            return job

        job = await self._write(delete)
        if job is not None:
            await self._keep_files(job, ())

    async def forget_sources(self, tenant_id: str) -> None:
        await self._repeat(lambda rows: rows.drop_sources_of(tenant_id, EXPIRY_BATCH))

    async def expire(self) -> None:
        now = time.time()
        await self._repeat(lambda rows: rows.expire_jobs(now - self._job_ttl, EXPIRY_BATCH))
        await self._repeat(lambda rows: rows.expire_sources(now - self._staged_ttl, EXPIRY_BATCH))
        await self._write(lambda rows: rows.forget_deletions(now, SUBMISSION_SECONDS))
        known = {_pack(job) for job in await self._read(JobRows.staged)}
        for name in await _on_disk(self._files.abandoned, known):
            await _on_disk(self._files.keep, name, ())

    async def mark_deleted(self, tenant_id: str, document_id: str | None) -> None:
        await self._write(lambda rows: rows.mark_deleted(tenant_id, document_id))

    async def deleted_since(self, tenant_id: str, document_ids: Iterable[str]) -> dict[str, float]:
        ids = tuple(document_ids)
        return await self._read(lambda rows: rows.deleted_since(tenant_id, ids))

    async def _repeat(self, expire: Callable[[JobRows], list[JobInput]]) -> None:
        """Expire some after some, and the files of each."""
        while jobs := await self._write(expire):
            for job in jobs:
                await self._keep_files(job, ())

    async def _keep_files(self, job: JobInput, wanted: Collection[str]) -> None:
        await _on_disk(self._files.keep, _pack(job), wanted)

    async def _read(self, function: Callable[[JobRows], T]) -> T:
        return await self._database.read(lambda db: function(JobRows(db)))

    async def _write(self, function: Callable[[JobRows], T]) -> T:
        return await self._database.write(lambda db: function(JobRows(db)))


async def _on_disk(function: Callable[..., T], *arguments: Any) -> T:
    try:
        return await asyncio.to_thread(function, *arguments)
    except OSError as error:
        raise ExecutionStoreError(f"staged files: {error.strerror or error}") from error


def _pack(job: JobInput) -> str:
    # The time keeps the files apart from those of a job of the same id that expires while this one comes.
    return f"{job.job_id}-{int(job.created_at * 1_000_000):x}-{job.body_digest[:16]}"


def _pending(source: str | None) -> SourceResult:
    assert source is not None  # there is an outcome or a source
    pending = Source.model_validate_json(source)
    name = None if pending.file is None else pending.file.name
    return SourceResult(document_id=pending.id, name=name, status=SourceStatus.PENDING)


def _reopen(rows: JobRows, job: JobInput, request_id: str, traceparent: str) -> JobInput | None:
    there = rows.load_run(job)
    if there is None:
        return rows.load(job.job_id)
    counts = rows.counts(job.job_id)
    ok, chunks = counts.get(SourceStatus.OK, (0, 0))
    skipped, _ = counts.get(SourceStatus.SKIPPED, (0, 0))
    if rows.kept(job.job_id) < there.total - ok - skipped:
        return None
    rows.drop_outcomes_of_the_rest(job.job_id)
    again = there.model_copy(
        update={
            "run": there.run + 1,
            "request_id": request_id,
            "traceparent": traceparent,
            "documents_ok": ok,
            "documents_skipped": skipped,
            "chunks_ok": chunks,
            "finished_at": None,
        }
    )
    rows.save(again)
    return again
