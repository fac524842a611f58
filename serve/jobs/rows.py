"""JobRows: how jobs, their sources and what became of them lie in the tables of the job database."""

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serve.jobs.model import JobInput, Source, SourceResult, SourceStatus
from serve.jobs.spool import tombstone

DONE = (SourceStatus.OK, SourceStatus.SKIPPED)
SEQ = "(SELECT seq FROM jobs WHERE job_id = :job_id)"


class JobRows:
    """The jobs of a database, within one transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """
        :param db: a connection inside a transaction.
        """
        self._db = db

    def insert(self, job: JobInput, sources: Sequence[Source]) -> bool:
        """
        :param job: a new job's row.
        :param sources: its sources; they get the time.
        :returns: False when there is a job of this id; nothing is changed then.
        """
        row = self._db.execute(
            "INSERT INTO jobs (job_id, tenant_id, created_at, staged, job) VALUES (?, ?, ?, 1, ?)"
            " ON CONFLICT DO NOTHING RETURNING seq",
            (job.job_id, job.tenant_id, job.created_at, job.model_dump_json()),
        ).fetchone()
        if row is None:
            return False
        now = self._now()
        for source in sources:
            source.accepted_at = now
        self._db.executemany(
            "INSERT INTO sources (job, position, sha256, source) VALUES (?, ?, ?, ?)",
            (
                (row[0], position, source.file and source.file.sha256, source.model_dump_json())
                for position, source in enumerate(sources)
            ),
        )
        return True

    def load(self, job_id: str) -> JobInput | None:
        row = self._db.execute("SELECT job FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        return None if row is None else decode(row[0])

    def load_run(self, job: JobInput) -> JobInput | None:
        """
        :param job: a row as it was.
        :returns: the row as it is, or None where the job is gone or in another run.
        """
        there = self.load(job.job_id)
        return there if there is not None and there.run == job.run else None

    def save(self, job: JobInput) -> None:
        self._db.execute(
            "UPDATE jobs SET finished_at = ?, job = ? WHERE job_id = ?",
            (job.finished_at, job.model_dump_json(), job.job_id),
        )

    def delete(self, job_id: str) -> None:
        self._db.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))

    def newest(self, tenant_id: str, before: int, limit: int) -> list[tuple[int, JobInput]]:
        """
        :param tenant_id: whose jobs.
        :param before: the number of a job; 2**63 - 1 is before none.
        :param limit: how many at most.
        :returns: jobs with their numbers, the newest first.
        """
        rows = self._db.execute(
            "SELECT seq, job FROM jobs WHERE tenant_id = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
            (tenant_id, before, limit),
        )
        return [(seq, decode(job)) for seq, job in rows]

    def unfinished(self, created_before: float) -> list[JobInput]:
        rows = self._db.execute(
            "SELECT job FROM jobs WHERE finished_at IS NULL AND created_at < ? ORDER BY created_at",
            (created_before,),
        )
        return [decode(job) for (job,) in rows]

    def unfinished_of(self, tenant_id: str) -> list[JobInput]:
        rows = self._db.execute(
            "SELECT job FROM jobs WHERE finished_at IS NULL AND tenant_id = ? ORDER BY created_at",
            (tenant_id,),
        )
        return [decode(job) for (job,) in rows]

    def staged(self) -> list[JobInput]:
        """Give the jobs whose sources may be kept."""
        return [decode(job) for (job,) in self._db.execute("SELECT job FROM jobs WHERE staged")]

    def batch(self, job_id: str, start: int, count: int) -> list[tuple[int, str]]:
        return self._db.execute(
            f"SELECT position, source FROM sources WHERE job = {SEQ} AND position >= :start"
            " ORDER BY position LIMIT :count",
            {"job_id": job_id, "start": start, "count": count},
        ).fetchall()

    def put_results(self, job_id: str, results: Mapping[int, SourceResult]) -> None:
        row = self._db.execute("SELECT seq FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        if row is not None:
            self._db.executemany(
                "INSERT OR REPLACE INTO outcomes (job, position, status, chunks, outcome) VALUES (?, ?, ?, ?, ?)",
                [
                    (row[0], position, result.status, result.chunks, result.model_dump_json())
                    for position, result in results.items()
                ],
            )

    def outcomes(
        self, job_id: str, start: int, limit: int, status: set[SourceStatus]
    ) -> list[tuple[int, str | None, str | None]]:
        """
        :param job_id: a job.
        :param start: the first position to give.
        :param limit: how many to give at most.
        :param status: gives only sources that have one of these.
        :returns: positions, each with an outcome, or with a source that has none yet.
        """
        named = {f"status{n}": one for n, one in enumerate(status)}
        query = (
            f"SELECT position, outcome, NULL FROM outcomes WHERE job = {SEQ} AND position >= :start"
            f" AND status IN ({', '.join(f':{name}' for name in named)})"
        )
        if SourceStatus.PENDING in status:
            query += (
                f" UNION ALL SELECT position, NULL, source FROM sources WHERE job = {SEQ} AND position >= :start"
                " AND NOT EXISTS (SELECT 1 FROM outcomes"
                " WHERE outcomes.job = sources.job AND outcomes.position = sources.position)"
            )
        values: dict[str, Any] = {"job_id": job_id, "start": start, "limit": limit, **named}
        return self._db.execute(f"{query} ORDER BY position LIMIT :limit", values).fetchall()

    def drop_done(self, job: JobInput) -> list[str]:
        """
        :param job: a job; its sources that were done are deleted, and all where the tenant was dropped since.
        :returns: the SHA-256 of the files that the others name.
        """
        job_id = job.job_id
        self._db.execute(
            f"DELETE FROM sources WHERE job = {SEQ} AND json_extract(source, '$.accepted_at') <"
            " (SELECT deleted_at FROM deletions WHERE tenant_id = :tenant_id AND document_id = :all)",
            {"job_id": job_id, "tenant_id": job.tenant_id, "all": tombstone(None)},
        )
        self._db.execute(
            f"DELETE FROM sources WHERE job = {SEQ} AND position IN"
            f" (SELECT position FROM outcomes WHERE job = {SEQ} AND status IN (:ok, :skipped))",
            {"job_id": job_id, "ok": DONE[0], "skipped": DONE[1]},
        )
        rows = self._db.execute(
            f"SELECT DISTINCT sha256 FROM sources WHERE job = {SEQ} AND sha256 IS NOT NULL",
            {"job_id": job_id},
        )
        return [sha256 for (sha256,) in rows]

    def drop_outcomes_of_the_rest(self, job_id: str) -> None:
        self._db.execute(
            f"DELETE FROM outcomes WHERE job = {SEQ} AND status NOT IN (:ok, :skipped)",
            {"job_id": job_id, "ok": DONE[0], "skipped": DONE[1]},
        )

    def kept(self, job_id: str) -> int:
        """Count the sources of a job that are kept."""
        return self._db.execute(
            f"SELECT COUNT(*) FROM sources WHERE job = {SEQ}", {"job_id": job_id}
        ).fetchone()[0]

    def counts(self, job_id: str) -> dict[str, tuple[int, int]]:
        """Count outcomes and chunks of a job, by status."""
        rows = self._db.execute(
            f"SELECT status, COUNT(*), SUM(chunks) FROM outcomes WHERE job = {SEQ} GROUP BY status",
            {"job_id": job_id},
        )
        return {status: (number, chunks) for status, number, chunks in rows}

    def expire_jobs(self, finished_before: float, limit: int) -> list[JobInput]:
        """Delete some jobs that ended before a time, and give them."""
        rows = self._db.execute(
            "DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE finished_at < ? LIMIT ?) RETURNING job",
            (finished_before, limit),
        ).fetchall()
        return [decode(job) for (job,) in rows]

    def expire_sources(self, finished_before: float, limit: int) -> list[JobInput]:
        """Delete the sources of some jobs that ended before a time, and give those jobs."""
        return self._drop_sources("finished_at < ?", finished_before, limit)

    def drop_sources_of(self, tenant_id: str, limit: int) -> list[JobInput]:
        """Delete the sources of some jobs of a tenant that have ended, and give those jobs."""
        return self._drop_sources("tenant_id = ? AND finished_at IS NOT NULL", tenant_id, limit)

    def _drop_sources(self, condition: str, value: float | str, limit: int) -> list[JobInput]:
        rows = self._db.execute(
            "UPDATE jobs SET staged = 0 WHERE seq IN"
            f" (SELECT seq FROM jobs WHERE {condition} AND staged LIMIT ?) RETURNING seq, job",
            (value, limit),
        ).fetchall()
        self._db.executemany("DELETE FROM sources WHERE job = ?", [(seq,) for seq, _ in rows])
        return [decode(job) for _, job in rows]

    def mark_deleted(self, tenant_id: str, document_id: str | None) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO deletions (tenant_id, document_id, deleted_at) VALUES (?, ?, ?)",
            (tenant_id, tombstone(document_id), self._now()),
        )

    def deleted_since(self, tenant_id: str, document_ids: Iterable[str]) -> dict[str, float]:
        latest = {
            document_id: self._db.execute(
                "SELECT MAX(deleted_at) FROM deletions WHERE tenant_id = ? AND document_id IN (?, ?)",
                (tenant_id, tombstone(None), tombstone(document_id)),
            ).fetchone()[0]
            for document_id in document_ids
        }
        return {document_id: time for document_id, time in latest.items() if time is not None}

    def forget_deletions(self, now: float, earlier: float) -> None:
        """
        Forget deletions that no job can undo.

        :param now: a job that comes now may undo later ones.
        :param earlier: for how many seconds a document may have been accepted before its job was there.
        """
        self._db.execute(
            "DELETE FROM deletions WHERE deleted_at <"
            " COALESCE((SELECT created_at FROM jobs ORDER BY seq LIMIT 1), :now) - :earlier",
            {"now": now, "earlier": earlier},
        )

    def _now(self) -> float:
        """Give a time later than any given before, whatever the machine's clock is set to."""
        return self._db.execute(
            "INSERT INTO clock VALUES (1, ?)"
            " ON CONFLICT DO UPDATE SET last = MAX(excluded.last, last + 0.000001) RETURNING last",
            (time.time(),),
        ).fetchone()[0]


def decode(job: str) -> JobInput:
    return JobInput.model_validate_json(job)
