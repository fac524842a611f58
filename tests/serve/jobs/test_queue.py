"""JobQueue from end to end on one machine: what a job goes through, with real threads and a real SQLite file."""

import asyncio
import errno
import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.pacing import WorkCancelled
from serve.jobs import (
    IdempotencyConflictError,
    JobInput,
    JobInterrupted,
    JobNotFoundError,
    JobQueue,
    JobStatus,
    LoadedSource,
    NothingToRetryError,
    PostponeError,
    QueueFullError,
    QueueUnavailableError,
    Source,
    SourceResult,
    SourcesGoneError,
    SourceStatus,
    StagedFile,
    Submission,
    TenantQueueFullError,
    sqlite_backend,
)
from tests.job_parts import (
    Gate,
    finished,
    index_all,
    make_sources,
    ok,
    spooled,
    submit,
    until,
    with_queue,
)


def file_source(name: str, content: bytes) -> Source:
    sha256 = hashlib.sha256(content).hexdigest()
    return Source(id=name, accepted_at=1.5, file=StagedFile(name=name, sha256=sha256, size=len(content)))


def contents(*files: bytes) -> dict[str, io.BytesIO]:
    return {hashlib.sha256(content).hexdigest(): io.BytesIO(content) for content in files}


def test_job_is_done(tmp_path: Path) -> None:
    """A job is pending at first, is worked off in batches in order, and is done with everything counted."""
    batches: list[tuple[str, list[LoadedSource]]] = []
    posted = make_sources(10)

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        batches.append((job.tenant_id, sources))
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        await queue.ping()
        submission = await queue.submit("acme", posted, request_id="req-1", pipeline="other")
        job = submission.job
        assert (submission.created, job.status, job.progress) == (True, JobStatus.PENDING, 0.0)
        assert (job.started_at, job.sources) == (None, [])
        job = await finished(queue, job.job_id)
        assert (job.status, job.error, job.pipeline) == (JobStatus.DONE, None, "other")
        assert (job.total, job.documents_ok, job.documents_failed, job.chunks_ok) == (10, 10, 0, 20)
        assert (job.progress, job.attempts, job.request_id, job.tenant_id) == (1.0, 1, "req-1", "acme")
        assert job.sources == [ok(source) for source in posted]
        assert job.started_at is not None
        assert job.finished_at is not None

    with_queue(scenario, tmp_path, work, batch_size=4)
    assert [(tenant, len(sources)) for tenant, sources in batches] == [("acme", 4), ("acme", 4), ("acme", 2)]
    given = [Source(**source.model_dump(exclude={"content"})) for _, batch in batches for source in batch]
    assert given == posted
    assert spooled(tmp_path) == (1, 0)


def test_files_come_alone_with_their_content(tmp_path: Path) -> None:
    """Texts come together, each file by itself with what it holds; the files are gone when the job is done."""
    batches: list[list[tuple[str, bytes | None]]] = []

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        batches.append([(source.id, source.content) for source in sources])
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        texts = make_sources(4)
        sources = [
            texts[0],
            texts[1],
            file_source("a.pdf", b"A"),
            file_source("b.pdf", b"B" * 3_000_000),
            *texts[2:],
        ]
        job_id = await submit(queue, sources, files=contents(b"A", b"B" * 3_000_000))
        job = await finished(queue, job_id)
        assert (job.status, job.documents_ok) == (JobStatus.DONE, 6)
        assert [result.name for result in job.sources] == [None, None, "a.pdf", "b.pdf", None, None]

    with_queue(scenario, tmp_path, work)
    assert batches == [
        [("d0", None), ("d1", None)],
        [("a.pdf", b"A")],
        [("b.pdf", b"B" * 3_000_000)],
        [("d2", None), ("d3", None)],
    ]
    assert list((tmp_path / "staged").iterdir()) == []


