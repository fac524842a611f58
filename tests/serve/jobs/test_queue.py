"""JobQueue from end to end: real threads, a real SQLite file, and processes that are killed."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hayhooks.durable import MemoryExecutionStore

from serve.jobs import Job, JobQueue, JobStatus, QueueFullError, QueueUnavailableError
from serve.jobs.database import JobDatabase

ROOT = Path(__file__).parents[3]
DEADLINE_SECONDS = 60


def make_documents(count: int) -> list[dict[str, Any]]:
    return [{"id": f"d{n}", "text": f"Text {n}.", "title": None, "meta": {"n": n}} for n in range(count)]


def count_two_each(documents: list[dict[str, Any]], tenant_id: str) -> int:
    return 2 * len(documents)


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


def with_queue(
    scenario: Callable[[JobQueue], Awaitable[None]],
    data_dir: Path,
    work: Any = count_two_each,
    **options: Any,
) -> None:
    async def main() -> None:
        queue = JobQueue(work, data_dir=data_dir, **{"retry_seconds": 0.01, **options})
        await queue.start()
        try:
            await scenario(queue)
        finally:
            await queue.close()

    asyncio.run(main())


def spooled(data_dir: Path) -> tuple[int, int]:
    """The number of jobs and of documents in the spool."""

    async def count() -> tuple[int, int]:
        database = JobDatabase(data_dir / "jobs.sqlite3")
        try:
            return await database.read(
                lambda db: (
                    db.execute("SELECT COUNT(*) FROM spooled_jobs").fetchone()[0],
                    db.execute("SELECT COUNT(*) FROM spooled_documents").fetchone()[0],
                )
            )
        finally:
            await database.close()

    return asyncio.run(count())


def test_job_is_done(tmp_path: Path) -> None:
    """A job is pending at first, is worked off in batches in order, and is done with everything counted."""
    batches: list[tuple[str, list[dict[str, Any]]]] = []

    def work(documents: list[dict[str, Any]], tenant_id: str) -> int:
        batches.append((tenant_id, documents))
        return 2 * len(documents)

    async def scenario(queue: JobQueue) -> None:
        await queue.ping()
        job = await queue.submit("acme", make_documents(10), "req-1")
        assert (job.status, job.progress, job.started_at) == (JobStatus.PENDING, 0.0, None)
        job = await finished(queue, job.job_id)
        assert (job.status, job.error, job.errors) == (JobStatus.DONE, None, [])
        assert (job.total, job.documents_ok, job.documents_failed, job.chunks_ok) == (10, 10, 0, 20)
        assert (job.progress, job.attempts, job.request_id, job.tenant_id) == (1.0, 1, "req-1", "acme")
        assert job.started_at is not None
        assert job.finished_at is not None

    with_queue(scenario, tmp_path, work, batch_size=4)
    assert [(tenant, len(documents)) for tenant, documents in batches] == [
        ("acme", 4),
        ("acme", 4),
        ("acme", 2),
    ]
    assert [document for _, documents in batches for document in documents] == make_documents(10)
    assert spooled(tmp_path) == (1, 0)


def test_payload_may_be_large(tmp_path: Path) -> None:
    """Documents may be larger than Hayhooks' payloads, and hold what UTF-8 can't."""
    seen: list[str] = []

    def work(documents: list[dict[str, Any]], tenant_id: str) -> int:
        seen.extend(document["text"] for document in documents)
        return 1

    async def scenario(queue: JobQueue) -> None:
        texts = ["x" * 3_000_000, "lone \ud800 surrogate"]
        documents = [{"id": f"d{n}", "text": text, "title": "", "meta": {}} for n, text in enumerate(texts)]
        job = await queue.submit("acme", documents, "")
        assert (await finished(queue, job.job_id)).status is JobStatus.DONE
        assert seen == texts

    with_queue(scenario, tmp_path, work)


def test_poison_document_fails_alone(tmp_path: Path) -> None:
    """A document that can't be indexed is named with its reason; the others of its batch are indexed."""

    def work(documents: list[dict[str, Any]], tenant_id: str) -> int:
        for document in documents:
            if document["id"] == "d3":
                raise ValueError("bad \ud800 text")
        return len(documents)

    async def scenario(queue: JobQueue) -> None:
        job = await queue.submit("acme", make_documents(10), "")
        job = await finished(queue, job.job_id)
        assert (job.status, job.documents_ok, job.documents_failed, job.chunks_ok) == (
            JobStatus.DONE,
            9,
            1,
            9,
        )
        assert [(e.document_id, e.error) for e in job.errors] == [("d3", "ValueError: bad ? text")]
        assert (job.error, job.progress) == (None, 1.0)

    with_queue(scenario, tmp_path, work, batch_size=5)


