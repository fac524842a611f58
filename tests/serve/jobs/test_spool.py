"""What every JobSpool promises, checked on SQLite and on a real Redis."""

import asyncio
import hashlib
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hayhooks.durable.store import ExecutionStoreError

from serve.jobs.database import JobDatabase
from serve.jobs.model import JobInput, Source, SourceResult, SourceStatus, StagedFile
from serve.jobs.redis_client import open_redis
from serve.jobs.redis_spool import RedisJobSpool
from serve.jobs.spool import JobSpool
from serve.jobs.sqlite_spool import SqliteJobSpool
from tests.redis_server import RedisServer, redis_server

OpenSpool = Callable[..., AbstractAsyncContextManager[JobSpool]]
Scenario = Callable[[JobSpool], Awaitable[None]]

JOB = "a" * 32
OTHER = "b" * 32
SMALL, LARGE = b"small", b"large " * 1_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.server)])
def open_spool(request: pytest.FixtureRequest, tmp_path: Path) -> OpenSpool:
    @asynccontextmanager
    async def opened(job_ttl: int = 100, staged_ttl: int = 100) -> AsyncIterator[JobSpool]:
        ttls = {"job_ttl": job_ttl, "staged_ttl": staged_ttl}
        spool: JobSpool
        if request.param == "redis":
            server: RedisServer = request.getfixturevalue("server")
            spool = RedisJobSpool(open_redis(server.url), tmp_path.name, **ttls)
        else:
            spool = SqliteJobSpool(JobDatabase(tmp_path / "jobs.sqlite3"), tmp_path / "staged", **ttls)
        await spool.open()
        try:
            yield spool
        finally:
            await spool.close()

    return opened


def run(open_spool: OpenSpool, scenario: Scenario, **options: int) -> None:
    async def main() -> None:
        async with open_spool(**options) as spool:
            await scenario(spool)

    asyncio.run(main())


def new_job(job_id: str = JOB, *, total: int = 3, tenant: str = "acme", at: float | None = None) -> JobInput:
    return JobInput(
        job_id=job_id,
        tenant_id=tenant,
        total=total,
        created_at=time.time() if at is None else at,
        request_id="r1",
    )


def texts(count: int = 3) -> list[Source]:
    return [
        Source(id=f"d{n}", title=None, meta={"n": n}, accepted_at=1.5, text=f"Text {n} \u00e4.")
        for n in range(count)
    ]