def test_poison_document_fails_alone(tmp_path: Path) -> None:
    """A document that can't be indexed is named with its reason; the others of its batch are indexed."""

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        if any(source.id == "d3" for source in sources):
            raise ValueError("bad \ud800 text")
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        job = await finished(queue, await submit(queue, make_sources(10)))
        assert (job.status, job.documents_ok, job.documents_failed, job.chunks_ok) == (
            JobStatus.DONE,
            9,
            1,
            18,
        )
        [failed] = [result for result in job.sources if result.status is not SourceStatus.OK]
        assert (failed.document_id, failed.status, failed.reason) == (
            "d3",
            SourceStatus.FAILED,
            "ValueError: bad ? text",
        )
        assert (job.error, job.progress) == (None, 1.0)

    with_queue(scenario, tmp_path, work, batch_size=5)
    assert spooled(tmp_path) == (1, 1)


def test_large_job_shows_what_went_wrong(tmp_path: Path) -> None:
    """A large job shows the first hundred failed and skipped sources, and gives all of them in pages."""

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        results = index_all(job, sources)
        for source, result in zip(sources, results, strict=True):
            if source.meta["n"] % 2:
                result.status = SourceStatus.SKIPPED if source.meta["n"] % 4 == 1 else SourceStatus.FAILED
                result.reason = f"reason {source.meta['n']}"
        return results

    async def scenario(queue: JobQueue) -> None:
        job_id = await submit(queue, make_sources(240))
        job = await finished(queue, job_id)
        assert (job.documents_ok, job.documents_skipped, job.documents_failed) == (120, 60, 60)
        assert [result.reason for result in job.sources] == [f"reason {n}" for n in range(1, 200, 2)]
        page = await queue.sources(job_id, 10, 3)
        assert [(position, result.document_id) for position, result in page] == [
            (10, "d10"),
            (11, "d11"),
            (12, "d12"),
        ]
        failed = await queue.sources(job_id, 100, 1_000, SourceStatus.FAILED)
        assert [position for position, _ in failed] == list(range(103, 240, 4))
        assert await queue.sources(job_id, 0, 10, SourceStatus.PENDING) == []

    with_queue(scenario, tmp_path, work)


def test_job_without_any_success_failed(tmp_path: Path) -> None:
    """When no document can be indexed the job has failed, says why, and keeps the documents."""

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        raise ValueError("no embedding model")

    async def scenario(queue: JobQueue) -> None:
        job = await finished(queue, await submit(queue, make_sources(120)))
        assert (job.status, job.documents_ok, job.documents_failed) == (JobStatus.FAILED, 0, 120)
        assert job.error == (
            "none of the 120 documents could be indexed; the first error: ValueError: no embedding model"
        )
        assert len(job.sources) == 100

    with_queue(scenario, tmp_path, work)
    assert spooled(tmp_path) == (1, 120)


def test_job_of_skipped_sources_is_done(tmp_path: Path) -> None:
    """A job whose sources were all skipped, or skipped and failed, is done."""

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        return [
            SourceResult(
                document_id=source.id,
                status=SourceStatus.FAILED if source.id == "d0" else SourceStatus.SKIPPED,
                reason="empty",
            )
            for source in sources
        ]

    async def scenario(queue: JobQueue) -> None:
        job = await finished(queue, await submit(queue, make_sources(3)))
        assert (job.status, job.documents_skipped, job.documents_failed) == (JobStatus.DONE, 2, 1)

    with_queue(scenario, tmp_path, work)


def test_transient_fault_is_retried(tmp_path: Path) -> None:
    """A store that doesn't answer costs no document: the job waits and goes on with the same batch."""
    calls: list[list[str]] = []

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        calls.append([source.id for source in sources])
        if 1 < len(calls) < 5:
            raise RuntimeError("the pipeline failed") from ConnectionRefusedError("no answer")
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        job = await finished(queue, await submit(queue, make_sources(4)))
        assert (job.status, job.documents_ok, job.chunks_ok, job.attempts) == (JobStatus.DONE, 4, 8, 4)

    with_queue(scenario, tmp_path, work, batch_size=2)
    assert calls == [["d0", "d1"], *[["d2", "d3"]] * 4]