def test_job_without_any_success_failed(tmp_path: Path) -> None:
    """When no document can be indexed the job has failed, says why, and keeps the documents."""

    def work(documents: list[dict[str, Any]], tenant_id: str) -> int:
        raise ValueError("no embedding model")

    async def scenario(queue: JobQueue) -> None:
        job = await queue.submit("acme", make_documents(120), "")
        job = await finished(queue, job.job_id)
        assert (job.status, job.documents_ok, job.documents_failed) == (JobStatus.FAILED, 0, 120)
        assert job.error == (
            "none of the 120 documents could be indexed; the first error: ValueError: no embedding model"
        )
        assert len(job.errors) == 100

    with_queue(scenario, tmp_path, work)
    assert spooled(tmp_path) == (1, 120)


def test_transient_fault_is_retried(tmp_path: Path) -> None:
    """A store that doesn't answer costs no document: the job waits and goes on with the same batch."""
    calls: list[list[str]] = []

    def work(documents: list[dict[str, Any]], tenant_id: str) -> int:
        calls.append([document["id"] for document in documents])
        if 1 < len(calls) < 5:
            raise RuntimeError("the pipeline failed") from ConnectionRefusedError("no answer")
        return len(documents)

    async def scenario(queue: JobQueue) -> None:
        job = await queue.submit("acme", make_documents(4), "")
        job = await finished(queue, job.job_id)
        assert (job.status, job.documents_ok, job.chunks_ok, job.attempts) == (JobStatus.DONE, 4, 4, 4)

    with_queue(scenario, tmp_path, work, batch_size=2)
    assert calls == [["d0", "d1"], *[["d2", "d3"]] * 4]


def test_transient_fault_that_stays_fails_the_job(tmp_path: Path) -> None:
    """After the last repetition the job has failed, with the reason and what was done before it."""

    def work(documents: list[dict[str, Any]], tenant_id: str) -> int:
        if documents[0]["id"] != "d0":
            raise TimeoutError("no answer in 5 s")
        return 1

    async def scenario(queue: JobQueue) -> None:
        job = await queue.submit("acme", make_documents(2), "")
        job = await finished(queue, job.job_id)
        assert (job.status, job.documents_ok, job.attempts) == (JobStatus.FAILED, 1, 3)
        assert job.error == "given up after 2 repetitions: TimeoutError: no answer in 5 s"

    with_queue(scenario, tmp_path, work, batch_size=1, max_retries=2)


def test_full_queue_refuses(tmp_path: Path) -> None:
    """A job too many is refused with a time to wait, and is taken when there is room."""
    gate = threading.Event()

    def work(documents: list[dict[str, Any]], tenant_id: str) -> int:
        gate.wait(DEADLINE_SECONDS)
        return 1

    async def scenario(queue: JobQueue) -> None:
        jobs = [await queue.submit("acme", make_documents(1), "") for _ in range(2)]
        with pytest.raises(QueueFullError) as refused:
            await queue.submit("acme", make_documents(1), "")
        assert refused.value.retry_after > 0
        gate.set()
        await finished(queue, jobs[0].job_id)
        third = await queue.submit("acme", make_documents(1), "")
        assert (await finished(queue, third.job_id)).status is JobStatus.DONE

    with_queue(scenario, tmp_path, work, max_jobs=2, workers=1)
    assert spooled(tmp_path)[0] == 3


