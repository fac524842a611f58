"""Jobs that a process leaves behind, closed in good order or killed: they go on in the next one."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from serve.jobs import (
    Job,
    JobInput,
    JobQueue,
    JobStatus,
    LoadedSource,
    SourceResult,
    SourceStatus,
    sqlite_backend,
)
from tests.job_parts import (
    DEADLINE_SECONDS,
    Gate,
    finished,
    index_all,
    make_sources,
    spooled,
    submit,
    until,
    with_queue,
)

ROOT = Path(__file__).parents[3]


async def only_job(queue: JobQueue, tenant_id: str = "acme") -> str:
    [job], _ = await queue.list(tenant_id)
    return job.job_id


def test_close_hands_jobs_back_at_the_batch(tmp_path: Path) -> None:
    """Closing waits for the batch under way; the next start goes on behind it and repeats nothing."""
    started = threading.Event()
    calls: list[str] = []

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        calls.append(sources[0].id)
        started.set()
        time.sleep(0.05)
        return index_all(job, sources)

    async def begin(queue: JobQueue) -> None:
        await submit(queue, make_sources(20))
        await until(started.is_set)

    jobs: list[Job] = []

    async def end(queue: JobQueue) -> None:
        jobs.append(await finished(queue, await only_job(queue)))

    with_queue(begin, tmp_path, work, batch_size=1)
    assert 0 < len(calls) < 20
    with_queue(end, tmp_path, work, batch_size=1)
    assert (jobs[0].status, jobs[0].attempts, jobs[0].documents_ok) == (JobStatus.DONE, 2, 20)
    assert calls == [f"d{n}" for n in range(20)]


def test_close_does_not_wait_for_a_long_batch(tmp_path: Path) -> None:
    """A batch that outlasts the grace is left behind, its job handed back; its late end changes nothing."""
    work = Gate()
    threads: list[threading.Thread] = []

    def remembered(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        threads.append(threading.current_thread())
        return work(job, sources)

    async def begin(queue: JobQueue) -> None:
        await submit(queue, make_sources(1))
        await until(work.started.is_set)

    async def end(queue: JobQueue) -> None:
        work.open.set()
        threads[0].join(DEADLINE_SECONDS)
        job = await finished(queue, await only_job(queue))
        assert (job.status, job.documents_ok, job.attempts) == (JobStatus.DONE, 1, 2)

    with_queue(begin, tmp_path, remembered, grace_seconds=0)
    with_queue(end, tmp_path, work)


def test_closing_is_held_against_nobody(tmp_path: Path) -> None:
    """A batch that each time outlasts the grace of a closing process is not taken for one that ends processes."""
    work = Gate()

    async def begin(queue: JobQueue) -> None:
        if not (await queue.list("acme"))[0]:
            await submit(queue, make_sources(3))
        await until(work.started.is_set)
        work.started.clear()

    async def end(queue: JobQueue) -> None:
        job = await finished(queue, await only_job(queue))
        assert (job.status, job.documents_ok, job.attempts) == (JobStatus.DONE, 3, 6)

    for _ in range(5):
        with_queue(begin, tmp_path, work, grace_seconds=0)
    work.open.set()
    with_queue(end, tmp_path, work)


def test_accepted_before_a_crash_is_worked_on(tmp_path: Path) -> None:
    """A job whose process ended between keeping its documents and queueing it is queued by the next one."""

    async def crash() -> None:
        backend = sqlite_backend(tmp_path)
        queue = JobQueue(index_all, backend, works=False)
        await queue.start()
        await backend.spool.put(row, make_sources(3), {})
        seen = await queue.get(row.job_id)
        assert seen is not None
        assert seen.status is JobStatus.PENDING
        await queue.close()

    async def go_on(queue: JobQueue) -> None:
        job = await finished(queue, row.job_id)
        assert (job.status, job.documents_ok) == (JobStatus.DONE, 3)

    row = JobInput(job_id="f" * 32, tenant_id="acme", total=3, created_at=time.time())
    asyncio.run(crash())
    with_queue(go_on, tmp_path)


def test_retry_before_a_crash_is_worked_on(tmp_path: Path) -> None:
    """A retry whose process ended before the job was queued again is queued by the next one."""

    def work(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        if job.run == 0:
            raise ValueError("bad")
        return index_all(job, sources)

    job_ids: list[str] = []

    async def crash(queue: JobQueue) -> None:
        job_ids.append(await submit(queue, make_sources(3)))
        await finished(queue, job_ids[0])
        row = await queue._spool.get(job_ids[0])
        assert row is not None
        await queue._spool.reopen(row, "req-2")

    async def go_on(queue: JobQueue) -> None:
        job = await finished(queue, job_ids[0])
        assert (job.status, job.documents_ok, job.request_id) == (JobStatus.DONE, 3, "req-2")

    with_queue(crash, tmp_path, work)
    with_queue(go_on, tmp_path, work)


SERVER = """
import asyncio, os, sys, time
from pathlib import Path
from serve.jobs import JobQueue, sqlite_backend
from tests.job_parts import make_sources, ok, submit

data_dir, effects, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
log = os.open(effects, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def work(job, sources):
    if mode == "hold":
        time.sleep(3600)
    for source in sources:
        if mode == "deadly" and (job.tenant_id, source.id) == ("two", "d5"):
            os._exit(9)
        # Slower than the deadly document, so that a bystander gets nothing done while that one is tried.
        time.sleep(0.15 if mode == "deadly" and job.tenant_id != "two" else 0.01)
        os.write(log, f"{job.tenant_id} {source.id}\\n".encode())
    return [ok(source, 1) for source in sources]

async def main():
    queue = JobQueue(work, sqlite_backend(data_dir), workers=3, batch_size=4)
    await queue.start()
    if count := int(sys.argv[4]):
        for tenant in ("one", "two", "three"):
            print(await submit(queue, make_sources(count), tenant), flush=True)
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

    def log_effect(job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        with (tmp_path / "effects").open("a") as log:
            for source in sources:
                log.write(f"{job.tenant_id} {source.id}\n")
        return index_all(job, sources)

    async def scenario(queue: JobQueue) -> None:
        for job_id in job_ids:
            job = await finished(queue, job_id)
            assert (job.status, job.documents_ok, job.progress) == (JobStatus.DONE, per_job, 1.0)
            assert {result.status for result in job.sources} == {SourceStatus.OK}

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
            assert (job.status, job.documents_ok, job.documents_failed) == (JobStatus.DONE, 8, 0)
        assert (two.status, two.documents_ok) == (JobStatus.DONE, 7)
        failed = [result for result in two.sources if result.status is SourceStatus.FAILED]
        assert [(result.document_id, result.reason) for result in failed] == [
            ("d5", "the process ended 3 times while it indexed this document")
        ]

    with_queue(scenario, tmp_path)