def test_full_disk_is_waited_out(tmp_path: Path) -> None:
    """A full disk costs no document: the job goes on when there is room again."""
    faults = [OSError(errno.ENOSPC, "No space left on device", "/somewhere/chroma/data.bin")]

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        if faults:
            raise RuntimeError("the pipeline failed") from faults.pop()
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        job = await finished(queue, await submit(queue, make_sources(2)))
        assert (job.status, job.documents_ok, job.attempts) == (JobStatus.DONE, 2, 2)

    with_queue(scenario, tmp_path, work)


def test_paths_of_the_service_are_not_told(tmp_path: Path) -> None:
    """What clients read of a fault of the disk says what it is, not where the service has its files."""

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        fault = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "model"))
        if sources[0].id == "d0":
            raise fault
        raise RuntimeError(f"the component failed: {fault}") from fault

    async def scenario(queue: JobQueue) -> None:
        job = await finished(queue, await submit(queue, make_sources(2)))
        assert [result.reason for result in job.sources] == [
            "PermissionError: Permission denied",
            "RuntimeError: the component failed: Permission denied",
        ]
        (tmp_path / "staged").write_text("no folder")
        with pytest.raises(QueueUnavailableError) as caught:
            await submit(queue, [file_source("a.txt", b"A")], files=contents(b"A"))
        assert str(caught.value) == "staged files: File exists"

    with_queue(scenario, tmp_path, work, batch_size=1)


def test_transient_fault_that_stays_fails_the_job(tmp_path: Path) -> None:
    """After the last repetition the job has failed, and so has what it did not reach, with the reason."""

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        if sources[0].id != "d0":
            raise TimeoutError("no answer in 5 s")
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        job = await finished(queue, await submit(queue, make_sources(3)))
        assert (job.status, job.documents_ok, job.documents_failed) == (JobStatus.FAILED, 1, 2)
        assert job.error == "given up after 2 repetitions: TimeoutError: no answer in 5 s"
        assert job.attempts == 3
        assert [result.status for result in job.sources] == ["ok", "failed", "failed"]
        assert job.sources[2].reason == f"not reached: {job.error}"
        failed = await queue.sources(job.job_id, 2, 5, SourceStatus.FAILED)
        assert failed == [(2, job.sources[2])]

    with_queue(scenario, tmp_path, work, batch_size=1, max_retries=2)


def test_postponed_job_comes_again(tmp_path: Path) -> None:
    """Work that says it can't go on yet is repeated later; that counts neither as a fault nor as an attempt."""
    calls: list[str] = []

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        calls.append(sources[0].id)
        if len(calls) < 6:
            raise PostponeError(0.01)
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        job = await finished(queue, await submit(queue, make_sources(1)))
        assert (job.status, job.attempts) == (JobStatus.DONE, 1)

    with_queue(scenario, tmp_path, work, max_retries=0)
    assert calls == ["d0"] * 6


def test_last_step_comes_after_all_sources(tmp_path: Path) -> None:
    """What is to happen at the end happens before the job is done, again after a passing fault, and may fail it."""
    calls: list[str] = []

    def finish(job: JobInput) -> None:
        calls.append(job.tenant_id)
        if calls == ["acme"]:
            raise ConnectionError("no answer")
        if job.tenant_id == "wrong":
            raise ValueError("the new version is not complete")

    async def scenario(queue: JobQueue) -> None:
        job = await finished(queue, await submit(queue, make_sources(3)))
        assert (job.status, job.attempts, calls) == (JobStatus.DONE, 2, ["acme", "acme"])
        wrong = await finished(queue, await submit(queue, make_sources(3), "wrong"))
        assert (wrong.status, wrong.error) == (
            JobStatus.FAILED,
            "ValueError: the new version is not complete",
        )

    with_queue(scenario, tmp_path, finish=finish)


