"""What a second `thresher worker` brings: real Redis, a real Chroma server, and the built-in embedding model."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from benchmarks.corpus import MADE_UP, documents
from benchmarks.jobs import ENDS, POLL_SECONDS
from benchmarks.report import aim, console, save, show
from tests.cluster import Cluster, Process

SPEED_UP_AIM = 1.6
# A worker takes a job as a whole, so there must be several.
JOBS = 8
START_SECONDS = 60.0


class ThresherCluster(Cluster):
    """A service and two workers as the command starts them, each working on one job at a time."""

    def __init__(self, folder: Path) -> None:
        """
        Set all up; nothing runs yet.

        :param folder: where everything lies.
        """
        super().__init__(folder, redis=True, INGEST_WORKERS="1")

    def _process(self, name: str, words: list[str], answers: Callable[[], bool]) -> Process:
        told = words[1:] if "serve" in words else ["worker"]
        log = self._folder / f"{name}.log"
        command = [sys.executable, "-c", "from serve.cli import app; app()", *told]
        # Each worker says on a file of its own that it lives.
        environment = {**self.environment, "DATA_DIR": str(self._folder / name)}
        return Process(command, environment, log, answers)


async def measure(quick: bool) -> None:
    """
    Measure, print and save.

    :param quick: fewer documents.
    """
    row = await asyncio.to_thread(_row, 10 if quick else 40, 1 if quick else 3)
    show("Workers on one machine, embedding with MiniLM", [row])
    console.print(save("workers", [row]))


def _row(texts: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="thresher-bench-") as folder:
        cluster = ThresherCluster(Path(folder))
        second = cluster.workers.pop()
        try:
            cluster.start()
            _wait_ready(cluster.workers[0], times=1)
            _seconds(cluster, 4, "warm-up")
            one, two = [], []
            for number in range(rounds):
                one.append(JOBS * texts / _seconds(cluster, texts, f"one-{number}"))
                second.start()
                _wait_ready(second, times=number + 1)
                two.append(JOBS * texts / _seconds(cluster, texts, f"two-{number}"))
                second.stop()
        finally:
            second.stop()
            cluster.stop()
    speed_up = median(b / a for a, b in zip(one, two, strict=True))
    return {
        "jobs": JOBS,
        "texts": JOBS * texts,
        "one worker, chunks/s": median(one),
        "two workers, chunks/s": median(two),
        "speed-up": speed_up,
        "aim": aim(speed_up, least=SPEED_UP_AIM),
    }


def _seconds(cluster: Cluster, texts: int, tenant: str) -> float:
    """How long it takes to work off all jobs."""
    posted = documents(MADE_UP, JOBS * texts)
    with cluster.client() as client:
        begin = time.perf_counter()
        for part in _parts(posted, texts):
            body = {"tenant_id": tenant, "documents": part}
            client.post("/ingest/", json=body).raise_for_status()
        while _unfinished(client, tenant):
            time.sleep(POLL_SECONDS)
        return time.perf_counter() - begin


def _unfinished(client: httpx.Client, tenant: str) -> int:
    found = client.get("/ingest/", params={"tenant_id": tenant, "limit": JOBS}).raise_for_status().json()
    states = [job["status"] for job in found["items"]]
    if "failed" in states:
        raise RuntimeError(f"a job failed: {found}")
    return sum(state not in ENDS for state in states)


def _parts(posted: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    for begin in range(0, len(posted), size):
        yield posted[begin : begin + size]


def _wait_ready(worker: Process, times: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while worker.log().count("ready: works on") < times:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the worker did not start:\n{worker.log()[-2000:]}")
        time.sleep(0.1)