def test_cancel_ends_pending_and_running_jobs(tmp_path: Path) -> None:
    """A pending job is cancelled at once, a running one after its batch, a finished one not at all."""
    started, gate = threading.Event(), threading.Event()

    def work(documents: list[dict[str, Any]], tenant_id: str) -> int:
        started.set()
        gate.wait(DEADLINE_SECONDS)
        return 1

    async def scenario(queue: JobQueue) -> None:
        running = await queue.submit("acme", make_documents(3), "")
        await until(started.is_set)
        pending = await queue.submit("acme", make_documents(3), "")
        cancelled = await queue.cancel(pending.job_id)
        assert cancelled is not None
        assert cancelled.status is JobStatus.CANCELLED
        asked = await queue.cancel(running.job_id)
        assert asked is not None
        assert asked.status is JobStatus.RUNNING
        gate.set()
        job = await finished(queue, running.job_id)
        assert (job.status, job.documents_ok) == (JobStatus.CANCELLED, 1)
        again = await queue.cancel(running.job_id)
        assert again == job
        assert await queue.cancel("0" * 32) is None
        assert await queue.cancel("../nonsense") is None
        assert await queue.get("nonsense") is None

    with_queue(scenario, tmp_path, work, batch_size=1, workers=1)
    assert spooled(tmp_path)[1] == 0


def test_wrong_documents_are_refused(tmp_path: Path) -> None:
    """No documents, or a number that JSON doesn't know, is an error at once and leaves nothing behind."""

    async def scenario(queue: JobQueue) -> None:
        with pytest.raises(ValueError, match="at least one"):
            await queue.submit("acme", [], "")
        with pytest.raises(ValueError, match="JSON"):
            await queue.submit("acme", [{"id": "d", "text": "", "meta": {"x": float("nan")}}], "")

    with_queue(scenario, tmp_path)
    assert spooled(tmp_path) == (0, 0)


def test_log_lines_carry_request_and_job(tmp_path: Path) -> None:
    """While the work runs, request id and job id are bound, in the thread that does it."""
    bound = threading.local()
    seen: list[tuple[str, str]] = []

    @contextmanager
    def bind(request_id: str, job_id: str) -> Iterator[None]:
        bound.ids = (request_id, job_id)
        yield
        del bound.ids

    def work(documents: list[dict[str, Any]], tenant_id: str) -> int:
        seen.append(bound.ids)
        return 1

    async def scenario(queue: JobQueue) -> None:
        job = await queue.submit("acme", make_documents(1), "req-7")
        await finished(queue, job.job_id)
        assert seen == [("req-7", job.job_id)]

    with_queue(scenario, tmp_path, work, bind=bind)


def test_documents_of_unborn_jobs_are_pruned(tmp_path: Path) -> None:
    """What a crash between spooling and submitting left is cleared at the start; failed jobs keep theirs."""

    def work(documents: list[dict[str, Any]], tenant_id: str) -> int:
        raise ValueError("bad")

    async def leave_orphan(queue: JobQueue) -> None:
        job = await queue.submit("acme", make_documents(2), "")
        await finished(queue, job.job_id)
        await queue._spool.put("f" * 32, make_documents(3), "req")

    async def await_pruning(queue: JobQueue) -> None:
        async def is_pruned() -> bool:
            return len(await queue._spool.known_jobs(older_than_seconds=0)) == 1

        await until(is_pruned)

    with_queue(leave_orphan, tmp_path, work)
    assert spooled(tmp_path) == (2, 5)
    with_queue(await_pruning, tmp_path, work)
    assert spooled(tmp_path) == (1, 2)