def test_full_queue_refuses(tmp_path: Path) -> None:
    """A job too many is refused with a time to wait, and is taken when there is room."""
    work = Gate()

    async def scenario(queue: JobQueue) -> None:
        jobs = [await submit(queue, make_sources(1), f"tenant{n}") for n in range(2)]
        for attempt in (submit(queue, make_sources(1)), queue.room(), queue.room("acme")):
            with pytest.raises(QueueFullError) as refused:
                await attempt
            assert 1 <= refused.value.retry_after <= 60
        work.open.set()
        await finished(queue, jobs[0])
        await queue.room()
        assert (await finished(queue, await submit(queue, make_sources(1)))).status is JobStatus.DONE

    with_queue(scenario, tmp_path, work, kept={"max_jobs": 2}, workers=1)
    assert spooled(tmp_path)[0] == 3


def test_tenant_may_not_fill_the_queue(tmp_path: Path) -> None:
    """A tenant over its limit is refused while others are not, however many requests come at once."""
    work = Gate()

    async def scenario(queue: JobQueue) -> None:
        outcomes = await asyncio.gather(
            *(submit(queue, make_sources(1), "greedy") for _ in range(20)), return_exceptions=True
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, TenantQueueFullError)]
        assert len(outcomes) - len(refused) == 3
        assert all(1 <= error.retry_after <= 60 for error in refused)
        with pytest.raises(TenantQueueFullError):
            await queue.room("greedy")
        await queue.room("modest")
        await submit(queue, make_sources(1), "modest")
        work.open.set()

    with_queue(scenario, tmp_path, work, max_jobs_per_tenant=3)
    assert spooled(tmp_path)[0] == 4


def test_repeated_request_gets_its_job(tmp_path: Path) -> None:
    """A hundred requests with one key and one content are one job; so is a later one, even if the queue is full."""
    work = Gate()

    async def scenario(queue: JobQueue) -> None:
        async def post(digest: str = "same", tenant_id: str = "acme") -> Submission:
            return await queue.submit(
                tenant_id,
                [file_source("a.txt", b"A"), *make_sources(3)],
                request_id="req",
                files=contents(b"A"),
                idempotency_key="key",
                body_digest=digest,
            )

        submissions = await asyncio.gather(*(post() for _ in range(100)))
        assert len({submission.job.job_id for submission in submissions}) == 1
        assert [submission.created for submission in submissions].count(True) == 1
        assert not (await post()).created
        with pytest.raises(IdempotencyConflictError):
            await post("other")
        with pytest.raises(QueueFullError):
            await post(tenant_id="another tenant")
        work.open.set()
        job = await finished(queue, submissions[0].job.job_id)
        assert (job.documents_ok, job.documents_failed) == (4, 0)
        repeated = await post()
        assert (repeated.created, repeated.job) == (False, job)

    with_queue(scenario, tmp_path, work, kept={"max_jobs": 1}, max_jobs_per_tenant=1)
    assert spooled(tmp_path) == (1, 0)
    assert work.given.count("d0") == 1


def test_two_queues_take_one_key_once(tmp_path: Path) -> None:
    """Requests with one key that reach different processes are one job."""

    async def scenario() -> None:
        queues = [JobQueue(index_all, sqlite_backend(tmp_path), works=False) for _ in range(2)]
        for queue in queues:
            await queue.start()
        submissions = await asyncio.gather(
            *(
                queue.submit("acme", make_sources(3), request_id="", idempotency_key="key", body_digest="one")
                for queue in queues * 10
            )
        )
        for queue in queues:
            await queue.close()
        assert len({submission.job.job_id for submission in submissions}) == 1
        assert [submission.created for submission in submissions].count(True) == 1

    asyncio.run(scenario())
    assert spooled(tmp_path) == (1, 3)


