"""SqliteJobSpool: jobs, their sources and outcomes in the job database, the files that were posted beside it."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from hayhooks.durable.store import ExecutionStoreError

from serve.jobs.database import JobDatabase
from serve.jobs.model import JobInput, Source, SourceResult, SourceStatus
from serve.jobs.staging import StagedFiles

T = TypeVar("T")

DONE = (SourceStatus.OK, SourceStatus.SKIPPED)
# One transaction deletes no more jobs than this: each may have ten thousand sources, and writers wait.
EXPIRY_BATCH = 10
# A document may have been accepted so long before its job is there.
SUBMISSION_SECONDS = 3_600.0
WHOLE_TENANT = ""


class SqliteJobSpool:
    """
    A `JobSpool` for one machine.

    Usage example:
    ```python
    spool = SqliteJobSpool(JobDatabase(Path("data/jobs.sqlite3")), Path("data/staged"))
    await spool.open()
    await spool.put(job, [Source(id="a", accepted_at=time.time(), text="Some text.")], {})
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
        is_new = await self._database.write(lambda db: _insert(db, job, sources))
        if files and not is_new:
            there = await self.get(job.job_id)
            if there is None or _pack(there) != _pack(job):
                await _on_disk(self._files.keep, _pack(job), ())
        return is_new

    async def get(self, job_id: str) -> JobInput | None:
        return await self._database.read(lambda db: _load(db, job_id))

    async def jobs(self, tenant_id: str, limit: int, cursor: str | None) -> tuple[list[JobInput], str | None]:
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
            raise ValueError("this is no cursor of a list of jobs")
        rows = await self._database.read(
            lambda db: db.execute(
                "SELECT seq, job FROM jobs WHERE tenant_id = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
                (tenant_id, int(cursor or 2**63 - 1), limit + 1),
            ).fetchall()
        )
        page = rows[:limit]
        following = str(page[-1][0]) if len(rows) > limit else None
        return [_decode(job) for _, job in page], following

    async def unfinished(self, created_before: float) -> list[JobInput]:
        rows = await self._database.read(
            lambda db: db.execute(
                "SELECT job FROM jobs WHERE finished_at IS NULL AND created_at < ? ORDER BY created_at",
                (created_before,),
            ).fetchall()
        )
        return [_decode(job) for (job,) in rows]

    async def batch(self, job_id: str, start: int, count: int) -> list[tuple[int, Source]]:
        rows = await self._database.read(
            lambda db: db.execute(
                "SELECT position, source FROM jobs JOIN sources ON sources.job = jobs.seq"
                " WHERE job_id = ? AND position >= ? ORDER BY position LIMIT ?",
                (job_id, start, count),
            ).fetchall()
        )
        return [(position, Source.model_validate_json(source)) for position, source in rows]

    async def content(self, job: JobInput, sha256: str) -> bytes | None:
        return await _on_disk(self._files.read, _pack(job), sha256)

    async def put_results(self, job_id: str, results: Mapping[int, SourceResult]) -> None:
        def insert(db: sqlite3.Connection) -> None:
            row = db.execute("SELECT seq FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
            if row is not None:
                db.executemany(
                    "INSERT OR REPLACE INTO outcomes (job, position, status, chunks, outcome)"
                    " VALUES (?, ?, ?, ?, ?)",
                    [
                        (row[0], position, result.status, result.chunks, result.model_dump_json())
                        for position, result in results.items()
                    ],
                )

        await self._database.write(insert)

    async def sources(
        self, job_id: str, start: int, limit: int, status: Collection[SourceStatus] | None = None
    ) -> list[tuple[int, SourceResult]]:
        rows = await self._database.read(
            lambda db: _outcomes(db, job_id, start, limit, set(SourceStatus if status is None else status))
        )
        return [
            (position, SourceResult.model_validate_json(outcome) if outcome else _pending(source))
            for position, outcome, source in rows
        ]

    async def finish(self, job: JobInput) -> None:
        def end(db: sqlite3.Connection) -> list[str] | None:
            there = _load(db, job.job_id)
            if there is None or there.run != job.run:
                return None
            db.execute(
                "DELETE FROM sources WHERE job = (SELECT seq FROM jobs WHERE job_id = :job_id) AND position IN"
                " (SELECT position FROM outcomes WHERE job = (SELECT seq FROM jobs WHERE job_id = :job_id)"
                " AND status IN (:ok, :skipped))",
                {"job_id": job.job_id, "ok": DONE[0], "skipped": DONE[1]},
            )
            _save(db, there.model_copy(update={"finished_at": there.finished_at or time.time()}))
            return _hashes(db, job.job_id)

        wanted = await self._database.write(end)
        if wanted is not None:
            await _on_disk(self._files.keep, _pack(job), wanted)

    async def reopen(self, job: JobInput, request_id: str) -> JobInput | None:
        return await self._database.write(lambda db: _reopen(db, job, request_id))

    async def forget(self, job_id: str) -> None:
        def delete(db: sqlite3.Connection) -> JobInput | None:
            job = _load(db, job_id)
            db.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))
            return job

        job = await self._database.write(delete)
        if job is not None:
            await _on_disk(self._files.keep, _pack(job), ())

    async def expire(self) -> None:
        now = time.time()
        await self._expire_jobs(now - self._job_ttl)
        await self._expire_sources(now - self._staged_ttl)
        await self._database.write(
            lambda db: db.execute(
                "DELETE FROM deletions WHERE deleted_at <"
                " MIN(?, COALESCE((SELECT created_at FROM jobs ORDER BY seq LIMIT 1), ?)) - ?",
                (now, now, SUBMISSION_SECONDS),
            )
        )
        known = await self._database.read(
            lambda db: {_pack(_decode(job)) for (job,) in db.execute("SELECT job FROM jobs WHERE staged")}
        )
        for name in await _on_disk(self._files.abandoned, known):
            await _on_disk(self._files.keep, name, ())

    async def mark_deleted(self, tenant_id: str, document_id: str | None) -> None:
        await self._database.write(
            lambda db: db.execute(
                "INSERT OR REPLACE INTO deletions (tenant_id, document_id, deleted_at) VALUES (?, ?, ?)",
                (tenant_id, document_id or WHOLE_TENANT, time.time()),
            )
        )

    async def deleted_since(self, tenant_id: str, document_ids: Iterable[str]) -> dict[str, float]:
        def find(db: sqlite3.Connection) -> dict[str, float]:
            query = "SELECT deleted_at FROM deletions WHERE tenant_id = ? AND document_id IN (?, ?)"
            times = {
                document_id: [time for (time,) in db.execute(query, (tenant_id, WHOLE_TENANT, document_id))]
                for document_id in document_ids
            }
            return {document_id: max(deleted) for document_id, deleted in times.items() if deleted}

        return await self._database.read(find)

    async def _expire_jobs(self, finished_before: float) -> None:
        def delete(db: sqlite3.Connection) -> list[str]:
            rows = db.execute(
                "DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE finished_at < ? LIMIT ?) RETURNING job",
                (finished_before, EXPIRY_BATCH),
            ).fetchall()
            return [_pack(_decode(job)) for (job,) in rows]

        await self._repeat(delete)

    async def _expire_sources(self, finished_before: float) -> None:
        def delete(db: sqlite3.Connection) -> list[str]:
            rows = db.execute(
                "UPDATE jobs SET staged = 0 WHERE seq IN"
                " (SELECT seq FROM jobs WHERE finished_at < ? AND staged LIMIT ?) RETURNING seq, job",
                (finished_before, EXPIRY_BATCH),
            ).fetchall()
            db.executemany("DELETE FROM sources WHERE job = ?", [(seq,) for seq, _ in rows])
            return [_pack(_decode(job)) for _, job in rows]

        await self._repeat(delete)

    async def _repeat(self, delete: Callable[[sqlite3.Connection], list[str]]) -> None:
        """Delete batch after batch, and the files of each."""
        while names := await self._database.write(delete):
            for name in names:
                await _on_disk(self._files.keep, name, ())


async def _on_disk(function: Callable[..., T], *arguments: Any) -> T:
    try:
        return await asyncio.to_thread(function, *arguments)
    except OSError as error:
        raise ExecutionStoreError(f"staged files: {error}") from error


def _pack(job: JobInput) -> str:
    return f"{job.job_id}-{job.body_digest[:16]}"


def _decode(job: str) -> JobInput:
    return JobInput.model_validate_json(job)


def _load(db: sqlite3.Connection, job_id: str) -> JobInput | None:
    row = db.execute("SELECT job FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    return None if row is None else _decode(row[0])


def _save(db: sqlite3.Connection, job: JobInput) -> None:
    db.execute(
        "UPDATE jobs SET finished_at = ?, job = ? WHERE job_id = ?",
        (job.finished_at, job.model_dump_json(), job.job_id),
    )


def _insert(db: sqlite3.Connection, job: JobInput, sources: Sequence[Source]) -> bool:
    row = db.execute(
        "INSERT INTO jobs (job_id, tenant_id, created_at, staged, job) VALUES (?, ?, ?, 1, ?)"
        " ON CONFLICT DO NOTHING RETURNING seq",
        (job.job_id, job.tenant_id, job.created_at, job.model_dump_json()),
    ).fetchone()
    if row is None:
        return False
    db.executemany(
        "INSERT INTO sources (job, position, sha256, source) VALUES (?, ?, ?, ?)",
        (
            (row[0], position, source.file and source.file.sha256, source.model_dump_json())
            for position, source in enumerate(sources)
        ),
    )
    return True


def _outcomes(
    db: sqlite3.Connection, job_id: str, start: int, limit: int, status: set[SourceStatus]
) -> list[tuple[int, str | None, str | None]]:
    places = ", ".join("?" * len(status))
    query = (
        "SELECT position, outcome, NULL FROM jobs JOIN outcomes ON outcomes.job = jobs.seq"
        f" WHERE job_id = ? AND position >= ? AND status IN ({places})"
    )
    values: list[Any] = [job_id, start, *status]
    if SourceStatus.PENDING in status:
        query += (
            " UNION ALL SELECT position, NULL, source FROM jobs JOIN sources ON sources.job = jobs.seq"
            " WHERE job_id = ? AND position >= ? AND NOT EXISTS (SELECT 1 FROM outcomes"
            " WHERE outcomes.job = sources.job AND outcomes.position = sources.position)"
        )
        values += [job_id, start]
    return db.execute(f"{query} ORDER BY position LIMIT ?", (*values, limit)).fetchall()


def _pending(source: str | None) -> SourceResult:
    assert source is not None  # there is an outcome or a source
    pending = Source.model_validate_json(source)
    name = None if pending.file is None else pending.file.name
    return SourceResult(document_id=pending.id, name=name, status=SourceStatus.PENDING)


def _hashes(db: sqlite3.Connection, job_id: str) -> list[str]:
    """The files that the kept sources of a job name."""
    rows = db.execute(
        "SELECT DISTINCT sha256 FROM jobs JOIN sources ON sources.job = jobs.seq"
        " WHERE job_id = ? AND sha256 IS NOT NULL",
        (job_id,),
    ).fetchall()
    return [sha256 for (sha256,) in rows]


def _reopen(db: sqlite3.Connection, job: JobInput, request_id: str) -> JobInput | None:
    there = _load(db, job.job_id)
    if there is None or there.run != job.run:
        return there
    counts = {
        status: (number, chunks)
        for status, number, chunks in db.execute(
            "SELECT status, COUNT(*), SUM(chunks) FROM jobs JOIN outcomes ON outcomes.job = jobs.seq"
            " WHERE job_id = ? GROUP BY status",
            (job.job_id,),
        )
    }
    ok, chunks = counts.get(SourceStatus.OK, (0, 0))
    skipped, _ = counts.get(SourceStatus.SKIPPED, (0, 0))
    kept = db.execute(
        "SELECT COUNT(*) FROM jobs JOIN sources ON sources.job = jobs.seq WHERE job_id = ?", (job.job_id,)
    ).fetchone()[0]
    if kept < there.total - ok - skipped:
        return None
    db.execute(
        "DELETE FROM outcomes WHERE job = (SELECT seq FROM jobs WHERE job_id = ?) AND status NOT IN (?, ?)",
        (job.job_id, *DONE),
    )
    again = there.model_copy(
        update={
            "run": there.run + 1,
            "request_id": request_id,
            "documents_ok": ok,
            "documents_skipped": skipped,
            "chunks_ok": chunks,
            "finished_at": None,
        }
    )
    _save(db, again)
    return again
