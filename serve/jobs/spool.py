"""
What `JobQueue` keeps its jobs in: a store of executions for the engine, and a spool for all that is large or ours.

Hayhooks limits what an execution carries to 1 MB, so it carries only the name of a job.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import BinaryIO, Protocol

from hayhooks.durable import ExecutionStore

from serve.jobs.model import JobInput, Source, SourceResult, SourceStatus


class FairStore(ExecutionStore, Protocol):
    """
    A store of executions that gives each owner its fair turn, and knows who waits.

    Of what is due, `claim` takes the oldest execution of the owner who has fewest running or was served longest ago.
    """

    async def nonterminal_of(self, owner_id: str) -> int:
        """Count the executions of an owner that have not ended."""

    async def others_wait(self, owner_id: str, *, revision: str) -> bool:
        """Say whether an execution of another owner is queued and due."""


class JobSpool(Protocol):
    """
    Where the sources of jobs wait, and where their outcomes and the jobs' rows are kept.

    Every method is atomic: after a crash it has happened or not. What is written is durable when it returns. All of
    them raise `hayhooks.durable.store.ExecutionStoreError` when the store fails; a repetition is then harmless.
    Positions count a job's sources from 0 in the order in which they were posted.
    """

    async def open(self) -> None:
        """Make ready what the spool needs; may be repeated after it failed."""

    async def close(self) -> None:
        """Give back what `open` took."""

    async def put(self, job: JobInput, sources: Sequence[Source], files: Mapping[str, BinaryIO]) -> bool:
        """
        Keep a new job, unless there is one of its id.

        Files are kept apart for each `(job_id, body_digest)`, so that two bodies sent under one idempotency key at
        the same time spoil nothing of each other; the row is written last and decides. Files of the one that comes
        too late are removed again, unless its digest is that of the job that is there.

        :param job: the row, with `run` 0.
        :param sources: as many as `job.total`. Their `accepted_at` is set by the store's own clock, which all processes
            share and which never goes back; so it tells what came before a deletion.
        :param files: contents by SHA-256, read from their beginning; all that `sources` name.
        :returns: False when a job of this id is there already; nothing of it is changed.
        """

    async def get(self, job_id: str) -> JobInput | None:
        """Give the row of a job."""

    async def jobs(self, tenant_id: str, limit: int, cursor: str | None) -> tuple[list[JobInput], str | None]:
        """
        Give a page of a tenant's jobs, the newest first.

        :param tenant_id: whose jobs.
        :param limit: how many at most.
        :param cursor: what the page before gave.
        :returns: the rows, and a cursor for the next page or None where there is none.
        :raises ValueError: when the cursor is none of this spool's.
        """

    async def unfinished(self, created_before: float) -> list[JobInput]:
        """Give the rows without `finished_at`, of all tenants, created before a time."""

    async def unfinished_of(self, tenant_id: str) -> list[JobInput]:
        """Give the rows of a tenant without `finished_at`."""

    async def batch(self, job_id: str, start: int, count: int) -> list[tuple[int, Source]]:
        """
        Give the next sources that are kept.

        A run works on what is kept: `finish` drops what was done, so a retry meets only the rest.

        :param job_id: a job.
        :param start: a position.
        :param count: how many sources to give at most.
        :returns: the first kept sources at or behind `start` with their positions, in order.
        """

    async def content(self, job: JobInput, sha256: str) -> bytes | None:
        """Give the content of a file of a job; None when it is gone."""

    async def put_results(self, job_id: str, results: Mapping[int, SourceResult]) -> None:
        """Note what became of sources, by position, in place of what was noted before."""

    async def sources(
        self, job_id: str, start: int, limit: int, status: Collection[SourceStatus] | None = None
    ) -> list[tuple[int, SourceResult]]:
        """
        Give what became of a job's sources.

        A kept source without an outcome is given as `PENDING`, with its document id and file name.

        :param job_id: a job.
        :param start: the first position to give.
        :param limit: how many to give at most.
        :param status: gives only sources that have one of these.
        :returns: positions and outcomes, in order.
        """

    async def finish(self, job: JobInput) -> None:
        """
        Note that a run has ended, however it did.

        Sets `finished_at` to now where it is not set. Drops sources whose outcome is `OK` or `SKIPPED`, and files that
        none of the others names. The others are kept for the spool's `staged_ttl` seconds, the row and the outcomes
        for its `job_ttl` seconds. Where the whole tenant was deleted since they were accepted, none is kept. Does
        nothing where the job is gone, or its `run` is no longer that of `job`.
        """

    async def reopen(self, job: JobInput, request_id: str, traceparent: str = "") -> JobInput | None:
        """
        Begin the next run of a finished job.

        Forgets outcomes other than `OK` and `SKIPPED`, counts those into `documents_ok`, `documents_skipped` and
        `chunks_ok`, raises `run` by one, sets `request_id` and `traceparent`, and clears `finished_at` and with it all
        expiry. Where the `run` is no longer that of `job`, somebody was quicker: changes nothing.

        :param job: the row of a finished job.
        :param request_id: the id of the request that asks for the retry.
        :param traceparent: the trace that it stands in.
        :returns: the row as it then is, or None when fewer sources are kept than are to be done.
        """

    async def forget(self, job_id: str) -> None:
        """Forget all about a job: row, sources, files and outcomes."""

    async def forget_sources(self, tenant_id: str) -> None:
        """Forget the sources and files of all jobs of a tenant that have ended; rows and outcomes stay."""

    async def expire(self) -> None:
        """
        Delete what has outlived its time, and files that a crash left without a row.

        Called at the start and then every few minutes, by every process that works on jobs. A store with expiry of its
        own has little to do here.
        """

    async def mark_deleted(self, tenant_id: str, document_id: str | None) -> None:
        """
        Remember that a document was deleted now; None stands for all documents of the tenant.

        Now is a time of the clock that `put` asks.
        Kept at least as long as any job is known that was created before.
        """

    async def deleted_since(self, tenant_id: str, document_ids: Iterable[str]) -> dict[str, float]:
        """
        Give when documents were last deleted, alone or with all of their tenant.

        :param tenant_id: whose documents.
        :param document_ids: which.
        :returns: seconds since 1970 by document id; documents that were not deleted are missing.
        """


def tombstone(document_id: str | None) -> str:
    """
    Name a deletion, as spools keep it.

    :param document_id: what was deleted; None stands for all documents of a tenant.
    :returns: a name that no other deletion has, whatever the id is: even an empty one is not all.
    """
    return "all" if document_id is None else f"d{document_id}"