def test_expired_key_is_free_again(tmp_path: Path) -> None:
    """When a job is forgotten, its key makes a new job that is worked on."""
    calls: list[str] = []

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        calls.append(job.body_digest)
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        async def post(digest: str) -> str:
            return await submit(queue, make_sources(1), idempotency_key="key", body_digest=digest)

        job_id = await post("first")
        await finished(queue, job_id)

        async def is_forgotten() -> bool:
            return await queue.get(job_id) is None

        await until(is_forgotten)
        assert await post("second") == job_id
        assert (await finished(queue, job_id)).status is JobStatus.DONE

    with_queue(scenario, tmp_path, work, kept={"job_ttl": 1})
    assert calls == ["first", "second"]


def test_cancel_ends_pending_and_running_jobs(tmp_path: Path) -> None:
    """A pending job is cancelled at once, a running one after its batch, a finished one not at all."""
    work = Gate()

    async def scenario(queue: JobQueue) -> None:
        running = await submit(queue, make_sources(3))
        await until(work.started.is_set)
        pending = await submit(queue, make_sources(3))
        cancelled = await queue.cancel(pending)
        assert cancelled is not None
        assert (cancelled.status, cancelled.documents_ok) == (JobStatus.CANCELLED, 0)
        assert {result.status for result in cancelled.sources} == {SourceStatus.CANCELLED}
        before = time.monotonic()
        asked = await queue.cancel(running)
        assert asked is not None
        assert asked.status is JobStatus.RUNNING
        assert time.monotonic() - before >= 0.9
        work.open.set()
        job = await finished(queue, running)
        assert (job.status, job.documents_ok) == (JobStatus.CANCELLED, 1)
        assert [(result.document_id, result.status) for result in job.sources] == [
            ("d0", "ok"),
            ("d1", "cancelled"),
            ("d2", "cancelled"),
        ]
        assert await queue.cancel(running) == job
        assert await queue.cancel("0" * 32) is None
        assert await queue.cancel("../nonsense") is None
        assert await queue.get("nonsense") is None

    with_queue(scenario, tmp_path, work, batch_size=1, workers=1)
    assert spooled(tmp_path)[1] == 5


def test_work_hears_of_a_cancel_between_its_steps(tmp_path: Path) -> None:
    """Work that asks between its steps is ended within the call that cancels, whatever errors it catches."""
    started = threading.Event()
    checks: list[Callable[[], None]] = []
    told: list[WorkCancelled] = []

    @contextmanager
    def bind(job: JobInput, check: Callable[[], None]) -> Iterator[None]:
        checks.append(check)
        yield

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        started.set()
        while True:
            try:
                time.sleep(0.01)
                checks[-1]()
            except Exception as error:
                raise AssertionError("a component could take this for its own fault") from error
            except WorkCancelled as error:
                told.append(error)
                raise

    async def scenario(queue: JobQueue) -> None:
        job_id = await submit(queue, make_sources(3))
        await until(started.is_set)
        job = await queue.cancel(job_id)
        assert job is not None
        assert job.status is JobStatus.CANCELLED

    with_queue(scenario, tmp_path, work, bind=bind)
    assert len(told) == 1
    assert isinstance(told[0], JobInterrupted)