def test_close_hands_jobs_back_at_the_batch(tmp_path: Path) -> None:
    """Closing waits for the batch under way; the next start goes on behind it and repeats nothing."""
    started = threading.Event()
    calls: list[str] = []

    def work(documents: list[dict[str, Any]], tenant_id: str) -> int:
        calls.append(documents[0]["id"])
        started.set()
        time.sleep(0.05)
        return 1

    async def begin(queue: JobQueue) -> None:
        await queue.submit("acme", make_documents(20), "")
        await until(started.is_set)

    jobs: list[Job] = []

    async def end(queue: JobQueue) -> None:
        [job_id] = await queue._spool.known_jobs(older_than_seconds=0)
        jobs.append(await finished(queue, job_id))

    with_queue(begin, tmp_path, work, batch_size=1)
    assert 0 < len(calls) < 20
    with_queue(end, tmp_path, work, batch_size=1)
    assert (jobs[0].status, jobs[0].attempts) == (JobStatus.DONE, 2)
    assert calls == [f"d{n}" for n in range(20)]


def test_close_does_not_wait_for_a_long_batch(tmp_path: Path) -> None:
    """A batch that outlasts the grace is left behind, its job handed back; its late end changes nothing."""
    started, gate = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def work(documents: list[dict[str, Any]], tenant_id: str) -> int:
        threads.append(threading.current_thread())
        started.set()
        gate.wait(DEADLINE_SECONDS)
        return 1

    async def begin(queue: JobQueue) -> None:
        await queue.submit("acme", make_documents(1), "")
        await until(started.is_set)

    async def end(queue: JobQueue) -> None:
        [job_id] = await queue._spool.known_jobs(older_than_seconds=0)
        gate.set()
        threads[0].join(DEADLINE_SECONDS)
        job = await finished(queue, job_id)
        assert (job.status, job.documents_ok, job.attempts) == (JobStatus.DONE, 1, 2)

    with_queue(begin, tmp_path, work, grace_seconds=0)
    with_queue(end, tmp_path, work)


def test_another_store_may_hold_the_executions(tmp_path: Path) -> None:
    """The queue works on any store of Hayhooks' protocol, here the one in memory."""
    store = MemoryExecutionStore("ingest")

    async def scenario(queue: JobQueue) -> None:
        job = await queue.submit("acme", make_documents(3), "req")
        assert await store.read_control(job.job_id) is not None
        job = await finished(queue, job.job_id)
        assert (job.status, job.chunks_ok, job.request_id) == (JobStatus.DONE, 6, "req")

    with_queue(scenario, tmp_path, store=store)


def test_closed_queue_is_unavailable(tmp_path: Path) -> None:
    """A queue that was closed, or whose file can't be opened, says so to each caller."""

    async def scenario() -> None:
        queue = JobQueue(count_two_each, data_dir=tmp_path)
        await queue.start()
        await queue.close()
        await queue.close()
        for attempt in (
            queue.submit("acme", make_documents(1), ""),
            queue.get("0" * 32),
            queue.cancel("0" * 32),
            queue.ping(),
        ):
            with pytest.raises(QueueUnavailableError):
                await attempt
        broken = JobQueue(count_two_each, data_dir=tmp_path / "missing")
        with pytest.raises(QueueUnavailableError):
            await broken.start()
        await broken.close()

    asyncio.run(scenario())


def test_event_loop_is_not_held_up(tmp_path: Path) -> None:
    """While work blocks its threads, the queue answers."""
    gate = threading.Event()

    def work(documents: list[dict[str, Any]], tenant_id: str) -> int:
        gate.wait(DEADLINE_SECONDS)
        return 1

    async def scenario(queue: JobQueue) -> None:
        job = await queue.submit("acme", make_documents(1), "")

        async def is_running() -> bool:
            seen = await queue.get(job.job_id)
            return seen is not None and seen.status is JobStatus.RUNNING

        await until(is_running)
        await queue.ping()
        gate.set()
        await finished(queue, job.job_id)

    with_queue(scenario, tmp_path, work)