def file_source(name: str, content: bytes) -> Source:
    staged = StagedFile(name=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    return Source(id=name, accepted_at=1.5, file=staged)


def sha(source: Source) -> str:
    assert source.file is not None
    return source.file.sha256


def outcome(
    document_id: str, status: SourceStatus, chunks: int = 0, reason: str | None = None
) -> SourceResult:
    return SourceResult(document_id=document_id, status=status, chunks=chunks, reason=reason)


def test_sources_come_back_as_they_were(open_spool: OpenSpool) -> None:
    """A job's row and sources are given as they were put, in order and in parts."""

    async def scenario(spool: JobSpool) -> None:
        job, sources = new_job(total=1_200), texts(1_200)
        assert await spool.put(job, sources, {})
        assert await spool.get(JOB) == job
        assert await spool.get(OTHER) is None
        assert await spool.batch(JOB, 0, 2) == [(0, sources[0]), (1, sources[1])]
        assert await spool.batch(JOB, 1_198, 10) == [(1_198, sources[1_198]), (1_199, sources[1_199])]
        assert await spool.batch(OTHER, 0, 2) == []

    run(open_spool, scenario)


def test_files_are_kept_by_hash(open_spool: OpenSpool) -> None:
    """Files come back byte for byte, also such that are larger than one part."""

    async def scenario(spool: JobSpool) -> None:
        sources = [file_source("a.txt", SMALL), file_source("b.txt", LARGE), file_source("c.txt", b"")]
        files = {
            sha(source): io.BytesIO(content)
            for source, content in zip(sources, [SMALL, LARGE, b""], strict=True)
        }
        job = new_job()
        assert await spool.put(job, sources, files)
        assert [source for _, source in await spool.batch(JOB, 0, 3)] == sources
        assert [await spool.content(job, sha(source)) for source in sources] == [SMALL, LARGE, b""]
        assert await spool.content(job, "0" * 64) is None

    run(open_spool, scenario)


def test_first_job_of_an_id_stays(open_spool: OpenSpool) -> None:
    """Of a hundred that put a job of one id at once, one does; nothing of the others is kept."""

    async def scenario(spool: JobSpool) -> None:
        rows = [new_job(at=float(n)) for n in range(100)]
        sources = [[Source(id=f"d{n}", accepted_at=n, text=str(n))] * 3 for n in range(100)]
        taken = await asyncio.gather(*(spool.put(row, of, {}) for row, of in zip(rows, sources, strict=True)))
        assert taken.count(True) == 1
        winner = taken.index(True)
        assert await spool.get(JOB) == rows[winner]
        assert [source for _, source in await spool.batch(JOB, 0, 10)] == sources[winner]

    run(open_spool, scenario)


def test_other_body_under_the_same_id_spoils_no_file(open_spool: OpenSpool) -> None:
    """A second body comes too late with other files; those of the first stay."""

    async def scenario(spool: JobSpool) -> None:
        first, second = file_source("a.txt", SMALL), file_source("a.txt", b"another")
        job = new_job(total=1).model_copy(update={"body_digest": "one"})
        assert await spool.put(job, [first], {sha(first): io.BytesIO(SMALL)})
        late = job.model_copy(update={"body_digest": "two"})
        assert not await spool.put(late, [second], {sha(second): io.BytesIO(b"another")})
        assert not await spool.put(job, [first], {sha(first): io.BytesIO(SMALL)})
        assert await spool.content(job, sha(first)) == SMALL
        assert await spool.content(job, sha(second)) is None

    run(open_spool, scenario)


def test_outcomes_by_position_and_status(open_spool: OpenSpool) -> None:
    """Outcomes are given in order, filtered by status, and pending where there is none yet."""

    async def scenario(spool: JobSpool) -> None:
        await spool.put(new_job(total=4), [*texts(3), file_source("f.txt", SMALL)], {})
        await spool.put_results(
            JOB, {0: outcome("d0", SourceStatus.OK, 2), 2: outcome("d2", SourceStatus.FAILED, reason="bad")}
        )
        found = await spool.sources(JOB, 0, 10)
        assert [(position, result.status, result.document_id) for position, result in found] == [
            (0, "ok", "d0"),
            (1, "pending", "d1"),
            (2, "failed", "d2"),
            (3, "pending", "f.txt"),
        ]
        assert found[3][1].name == "f.txt"
        assert found[2][1].reason == "bad"
        assert [position for position, _ in await spool.sources(JOB, 1, 2)] == [1, 2]
        only = {SourceStatus.FAILED, SourceStatus.OK}
        assert [position for position, _ in await spool.sources(JOB, 0, 10, only)] == [0, 2]
        assert [position for position, _ in await spool.sources(JOB, 0, 10, {SourceStatus.PENDING})] == [1, 3]
        await spool.put_results(JOB, {2: outcome("d2", SourceStatus.OK, 1)})
        assert [position for position, _ in await spool.sources(JOB, 0, 10, only)] == [0, 2]
        assert await spool.sources(JOB, 0, 10, {SourceStatus.FAILED}) == []
        assert await spool.sources(OTHER, 0, 10) == []

    run(open_spool, scenario)


def test_what_was_done_is_dropped_at_the_end(open_spool: OpenSpool) -> None:
    """A finished job keeps its outcomes, and of its sources and files those that were not done."""

    async def scenario(spool: JobSpool) -> None:
        sources = [file_source("a.txt", SMALL), file_source("b.txt", LARGE), file_source("c.txt", SMALL)]
        files = {
            sha(source): io.BytesIO(content)
            for source, content in zip(sources, [SMALL, LARGE, SMALL], strict=True)
        }
        job = new_job()
        await spool.put(job, sources, files)
        await spool.put_results(
            JOB,
            {
                0: outcome("a.txt", SourceStatus.OK, 1),
                1: outcome("b.txt", SourceStatus.SKIPPED),
                2: outcome("c.txt", SourceStatus.FAILED),
            },
        )
        assert [row.job_id for row in await spool.unfinished(time.time() + 1)] == [JOB]
        assert [row.job_id for row in await spool.unfinished_of("acme")] == [JOB]
        assert await spool.unfinished_of("other") == []
        await spool.finish(job)
        assert await spool.unfinished_of("acme") == []
        ended = await spool.get(JOB)
        assert ended is not None
        assert ended.finished_at is not None
        assert await spool.unfinished(time.time() + 1) == []
        assert await spool.batch(JOB, 0, 10) == [(2, sources[2])]
        assert [await spool.content(job, sha(source)) for source in sources] == [SMALL, None, SMALL]
        assert len(await spool.sources(JOB, 0, 10)) == 3

    run(open_spool, scenario)


def test_retry_begins_with_what_was_not_done(open_spool: OpenSpool) -> None:
    """The next run has a number of its own, the sources that were not done, and counts of what was."""

    async def scenario(spool: JobSpool) -> None:
        job = new_job(total=4)
        await spool.put(job, texts(4), {})
        await spool.put_results(
            JOB,
            {
                0: outcome("d0", SourceStatus.OK, 5),
                1: outcome("d1", SourceStatus.FAILED, reason="bad"),
                2: outcome("d2", SourceStatus.SKIPPED),
                3: outcome("d3", SourceStatus.CANCELLED),
            },
        )
        await spool.finish(job)
        ended = await spool.get(JOB)
        assert ended is not None
        begun = await spool.reopen(ended, "r2", "00-trace-2")
        assert begun is not None
        assert (begun.run, begun.request_id, begun.finished_at) == (1, "r2", None)
        assert begun.traceparent == "00-trace-2"
        assert (begun.documents_ok, begun.documents_skipped, begun.chunks_ok) == (1, 1, 5)
        assert await spool.reopen(ended, "r3") == begun
        assert [position for position, _ in await spool.batch(JOB, 0, 10)] == [1, 3]
        found = await spool.sources(JOB, 0, 10)
        assert [result.status for _, result in found] == ["ok", "pending", "skipped", "pending"]
        assert (found[1][1].document_id, found[1][1].reason) == ("d1", None)
        await spool.finish(job)
        assert await spool.get(JOB) == begun, "the end of an earlier run must not end a later one"
        assert [row.job_id for row in await spool.unfinished(time.time() + 1)] == [JOB]
        assert await spool.unfinished_of("acme") == [begun]

    run(open_spool, scenario)


def test_retry_needs_the_sources(open_spool: OpenSpool) -> None:
    """When the sources have outlived their time, the outcomes are still known and a retry is refused."""

    async def scenario(spool: JobSpool) -> None:
        job = new_job()
        await spool.put(job, texts(), {})
        await spool.put_results(JOB, {n: outcome(f"d{n}", SourceStatus.FAILED) for n in range(3)})
        await spool.finish(job)
        ended = await spool.get(JOB)
        assert ended is not None
        await asyncio.sleep(1.2)
        await spool.expire()
        assert await spool.reopen(ended, "r2") is None
        assert len(await spool.sources(JOB, 0, 10)) == 3
        assert await spool.get(JOB) == ended

    run(open_spool, scenario, staged_ttl=1)


def test_finished_jobs_expire(open_spool: OpenSpool) -> None:
    """A finished job is forgotten after its time, an unfinished one never."""

    async def scenario(spool: JobSpool) -> None:
        await spool.put(new_job(JOB), texts(), {})
        await spool.put(new_job(OTHER), texts(), {})
        await spool.finish(new_job(JOB))
        await asyncio.sleep(1.2)
        await spool.expire()
        assert await spool.get(JOB) is None
        assert await spool.sources(JOB, 0, 10) == []
        assert await spool.get(OTHER) is not None
        assert [row.job_id for row in (await spool.jobs("acme", 10, None))[0]] == [OTHER]

    run(open_spool, scenario, job_ttl=1, staged_ttl=1)


def test_jobs_are_listed_newest_first(open_spool: OpenSpool) -> None:
    """A tenant's jobs come in pages, the newest first, and without another tenant's."""

    async def scenario(spool: JobSpool) -> None:
        ids = [f"{n:032x}" for n in range(7)]
        for n, job_id in enumerate(ids):
            await spool.put(new_job(job_id, at=1_000.0 + n // 2), texts(), {})
        await spool.put(new_job(OTHER, tenant="else"), texts(), {})
        seen, cursor = [], None
        while True:
            page, cursor = await spool.jobs("acme", 3, cursor)
            seen += [row.job_id for row in page]
            if cursor is None:
                break
        assert sorted(seen) == ids
        assert [int(job_id, 16) // 2 for job_id in seen] == [3, 2, 2, 1, 1, 0, 0]
        assert await spool.jobs("nobody", 3, None) == ([], None)
        with pytest.raises(ValueError, match="cursor"):
            await spool.jobs("acme", 3, "nonsense")

    run(open_spool, scenario)


def test_an_id_that_is_used_again_is_listed_once(open_spool: OpenSpool) -> None:
    """When a job has expired and its idempotency key is used again, only the new job is listed."""

    async def scenario(spool: JobSpool) -> None:
        old = new_job(at=1_000.0)
        await spool.put(old, texts(), {})
        await spool.finish(old)
        await asyncio.sleep(1.2)
        if isinstance(spool, SqliteJobSpool):
            await spool.expire()  # without it, the id is not free
        new = new_job()
        assert await spool.put(new, texts(), {})
        assert await spool.jobs("acme", 10, None) == ([new], None)
        await spool.expire()
        assert await spool.jobs("acme", 10, None) == ([new], None)

    run(open_spool, scenario, job_ttl=1, staged_ttl=1)


def test_forgotten_jobs_leave_nothing(open_spool: OpenSpool) -> None:
    """A job that was forgotten is in no list any more."""

    async def scenario(spool: JobSpool) -> None:
        source = file_source("a.txt", SMALL)
        job = new_job(total=1)
        await spool.put(job, [source], {sha(source): io.BytesIO(SMALL)})
        await spool.forget(JOB)
        assert await spool.get(JOB) is None
        assert await spool.batch(JOB, 0, 10) == []
        assert await spool.content(job, sha(source)) is None
        assert await spool.jobs("acme", 10, None) == ([], None)
        assert await spool.unfinished(time.time() + 1) == []
        assert await spool.unfinished_of("acme") == []
        await spool.put_results(JOB, {0: outcome("a.txt", SourceStatus.OK)})
        await spool.finish(job)
        assert await spool.get(JOB) is None

    run(open_spool, scenario)


def test_deletions_are_remembered(open_spool: OpenSpool) -> None:
    """A deleted document, and every one of a deleted tenant, is known with the time of the deletion."""

    async def scenario(spool: JobSpool) -> None:
        begin = time.time()
        await spool.mark_deleted("acme", "d1")
        found = await spool.deleted_since("acme", ["d0", "d1"])
        assert list(found) == ["d1"]
        assert begin - 0.01 <= found["d1"] <= time.time() + 0.01
        await spool.mark_deleted("acme", "")
        assert list(await spool.deleted_since("acme", ["", "d0", "d1"])) == ["", "d1"], (
            "no id is the whole tenant"
        )
        await spool.mark_deleted("acme", None)
        after = await spool.deleted_since("acme", ["d0", "d1"])
        assert after["d0"] == after["d1"] >= found["d1"]
        assert await spool.deleted_since("else", ["d1"]) == {}
        assert await spool.deleted_since("acme", []) == {}

    run(open_spool, scenario)


def test_a_deleted_tenant_keeps_no_sources(open_spool: OpenSpool) -> None:
    """When a tenant is deleted, nothing is kept of what its jobs failed to index, whether they end before or after."""

    async def scenario(spool: JobSpool) -> None:
        source = file_source("a.txt", SMALL)

        async def put(job: JobInput) -> None:
            assert await spool.put(job, [source.model_copy(), *texts(2)], {sha(source): io.BytesIO(SMALL)})

        ended, running, late = [new_job(letter * 32) for letter in "abc"]
        other = new_job("d" * 32, tenant="other")
        for job in (ended, running, other):
            await put(job)
        await spool.finish(ended)
        await spool.finish(other)
        await spool.mark_deleted("acme", None)
        await spool.forget_sources("acme")
        await spool.forget_sources("nobody")
        assert await spool.batch(ended.job_id, 0, 10) == []
        assert await spool.content(ended, sha(source)) is None
        there = await spool.get(ended.job_id)
        assert there is not None
        assert await spool.reopen(there, "r2") is None
        assert len(await spool.batch(running.job_id, 0, 10)) == 3, "it ends first"
        await spool.finish(running)
        await put(late)
        await spool.finish(late)
        kept = [len(await spool.batch(job.job_id, 0, 10)) for job in (running, late, other)]
        files = [await spool.content(job, sha(source)) for job in (running, late, other)]
        assert (kept, files) == ([0, 3, 3], [None, SMALL, SMALL])

    run(open_spool, scenario)


def test_times_come_from_one_clock_that_never_goes_back(
    open_spool: OpenSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is posted after a deletion or another text is later, also where a process' clock is set back meanwhile."""

    async def scenario(spool: JobSpool) -> None:
        moments = []
        for n in range(4):
            job_id, sources = f"{n:032x}", texts()
            assert await spool.put(new_job(job_id), sources, {})
            kept = [source.accepted_at for _, source in await spool.batch(job_id, 0, 3)]
            assert kept == [source.accepted_at for source in sources] == [kept[0]] * 3
            assert not await spool.put(new_job(job_id), texts(), {})
            assert (await spool.batch(job_id, 0, 1))[0][1].accepted_at == kept[0], "it is the first one's"
            await spool.mark_deleted("acme", "d1")
            moments += [kept[0], (await spool.deleted_since("acme", ["d1"]))["d1"]]
            monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
        assert moments == sorted(set(moments))
        assert moments[0] > 1_700_000_000

    run(open_spool, scenario)


@pytest.mark.server
@pytest.mark.parametrize("lost", ["sources", "pending", "files", "file:*"])
def test_a_loss_while_a_job_comes_keeps_no_half_of_it(
    server: RedisServer, tmp_path: Path, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When Redis loses a part of what is staged before the job is kept, there is no job, and a repetition makes one."""

    async def scenario() -> None:
        redis = open_redis(server.url)
        spool = RedisJobSpool(redis, tmp_path.name, job_ttl=9, staged_ttl=9)
        source = file_source("a.txt", SMALL)
        job, files = new_job(total=1), {sha(source): io.BytesIO(SMALL)}
        transaction = redis.transaction

        async def lose(*arguments: Any, **options: Any) -> Any:
            await redis.unlink(*await redis.keys(f"{tmp_path.name}:job:staging-*:{lost}"))
            return await transaction(*arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr(redis, "transaction", lose)
            with pytest.raises(ExecutionStoreError, match="Redis"):
                await spool.put(job, [source], files)
        assert await spool.get(JOB) is None
        assert await spool.put(job, [source], files)
        assert [kept for _, kept in await spool.batch(JOB, 0, 5)] == [source]
        assert await spool.content(job, sha(source)) == SMALL
        await spool.close()

    asyncio.run(scenario())


@pytest.mark.server
def test_a_server_that_is_away_is_a_store_error() -> None:
    """Without Redis every call fails soon with the store's own error, and works when Redis is there."""

    async def scenario(running: RedisServer) -> None:
        spool = RedisJobSpool(open_redis(running.url), "p", job_ttl=9, staged_ttl=9)
        await spool.put(new_job(), texts(), {})
        running.kill()
        calls = [
            lambda: spool.open(),
            lambda: spool.get(JOB),
            lambda: spool.put(new_job(OTHER), texts(), {}),
            lambda: spool.jobs("acme", 1, None),
            lambda: spool.unfinished(0),
            lambda: spool.batch(JOB, 0, 1),
            lambda: spool.content(new_job(), "0"),
            lambda: spool.put_results(JOB, {}),
            lambda: spool.sources(JOB, 0, 1),
            lambda: spool.finish(new_job()),
            lambda: spool.reopen(new_job(), ""),
            lambda: spool.forget(JOB),
            lambda: spool.forget_sources("acme"),
            lambda: spool.expire(),
            lambda: spool.mark_deleted("acme", "d"),
            lambda: spool.deleted_since("acme", ["d"]),
        ]
        for call in calls:
            with pytest.raises(ExecutionStoreError, match="Redis"):
                await asyncio.wait_for(call(), 5)
        running.start()
        assert await spool.get(JOB) is not None
        await spool.close()

    with redis_server() as running:
        asyncio.run(scenario(running))