def test_retry_runs_what_failed(tmp_path: Path) -> None:
    """A retry gives the same job, pending, and runs only its failed sources; the outcomes are merged."""
    given: list[str] = []

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        given.extend(source.id for source in sources)
        bad = {"d1", "b.pdf"} if job.run == 0 else {"b.pdf"} if job.run == 1 else set()
        results = index_all(job, sources)
        for result in results:
            if result.document_id in bad:
                result.status, result.reason, result.chunks = SourceStatus.FAILED, "bad", 0
        return results

    async def scenario(queue: JobQueue) -> None:
        sources = [*make_sources(3), file_source("a.pdf", b"A"), file_source("b.pdf", b"B")]
        job_id = await submit(queue, sources, files=contents(b"A", b"B"))
        job = await finished(queue, job_id)
        assert (job.status, job.documents_ok, job.documents_failed, job.chunks_ok) == (
            JobStatus.DONE,
            3,
            2,
            6,
        )
        assert len(list((tmp_path / "staged").iterdir())) == 1
        given.clear()
        again = await queue.retry(job_id, "req-2")
        assert (again.job_id, again.status, again.documents_ok) == (job_id, JobStatus.PENDING, 3)
        assert (again.request_id, again.finished_at, again.documents_failed) == ("req-2", None, 0)
        job = await finished(queue, job_id)
        assert (job.status, job.documents_ok, job.documents_failed, job.chunks_ok) == (
            JobStatus.DONE,
            4,
            1,
            8,
        )
        assert [result.status for result in job.sources] == ["ok", "ok", "ok", "ok", "failed"]
        assert given == ["d1", "b.pdf"]
        await queue.retry(job_id, "req-3")
        job = await finished(queue, job_id)
        assert (job.documents_ok, job.documents_failed, job.chunks_ok, job.progress) == (5, 0, 10, 1.0)
        with pytest.raises(NothingToRetryError, match="every document"):
            await queue.retry(job_id, "req-4")
        with pytest.raises(JobNotFoundError):
            await queue.retry("0" * 32, "req-4")

    with_queue(scenario, tmp_path, work)
    assert spooled(tmp_path) == (1, 0)
    assert list((tmp_path / "staged").iterdir()) == []


def test_retry_runs_what_a_cancelled_job_did_not_reach(tmp_path: Path) -> None:
    """A cancelled job goes on where it was; one that runs can't be retried."""
    work = Gate()

    async def scenario(queue: JobQueue) -> None:
        job_id = await submit(queue, make_sources(4))
        await until(work.started.is_set)
        with pytest.raises(NothingToRetryError, match="running"):
            await queue.retry(job_id, "")
        cancelling = asyncio.create_task(queue.cancel(job_id))
        await asyncio.sleep(0.05)
        work.open.set()
        cancelled = await cancelling
        assert cancelled is not None
        assert (cancelled.status, cancelled.documents_ok) == (JobStatus.CANCELLED, 2)
        both = await asyncio.gather(queue.retry(job_id, ""), queue.retry(job_id, ""), return_exceptions=True)
        assert [job for job in both if not isinstance(job, (NothingToRetryError, BaseException))]
        job = await finished(queue, job_id)
        assert (job.status, job.documents_ok, job.chunks_ok) == (JobStatus.DONE, 4, 8)

    with_queue(scenario, tmp_path, work, batch_size=2)
    assert work.given == ["d0", "d1", "d2", "d3"]


def test_retry_needs_the_sources(tmp_path: Path) -> None:
    """What failed is kept for a while; after that a retry is refused and the job still says what happened."""

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        raise ValueError("bad")

    async def fail(queue: JobQueue) -> None:
        await finished(queue, await submit(queue, [file_source("a.pdf", b"A")], files=contents(b"A")))

    async def retry(queue: JobQueue) -> None:
        [job], _ = await queue.list("acme")

        async def are_dropped() -> bool:
            return not await queue._spool.batch(job.job_id, 0, 1)

        await until(are_dropped)
        with pytest.raises(SourcesGoneError):
            await queue.retry(job.job_id, "")
        seen = await queue.get(job.job_id)
        assert seen is not None
        assert [result.reason for result in seen.sources] == ["ValueError: bad"]

    with_queue(fail, tmp_path, work)
    time.sleep(0.01)
    with_queue(retry, tmp_path, work, kept={"staged_ttl": 0})
    assert list((tmp_path / "staged").iterdir()) == []