SERVER = """
import asyncio, os, sys, time
from pathlib import Path
from serve.jobs import JobQueue

data_dir, effects, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
log = os.open(effects, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def work(documents, tenant_id):
    if mode == "hold":
        time.sleep(3600)
    for document in documents:
        if mode == "deadly" and (tenant_id, document["id"]) == ("two", "d5"):
            os._exit(9)
        # Slower than the deadly document, so that a bystander gets nothing done while that one is tried.
        time.sleep(0.15 if mode == "deadly" and tenant_id != "two" else 0.01)
        os.write(log, f"{tenant_id} {document['id']}\\n".encode())
    return len(documents)

async def main():
    queue = JobQueue(work, data_dir=data_dir, workers=3, batch_size=4)
    await queue.start()
    documents = [{"id": f"d{n}", "text": "-", "title": None, "meta": {}} for n in range(int(sys.argv[4]))]
    if documents:
        for tenant in ("one", "two", "three"):
            print((await queue.submit(tenant, documents, "req")).job_id, flush=True)
    job_ids = sys.argv[5:]
    while not job_ids or not all([(await queue.get(job_id)).status.finished for job_id in job_ids]):
        await asyncio.sleep(0.05)

asyncio.run(main())
"""


@contextmanager
def server(
    tmp_path: Path, *, mode: str = "slow", submit: int = 0, until_finished: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """A process that works on the jobs until these are finished, or is killed without warning at the end."""
    arguments = [str(tmp_path), str(tmp_path / "effects"), mode, str(submit), *until_finished]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def effects(tmp_path: Path) -> Counter[str]:
    path = tmp_path / "effects"
    return Counter(path.read_text().splitlines()) if path.exists() else Counter()


@pytest.mark.server
def test_kill_loses_nothing(tmp_path: Path) -> None:
    """A process killed in mid-job three times loses no document and repeats at most the batches under way."""
    per_job, kills = 40, 0

    async def watch(goal: int) -> None:
        await until(lambda: sum(effects(tmp_path).values()) >= goal)

    with server(tmp_path, submit=per_job) as process:
        assert process.stdout is not None
        job_ids = [process.stdout.readline().strip() for _ in range(3)]
        asyncio.run(watch(10))
        kills += 1
    for goal in (40, 70):
        with server(tmp_path):
            asyncio.run(watch(goal))
            kills += 1

    def log_effect(documents: list[dict[str, Any]], tenant_id: str) -> int:
        with (tmp_path / "effects").open("a") as log:
            for document in documents:
                log.write(f"{tenant_id} {document['id']}\n")
        return len(documents)

    async def scenario(queue: JobQueue) -> None:
        for job_id in job_ids:
            job = await finished(queue, job_id)
            assert (job.status, job.documents_ok, job.chunks_ok) == (JobStatus.DONE, per_job, per_job)
            assert (job.progress, job.errors) == (1.0, [])

    with_queue(scenario, tmp_path, log_effect, batch_size=4)
    seen = effects(tmp_path)
    assert set(seen) == {f"{tenant} d{n}" for tenant in ("one", "two", "three") for n in range(per_job)}
    workers, batch_size = 3, 4
    assert sum(seen.values()) - len(seen) <= kills * workers * batch_size
    assert spooled(tmp_path) == (3, 0)


@pytest.mark.server
def test_document_that_kills_the_process_is_found(tmp_path: Path) -> None:
    """A document at which the process dies each time is blamed in the end, and no other one is."""
    with server(tmp_path, mode="hold", submit=8) as process:
        assert process.stdout is not None
        job_ids = [process.stdout.readline().strip() for _ in range(3)]
    deaths = 0
    while True:
        with server(tmp_path, mode="deadly", until_finished=job_ids) as process:
            if process.wait(DEADLINE_SECONDS) == 0:
                break
        deaths += 1
        assert deaths < 10, "the document that ends the process is not found"

    async def scenario(queue: JobQueue) -> None:
        one, two, three = [await finished(queue, job_id) for job_id in job_ids]
        for job in (one, three):
            assert (job.status, job.documents_ok, job.errors) == (JobStatus.DONE, 8, [])
        assert (two.status, two.documents_ok) == (JobStatus.DONE, 7)
        assert [(e.document_id, e.error) for e in two.errors] == [
            ("d5", "the process ended 3 times while it indexed this document")
        ]

    with_queue(scenario, tmp_path)
