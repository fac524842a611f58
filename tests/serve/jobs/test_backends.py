"""What JobQueue promises, checked alike on one machine (SQLite) and on many (a real Redis)."""

import asyncio
import io
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from serve.jobs import (
    IdempotencyConflictError,
    Job,
    JobKind,
    JobQueue,
    JobStatus,
    NothingToRetryError,
    QueueFullError,
    QueueUnavailableError,
    SourceStatus,
    TenantQueueFullError,
)
from serve.jobs.backend import JobBackend, sqlite_backend
from serve.jobs.model import JobInput, LoadedSource, Source, SourceResult, StagedFile
from serve.jobs.redis_backend import redis_backend
from tests.redis_server import RedisServer, redis_server

SECONDS = 30.0
OpenBackend = Callable[..., JobBackend]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.server)])
def open_backend(request: pytest.FixtureRequest, tmp_path: Path) -> OpenBackend:
    def opened(**limits: int) -> JobBackend:
        if request.param == "redis":
            server: RedisServer = request.getfixturevalue("server")
            return redis_backend(server.url, tmp_path.name, **limits)
        return sqlite_backend(tmp_path, **limits)

    return opened


def index_all(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
    return [outcome(source, SourceStatus.OK, 2) for source in sources]


def outcome(source: Source, status: SourceStatus, chunks: int = 0, reason: str | None = None) -> SourceResult:
    return SourceResult(document_id=source.id, status=status, chunks=chunks, reason=reason)


def texts(count: int, begin: int = 0) -> list[Source]:
    return [Source(id=f"d{n}", accepted_at=1.0, text=f"Text {n}.") for n in range(begin, begin + count)]


def run(
    open_backend: OpenBackend,
    scenario: Callable[[JobQueue], Awaitable[None]],
    work: Any = index_all,
    limits: dict[str, int] | None = None,
    **options: Any,
) -> None:
    async def main() -> None:
        queue = JobQueue(
            work, open_backend(**(limits or {})), **{"retry_seconds": 0.01, "poll_seconds": 0.05, **options}
        )
        await queue.start()
        try:
            await scenario(queue)
        finally:
            await queue.close()

    asyncio.run(main())


async def submit(queue: JobQueue, tenant: str, sources: list[Source], **more: Any) -> Job:
    return (await queue.submit(tenant, sources, request_id="r1", **more)).job


async def finished(queue: JobQueue, job_id: str) -> Job:
    deadline = time.monotonic() + SECONDS
    while True:
        job = await queue.get(job_id)
        assert job is not None
        if job.status.finished:
            return job
        assert time.monotonic() < deadline, job
        await asyncio.sleep(0.02)


def test_a_job_is_worked_off(open_backend: OpenBackend) -> None:
    """A job is pending, is worked off in batches, and is done with everything counted and every outcome known."""
    batches: list[int] = []

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        batches.append(len(sources))
        return [
            outcome(source, SourceStatus.SKIPPED if source.id == "d3" else SourceStatus.OK, 2, "why")
            for source in sources
        ]

    async def scenario(queue: JobQueue) -> None:
        await queue.ping()
        job = await submit(queue, "acme", texts(10))
        assert (job.status, job.total, job.progress) == (JobStatus.PENDING, 10, 0.0)
        job = await finished(queue, job.job_id)
        assert (job.status, job.documents_ok, job.documents_skipped, job.chunks_ok) == ("done", 9, 1, 20)
        assert [source.document_id for source in job.sources] == [f"d{n}" for n in range(10)]
        assert job.request_id == "r1"
        assert await queue.get("0" * 32) is None

    run(open_backend, scenario, work, batch_size=4)
    assert batches == [4, 4, 2]


def test_files_come_one_at_a_time_with_their_content(open_backend: OpenBackend) -> None:
    """The content of a file is there when its turn comes; texts beside it go in batches."""
    seen: list[list[Any]] = []

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        seen.append([source.content or source.text for source in sources])
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        content = b"\x00\xff" * 3_000_000
        key = sha256(content).hexdigest()
        file = StagedFile(name="a.bin", sha256=key, size=len(content), content_type="x/y")
        sources = [*texts(2), Source(id="a.bin", accepted_at=1.0, file=file), *texts(1, 5)]
        job = await submit(queue, "acme", sources, files={key: io.BytesIO(content)})
        assert (await finished(queue, job.job_id)).status is JobStatus.DONE
        assert seen == [["Text 0.", "Text 1."], [content], ["Text 5."]]

    run(open_backend, scenario, work)


def test_a_hundred_repeats_of_one_request_are_one_job(open_backend: OpenBackend) -> None:
    """Under one idempotency key one job is made, however many ask at once; other content is a conflict."""
    calls: Counter[str] = Counter()

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        calls.update(source.id for source in sources)
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        async def ask(digest: str = "one") -> Any:
            return await queue.submit(
                "acme", texts(3), request_id="r", idempotency_key="key", body_digest=digest
            )

        answers = await asyncio.gather(*(ask() for _ in range(100)))
        assert len({answer.job.job_id for answer in answers}) == 1
        assert [answer.created for answer in answers].count(True) == 1
        await finished(queue, answers[0].job.job_id)
        again = await ask()
        assert (again.created, again.job.status) == (False, JobStatus.DONE)
        with pytest.raises(IdempotencyConflictError):
            await ask("two")

    run(open_backend, scenario, work)
    assert calls == {"d0": 1, "d1": 1, "d2": 1}


def test_a_retry_runs_what_failed(open_backend: OpenBackend) -> None:
    """The same job goes on with its failed sources only, and what it had done counts."""
    mended = threading.Event()
    worked: list[list[str]] = []

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        worked.append([source.id for source in sources])
        bad = {"d1", "d4"} if not mended.is_set() else set()
        return [
            outcome(source, SourceStatus.FAILED, 0, "bad")
            if source.id in bad
            else outcome(source, SourceStatus.OK, 1)
            for source in sources
        ]

    async def scenario(queue: JobQueue) -> None:
        job = await finished(queue, (await submit(queue, "acme", texts(6))).job_id)
        assert (job.status, job.documents_ok, job.documents_failed) == ("done", 4, 2)
        mended.set()
        again = await queue.retry(job.job_id, "r2")
        assert (again.job_id, again.status) == (job.job_id, JobStatus.PENDING)
        job = await finished(queue, job.job_id)
        assert (job.status, job.documents_ok, job.documents_failed, job.chunks_ok) == ("done", 6, 0, 6)
        assert job.request_id == "r2"
        assert all(source.status is SourceStatus.OK for source in job.sources)
        with pytest.raises(NothingToRetryError):
            await queue.retry(job.job_id, "r3")

    run(open_backend, scenario, work)
    assert worked == [[f"d{n}" for n in range(6)], ["d1", "d4"]]


def test_cancel_ends_what_waits_and_what_runs(open_backend: OpenBackend) -> None:
    """A pending job is cancelled at once, a running one after its batch; both say what was done, and can be retried."""
    started, gate = threading.Event(), threading.Event()

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        started.set()
        gate.wait(SECONDS)
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        running = await submit(queue, "acme", texts(4))
        await asyncio.to_thread(started.wait, SECONDS)
        pending = await submit(queue, "acme", texts(4))
        after = await queue.cancel(pending.job_id)
        assert after is not None
        assert after.status is JobStatus.CANCELLED
        asking = asyncio.create_task(queue.cancel(running.job_id))
        await asyncio.sleep(0.1)
        gate.set()
        await asking
        job = await finished(queue, running.job_id)
        assert (job.status, job.documents_ok) == (JobStatus.CANCELLED, 1)
        assert [source.status for source in job.sources] == ["ok", "cancelled", "cancelled", "cancelled"]
        await queue.retry(running.job_id, "r2")
        job = await finished(queue, running.job_id)
        assert (job.status, job.documents_ok, job.chunks_ok) == (JobStatus.DONE, 4, 8)
        assert await queue.cancel("0" * 32) is None

    run(open_backend, scenario, work, batch_size=1, workers=1)


def test_cancel_tells_what_a_failed_batch_has_written(open_backend: OpenBackend) -> None:
    """Where a batch failed and its documents are tried one by one, a cancel finds those told that are written."""
    written: list[str] = []
    started, gate = threading.Event(), threading.Event()

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        if len(sources) > 1:
            raise ValueError("one of them is bad")
        if sources[0].id == "d3":
            started.set()
            gate.wait(SECONDS)
        written.append(sources[0].id)
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        job_id = (await submit(queue, "acme", texts(10))).job_id
        await asyncio.to_thread(started.wait, SECONDS)
        asking = asyncio.create_task(queue.cancel(job_id))
        await asyncio.sleep(0.1)
        gate.set()
        await asking
        job = await finished(queue, job_id)
        assert (job.status, job.documents_ok) == (JobStatus.CANCELLED, 4)
        told = [source.document_id for source in job.sources if source.status is SourceStatus.OK]
        assert told == written == ["d0", "d1", "d2", "d3"]

    run(open_backend, scenario, work)


def test_limits_of_the_service_and_of_a_tenant(open_backend: OpenBackend) -> None:
    """A tenant's job too many is refused, then anybody's; when jobs end there is room again."""
    gate = threading.Event()

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        gate.wait(SECONDS)
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        jobs = [await submit(queue, "acme", texts(1)) for _ in range(2)]
        with pytest.raises(TenantQueueFullError):
            await queue.room("acme")
        with pytest.raises(TenantQueueFullError):
            await submit(queue, "acme", texts(1))
        jobs.append(await submit(queue, "other", texts(1)))
        with pytest.raises(QueueFullError):
            await queue.room()
        with pytest.raises(QueueFullError):
            await submit(queue, "third", texts(1))
        gate.set()
        for job in jobs:
            await finished(queue, job.job_id)
        await queue.room("acme")
        assert (
            await finished(queue, (await submit(queue, "acme", texts(1))).job_id)
        ).status is JobStatus.DONE

    run(open_backend, scenario, work, limits={"max_jobs": 3}, max_jobs_per_tenant=2)


def test_a_long_job_lets_others_go_first(open_backend: OpenBackend) -> None:
    """One document of another tenant is indexed long before the thousands that came earlier are."""
    order: list[str] = []

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        time.sleep(0.01)
        order.extend(job.tenant_id for _ in sources)
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        large = [await submit(queue, "large", texts(30)) for _ in range(3)]
        small = await submit(queue, "small", texts(1))
        await finished(queue, small.job_id)
        job = await queue.get(large[0].job_id)
        assert job is not None
        assert not job.status.finished
        for each in large:
            job = await finished(queue, each.job_id)
            assert (job.status, job.documents_ok, job.attempts) == (JobStatus.DONE, 30, 1)

    run(open_backend, scenario, work, batch_size=1, workers=1, slice_seconds=0.05)
    assert order.index("small") < 20


def test_jobs_are_listed_newest_first(open_backend: OpenBackend) -> None:
    """A tenant's jobs come in pages, the newest first, and by status."""

    async def scenario(queue: JobQueue) -> None:
        ids = [(await submit(queue, "acme", texts(1))).job_id for _ in range(5)]
        await submit(queue, "other", texts(1))
        for job_id in ids:
            await finished(queue, job_id)
        page, cursor = await queue.list("acme", limit=3)
        rest, end = await queue.list("acme", limit=3, cursor=cursor)
        assert [job.job_id for job in (*page, *rest)] == ids[::-1]
        assert end is None
        assert (await queue.list("acme", JobStatus.FAILED))[0] == []
        assert len((await queue.list("acme", JobStatus.DONE))[0]) == 5

    run(open_backend, scenario)


def test_unfinished_jobs_of_a_tenant(open_backend: OpenBackend) -> None:
    """A tenant's jobs that have not ended are found by their kind, without a look at all that have."""
    gate = threading.Event()

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        gate.wait(SECONDS)
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        ingest = await submit(queue, "acme", texts(1))
        reindex = await submit(queue, "acme", texts(1), kind=JobKind.REINDEX)
        other = await submit(queue, "other", texts(1), kind=JobKind.REINDEX)
        found = {job.job_id for job in await queue.unfinished("acme")}
        assert found == {ingest.job_id, reindex.job_id}
        assert [job.job_id for job in await queue.unfinished("acme", JobKind.REINDEX)] == [reindex.job_id]
        gate.set()
        for job in (ingest, reindex, other):
            await finished(queue, job.job_id)
        assert not await queue.unfinished("acme")

    run(open_backend, scenario, work)


def test_transient_faults_are_waited_out(open_backend: OpenBackend) -> None:
    """A store that doesn't answer costs no document; the job goes on with the same batch."""
    calls: list[str] = []

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        calls.append(sources[0].id)
        if 1 < len(calls) < 4:
            raise RuntimeError("the pipeline failed") from ConnectionRefusedError("no answer")
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        job = await finished(queue, (await submit(queue, "acme", texts(4))).job_id)
        assert (job.status, job.documents_ok, job.chunks_ok) == (JobStatus.DONE, 4, 8)

    run(open_backend, scenario, work, batch_size=2)
    assert calls == ["d0", "d2", "d2", "d2"]


def test_deleted_documents_are_remembered(open_backend: OpenBackend) -> None:
    """Work may ask from its thread which documents were deleted since."""
    found: list[dict[str, float]] = []

    async def scenario(queue: JobQueue) -> None:
        await queue.mark_deleted("acme", "d1")
        found.append(await queue.deleted_since("acme", ["d0", "d1"]))
        found.append(await asyncio.to_thread(lambda: queue.call(queue.deleted_since("acme", ["d1"]))))

    run(open_backend, scenario)
    assert [list(each) for each in found] == [["d1"], ["d1"]]


def test_unfinished_jobs_go_on_in_the_next_process(open_backend: OpenBackend) -> None:
    """A closing queue hands its job back at the end of the batch, and another one goes on from there."""
    seen: list[str] = []
    under_way = threading.Event()

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        seen.extend(source.id for source in sources)
        under_way.set()
        time.sleep(0.05)
        return index_all(job, sources)

    ids: list[str] = []

    async def begin(queue: JobQueue) -> None:
        ids.append((await submit(queue, "acme", texts(20))).job_id)
        await asyncio.to_thread(under_way.wait, SECONDS)

    async def end(queue: JobQueue) -> None:
        job = await finished(queue, ids[0])
        assert (job.status, job.documents_ok) == (JobStatus.DONE, 20)

    run(open_backend, begin, work, batch_size=2)
    assert len(seen) < 20
    run(open_backend, end, work, batch_size=2)
    assert seen == [f"d{n}" for n in range(20)]


@pytest.mark.server
def test_one_process_accepts_and_another_works(server: RedisServer, tmp_path: Path) -> None:
    """A queue that only accepts leaves its jobs to one that works, and sees how they go."""

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            accepting, working = (
                JobQueue(index_all, redis_backend(server.url, tmp_path.name), works=works, poll_seconds=0.05)
                for works in (False, True)
            )
            await accepting.start()
            stack.push_async_callback(accepting.close)
            job = await submit(accepting, "acme", texts(5))
            await asyncio.sleep(0.3)
            waiting = await accepting.get(job.job_id)
            assert waiting is not None
            assert waiting.status is JobStatus.PENDING
            await working.start()
            stack.push_async_callback(working.close)
            assert (await finished(accepting, job.job_id)).documents_ok == 5

    asyncio.run(scenario())


@pytest.mark.server
def test_start_fails_until_redis_is_there(tmp_path: Path) -> None:
    """A queue that was started while Redis was away says so, refuses jobs, and starts when Redis has come."""

    async def scenario(running: RedisServer) -> None:
        queue = JobQueue(index_all, redis_backend(running.url, tmp_path.name), poll_seconds=0.05)
        running.kill()
        for _ in range(2):
            with pytest.raises(QueueUnavailableError, match="Redis"):
                await queue.start()
        with pytest.raises(QueueUnavailableError):
            await submit(queue, "acme", texts(1))
        with pytest.raises(QueueUnavailableError):
            await queue.ping()
        running.start()
        await queue.start()
        assert (
            await finished(queue, (await submit(queue, "acme", texts(1))).job_id)
        ).status is JobStatus.DONE
        await queue.close()

    with redis_server() as running:
        asyncio.run(scenario(running))