def test_list_gives_a_tenants_jobs(tmp_path: Path) -> None:
    """Jobs are listed in pages, the newest first, of one tenant, and by status."""

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        if job.total == 2:
            raise ValueError("bad")
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        job_ids = [await submit(queue, make_sources(1 + (n == 3))) for n in range(7)]
        await submit(queue, make_sources(1), "other")
        for job_id in job_ids:
            await finished(queue, job_id)
        pages, cursor = [], None
        while True:
            page, cursor = await queue.list("acme", limit=3, cursor=cursor)
            pages.append([job.job_id for job in page])
            if cursor is None:
                break
        newest = job_ids[::-1]
        assert pages == [newest[:3], newest[3:6], newest[6:]]
        failed, cursor = await queue.list("acme", JobStatus.FAILED)
        assert ([job.job_id for job in failed], cursor) == ([job_ids[3]], None)
        first, cursor = await queue.list("acme", JobStatus.DONE, limit=4)
        rest, _ = await queue.list("acme", JobStatus.DONE, limit=4, cursor=cursor)
        assert [job.job_id for job in (*first, *rest)] == [
            job_id for job_id in newest if job_id != job_ids[3]
        ]
        assert await queue.list("nobody") == ([], None)
        with pytest.raises(ValueError, match="cursor"):
            await queue.list("acme", cursor="nonsense")

    with_queue(scenario, tmp_path, work)


def test_deleted_documents_are_remembered(tmp_path: Path) -> None:
    """Work can ask from its thread when documents were deleted, alone or with all of their tenant."""
    seen: list[dict[str, float]] = []
    queues: list[JobQueue] = []

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        ids = [source.id for source in sources]
        seen.append(queues[0].call(queues[0].deleted_since(job.tenant_id, ids)))
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        queues.append(queue)
        before = time.time()
        await queue.mark_deleted("acme", "d1")
        await finished(queue, await submit(queue, make_sources(3)))
        await queue.mark_deleted("acme", None)
        await finished(queue, await submit(queue, make_sources(3)))
        await finished(queue, await submit(queue, make_sources(3), "other"))
        assert [sorted(deleted) for deleted in seen] == [["d1"], ["d0", "d1", "d2"], []]
        assert before <= seen[0]["d1"] < seen[1]["d1"] <= time.time()

    with_queue(scenario, tmp_path, work)


def test_wrong_submissions_are_refused(tmp_path: Path) -> None:
    """No sources, or a file without its content, is an error at once and leaves nothing behind."""

    async def scenario(queue: JobQueue) -> None:
        with pytest.raises(ValueError, match="at least one"):
            await submit(queue, [])
        with pytest.raises(ValueError, match="missing"):
            await submit(queue, [file_source("a.pdf", b"A")])

    with_queue(scenario, tmp_path)
    assert spooled(tmp_path) == (0, 0)


def test_log_lines_carry_request_and_job(tmp_path: Path) -> None:
    """While the work runs, the job with its request id is bound, in the thread that does it."""
    bound = threading.local()
    seen: list[tuple[str, str]] = []

    @contextmanager
    def bind(job: JobInput, check: Callable[[], None]) -> Iterator[None]:
        bound.ids = (job.request_id, job.job_id)
        yield
        del bound.ids

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        seen.append(bound.ids)
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        job_id = await submit(queue, make_sources(1), request_id="req-7")
        await finished(queue, job_id)
        assert seen == [("req-7", job_id)]

    with_queue(scenario, tmp_path, work, bind=bind)


def test_closed_queue_is_unavailable(tmp_path: Path) -> None:
    """A queue that was closed, or never started, says so to each caller."""

    async def scenario() -> None:
        never = JobQueue(index_all, sqlite_backend(tmp_path))
        closed = JobQueue(index_all, sqlite_backend(tmp_path))
        await closed.start()
        await closed.close()
        await closed.close()
        for queue in (never, closed):
            for attempt in (submit(queue, make_sources(1)), queue.ping()):
                with pytest.raises(QueueUnavailableError):
                    await attempt
        for reading in (closed.get("0" * 32), closed.list("acme"), closed.room(), closed.cancel("0" * 32)):
            with pytest.raises(QueueUnavailableError):
                await reading
        await never.close()

    asyncio.run(scenario())


