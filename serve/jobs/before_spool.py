"""JobSpool: the documents of a job until it is done, as Hayhooks limits what an execution carries to 1 MB."""

import json
import sqlite3
import time
from collections.abc import Iterable
from typing import Any, Protocol

from serve.jobs.database import JobDatabase

Document = dict[str, Any]


class JobSpool(Protocol):
    """Where documents wait for their job."""

    async def open(self) -> None:
        """Make ready what the spool needs."""

    async def put(self, job_id: str, documents: list[Document], request_id: str) -> None:
        """Keep the documents of a new job durably."""

    async def batch(self, job_id: str, start: int, count: int) -> list[Document]:
        """Give documents of a job from a position on."""

    async def request_id(self, job_id: str) -> str:
        """Give the id of the request that brought the job, or ""."""

    async def drop_documents(self, job_ids: Iterable[str]) -> None:
        """Forget the documents of jobs, but not their request ids."""

    async def known_jobs(self, *, older_than_seconds: float) -> dict[str, bool]:
        """Give the ids of all jobs known for that long, and whether documents of them are kept."""

    async def forget(self, job_ids: Iterable[str]) -> None:
        """Forget all about these jobs."""


class SqliteJobSpool:
    """
    A spool in the job database.

    Usage example:
    ```python
    spool = SqliteJobSpool(JobDatabase(Path("data/jobs.sqlite3")))
    await spool.open()
    await spool.put(job_id, [{"id": "a", "text": "Some text.", "title": None, "meta": {}}], request_id)
    first_sixteen = await spool.batch(job_id, 0, 16)
    ```
    """

    def __init__(self, database: JobDatabase) -> None:
        """
        :param database: the file.
        """
        self._database = database

    async def open(self) -> None:
        await self._database.open()

    async def put(self, job_id: str, documents: list[Document], request_id: str) -> None:
        """
        Keep the documents of a new job, in one durable commit.

        :param job_id: a new id.
        :param documents: JSON values.
        :param request_id: the id of the request that brought them.
        :raises ValueError: when a document has a number that JSON doesn't know (NaN, infinity).
        :raises TypeError: when a document is no JSON value.
        """

        def insert(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO spooled_jobs (job_id, request_id, spooled_at) VALUES (?, ?, ?)",
                (job_id, request_id, int(time.time())),
            )
            # ASCII JSON also holds what UTF-8 can't: lone surrogates, which come in by JSON escapes.
            db.executemany(
                "INSERT INTO spooled_documents (job_id, position, document) VALUES (?, ?, ?)",
                (
                    (job_id, position, json.dumps(document, allow_nan=False))
                    for position, document in enumerate(documents)
                ),
            )

        await self._database.write(insert)

    async def batch(self, job_id: str, start: int, count: int) -> list[Document]:
        """
        :param job_id: a job.
        :param start: the position of the first document, counted from 0.
        :param count: how many documents to give at most.
        :returns: the documents in the order in which they were posted.
        """
        rows = await self._database.read(
            lambda db: db.execute(
                "SELECT document FROM spooled_documents WHERE job_id = ? AND position >= ? AND position < ?"
                " ORDER BY position",
                (job_id, start, start + count),
            ).fetchall()
        )
        return [json.loads(document) for (document,) in rows]

    async def request_id(self, job_id: str) -> str:
        row = await self._database.read(
            lambda db: db.execute(
                "SELECT request_id FROM spooled_jobs WHERE job_id = ?", (job_id,)
            ).fetchone()
        )
        return "" if row is None else row[0]

    async def drop_documents(self, job_ids: Iterable[str]) -> None:
        rows = [(job_id,) for job_id in job_ids]
        await self._database.write(
            lambda db: db.executemany("DELETE FROM spooled_documents WHERE job_id = ?", rows)
        )

    async def known_jobs(self, *, older_than_seconds: float) -> dict[str, bool]:
        """
        :param older_than_seconds: leaves out jobs that came later.
        :returns: the ids of jobs, and whether documents of them are kept.
        """
        latest = time.time() - older_than_seconds
        rows = await self._database.read(
            lambda db: db.execute(
                "SELECT job_id, EXISTS (SELECT 1 FROM spooled_documents AS d WHERE d.job_id = j.job_id)"
                " FROM spooled_jobs AS j WHERE spooled_at <= ?",
                (latest,),
            ).fetchall()
        )
        return {job_id: bool(has_documents) for job_id, has_documents in rows}

    async def forget(self, job_ids: Iterable[str]) -> None:
        rows = [(job_id,) for job_id in job_ids]
        await self._database.write(
            lambda db: db.executemany("DELETE FROM spooled_jobs WHERE job_id = ?", rows)
        )