def test_start_may_be_repeated(tmp_path: Path) -> None:
    """When the store can't be opened, a later start of the same queue succeeds."""

    async def scenario() -> None:
        folder = tmp_path / "data"
        queue = JobQueue(index_all, sqlite_backend(folder))
        for _ in range(2):
            with pytest.raises(QueueUnavailableError):
                await queue.start()
            with pytest.raises(QueueUnavailableError):
                await submit(queue, make_sources(1))
        folder.mkdir()
        await queue.start()
        assert (await finished(queue, await submit(queue, make_sources(1)))).status is JobStatus.DONE
        await queue.close()

    asyncio.run(scenario())


def test_submitting_and_working_may_be_apart(tmp_path: Path) -> None:
    """A queue that only accepts jobs works on none; another one does, and both can be asked."""

    async def scenario() -> None:
        accepting = JobQueue(index_all, sqlite_backend(tmp_path), works=False)
        await accepting.start()
        job_id = await submit(accepting, make_sources(3))
        await asyncio.sleep(0.7)
        job = await accepting.get(job_id)
        assert job is not None
        assert job.status is JobStatus.PENDING
        await accepting.ping()
        working = JobQueue(index_all, sqlite_backend(tmp_path), poll_seconds=0.02)
        await working.start()
        assert (await finished(accepting, job_id)).status is JobStatus.DONE
        another = await submit(accepting, make_sources(3))
        assert (await finished(accepting, another)).status is JobStatus.DONE
        await working.close()
        await accepting.close()

    asyncio.run(scenario())


def test_event_loop_is_not_held_up(tmp_path: Path) -> None:
    """While work blocks its threads, the queue answers."""
    work = Gate()

    async def scenario(queue: JobQueue) -> None:
        job_id = await submit(queue, make_sources(1))

        async def is_running() -> bool:
            seen = await queue.get(job_id)
            return seen is not None and seen.status is JobStatus.RUNNING

        await until(is_running)
        await queue.ping()
        work.open.set()
        await finished(queue, job_id)

    with_queue(scenario, tmp_path, work)


def test_small_tenant_does_not_wait_for_a_large_one(tmp_path: Path) -> None:
    """A long job gives its place to another tenant's when its time is over; that is neither fault nor attempt."""
    order: list[str] = []

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        order.append(job.tenant_id)
        time.sleep(0.02)
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        large = await submit(queue, make_sources(60), "large")
        await until(lambda: len(order) > 0)
        small = await submit(queue, make_sources(2), "small")
        await finished(queue, small)
        seen = await queue.get(large)
        assert seen is not None
        assert seen.status is JobStatus.RUNNING
        job = await finished(queue, large)
        assert (job.status, job.documents_ok, job.attempts) == (JobStatus.DONE, 60, 1)

    with_queue(scenario, tmp_path, work, batch_size=1, workers=1, slice_seconds=0.1)
    assert len(order) == 62


def test_long_job_keeps_its_place_alone(tmp_path: Path) -> None:
    """While nobody else waits, a job is not interrupted, not even for another one of its tenant."""
    order: list[str] = []

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        order.append(job.job_id)
        time.sleep(0.01)
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        jobs = [await submit(queue, make_sources(10)) for _ in range(2)]
        for job_id in jobs:
            assert (await finished(queue, job_id)).documents_ok == 10
        assert order == [*[jobs[0]] * 10, *[jobs[1]] * 10]

    with_queue(scenario, tmp_path, work, batch_size=1, workers=1, slice_seconds=0)


def test_thousands_of_texts_are_accepted_at_once(tmp_path: Path) -> None:
    """Five thousand texts are on the disk in a moment, in one transaction."""
    text = "word " * 150

    async def scenario(queue: JobQueue) -> None:
        times = []
        for _ in range(3):
            sources = [
                Source.model_construct(
                    id=f"{n:032x}", title=None, meta={}, accepted_at=1.0, text=text, file=None
                )
                for n in range(5_000)
            ]
            before = time.perf_counter()
            await submit(queue, sources)
            times.append(time.perf_counter() - before)
        # Far above what it takes, 0.04 s, and far below one transaction for each.
        assert min(times) < 1.0

    with_queue(scenario, tmp_path, works=False)
    assert spooled(tmp_path) == (3, 15_000)
