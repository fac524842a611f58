"""Random faults of every process and of every way between them, under load: what was promised holds all the same."""

import asyncio
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from benchmarks.report import console, save, show
from tests.cluster import Cluster, Process
from tests.crashing import CrashProtocol
from tests.fault_proxy import FaultProxy, running_proxy
from tests.stub_llm import running_stub

FAULTS, QUICK_FAULTS = 60, 12
DOCUMENTS, QUICK_DOCUMENTS = 300, 60
CLIENTS = 3
# Now and then longer than a worker's lease.
SECONDS_OF_FAULT = (0.2, 6.0)
SECONDS_BETWEEN = (0.2, 2.0)
DEADLINE = 600.0
REQUEST_TIMEOUT = 10.0
# How much later than its deadline an answer may come while everything around it is killed.
GRACE = 20.0
SEED = 1


class Fault(NamedTuple):
    """Something that goes wrong for a while."""

    name: str
    begin: Callable[[], None]
    end: Callable[[], None]


async def measure(quick: bool) -> None:
    """
    Run the chaos, print and save; `SEED` in the environment chooses the faults.

    :param quick: fewer faults and smaller jobs.
    :raises RuntimeError: if a promise was broken.
    """
    seed = int(os.environ.get("SEED", SEED))
    row, answers, broken = await asyncio.to_thread(_run, seed, quick)
    show(f"{row['faults']} faults under load, seed {seed}", [row])
    show(
        "What callers were answered meanwhile", [{"answer": kind, "times": n} for kind, n in answers.items()]
    )
    console.print(save("chaos", [row], seed=seed, answers=answers, broken=broken))
    if broken:
        raise RuntimeError("\n".join(["the chaos broke:", *broken[:50]]))


def _run(seed: int, quick: bool) -> tuple[dict[str, Any], dict[str, int], list[str]]:
    count, documents = (QUICK_FAULTS, QUICK_DOCUMENTS) if quick else (FAULTS, DOCUMENTS)
    chance = random.Random(seed)
    begin = time.monotonic()
    with _cluster() as (cluster, proxies):
        protocol = CrashProtocol(cluster, tenants=3, jobs=3, documents=documents)
        posting = threading.Thread(target=protocol.post)
        load = Load(cluster.url)
        posting.start()
        with load.running():
            for _ in range(count):
                fault = chance.choice(list(_faults(cluster, proxies)))
                console.print(fault.name)
                fault.begin()
                time.sleep(chance.uniform(*SECONDS_OF_FAULT))
                fault.end()
                time.sleep(chance.uniform(*SECONDS_BETWEEN))
            posting.join()
        outcome = protocol.outcome(DEADLINE)
        broken = [*outcome.faults, *load.broken, *_unforeseen(cluster.service.log())]
    row = {
        "faults": count,
        "jobs": len(outcome.jobs),
        "documents": outcome.documents,
        "chunks": outcome.chunks,
        "attempts": sum(job["attempts"] for job in outcome.jobs),
        "seconds": time.monotonic() - begin,
        "broken": len(broken),
    }
    return row, dict(sorted(load.answers.items())), broken


def _unforeseen(log: str) -> Iterator[str]:
    """:returns: What the service's log says of errors that nobody foresaw."""
    return (line for line in log.splitlines() if "unhandled error" in line or "internal-error" in line)


class Load:
    """
    Callers that ask, list and look without a pause, and see that each refusal is an explained one.

    :param url: the service.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._ending = threading.Event()
        self.answers: Counter[str] = Counter()
        self.broken: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have the callers call meanwhile."""
        callers = [threading.Thread(target=self._call, args=(number,)) for number in range(CLIENTS)]
        for caller in callers:
            caller.start()
        try:
            yield
        finally:
            self._ending.set()
            for caller in callers:
                caller.join()

    def _call(self, number: int) -> None:
        tenant = {"tenant_id": f"tenant{number}"}
        asked = {"q": "Which document is it?", "mode": "crag", **tenant}
        turns = [
            ("POST", "/query/", {"json": asked}),
            ("POST", "/query/", {"json": {**asked, "mode": "structured"}}),
            ("GET", "/documents", {"params": tenant}),
            ("GET", "/ingest/", {"params": tenant}),
            ("GET", "/ready", {}),
            ("GET", "/health", {}),
        ]
        with httpx.Client(base_url=self._url, timeout=REQUEST_TIMEOUT + GRACE, trust_env=False) as client:
            while not self._ending.is_set():
                for method, path, sent in turns:
                    self._one(client, method, path, sent)

    def _one(self, client: httpx.Client, method: str, path: str, sent: dict[str, Any]) -> None:
        try:
            answer = client.request(method, path, **sent)
        except httpx.TimeoutException:
            self.broken.append(f"{method} {path} was not answered in time")
            return
        except httpx.TransportError:
            # The service itself was killed.
            self.answers["no connection"] += 1
            time.sleep(0.1)
            return
        kind = answer.json().get("type", "").rpartition(":")[2] if answer.status_code >= 400 else ""
        self.answers[f"{answer.status_code} {kind}".strip()] += 1
        explained = kind or path == "/ready"
        if answer.status_code == 500 or (answer.status_code >= 400 and not explained):
            self.broken.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        if answer.status_code == 503 and "retry-after" not in answer.headers:
            self.broken.append(f"{method} {path}: 503 {kind} without Retry-After")


def _faults(cluster: Cluster, proxies: dict[str, FaultProxy]) -> Iterator[Fault]:
    for number, process in enumerate(cluster.killable):
        name = f"worker {number}" if number else "service"
        yield Fault(f"{name} killed", process.kill, _starting(process))
    for number, worker in enumerate(cluster.workers):
        yield Fault(
            f"worker {number} frozen", _signal(worker, signal.SIGSTOP), _signal(worker, signal.SIGCONT)
        )
    assert cluster.redis is not None
    assert cluster.chroma is not None
    yield Fault("Redis killed", cluster.redis.kill, cluster.redis.start)
    yield Fault("Chroma killed", cluster.chroma.kill, cluster.chroma.start)
    for name, proxy in proxies.items():
        yield Fault(f"{name} hangs", proxy.hang, proxy.mend)
        yield Fault(f"{name} drips", lambda proxy=proxy: proxy.drip(0.01), proxy.mend)
        yield Fault(f"{name} is reset", proxy.reset, proxy.mend)
        yield Fault(f"{name} refuses", proxy.refuse, proxy.mend)
        yield Fault(f"{name} is cut", lambda proxy=proxy: proxy.cut(2_000), proxy.mend)


def _starting(process: Process) -> Callable[[], None]:
    # Not until it is ready: the next fault may keep it from that.
    return lambda: process.start(wait=False)


def _signal(process: Process, number: int) -> Callable[[], None]:
    return lambda: os.kill(process.pid, number)


@contextmanager
def _cluster() -> Iterator[tuple[Cluster, dict[str, FaultProxy]]]:
    """Run service, workers, Redis, Chroma and a model's stub, with a proxy before each of the last three."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thresher-chaos-")))
        stub = stack.enter_context(running_stub())
        limits = {"REQUEST_TIMEOUT": str(REQUEST_TIMEOUT), "LLM_TIMEOUT": "5", "CHROMA_TIMEOUT": "3"}
        cluster = Cluster(folder, redis=True, INGEST_BATCH_SIZE="20", **limits)
        assert cluster.redis is not None
        places = {
            "model": stub.url,
            "Redis": cluster.redis.url,
            "Chroma": f"http://127.0.0.1:{cluster.environment['CHROMA_PORT']}",
        }
        proxies = {name: stack.enter_context(running_proxy(url)) for name, url in places.items()}
        cluster.environment |= {
            "LLM_PROVIDER": "openai",
            "DEFAULT_MODEL": "stub",
            "OPENAI_BASE_URL": f"{proxies['model'].url(stub.url)}/v1",
            "REDIS_URL": proxies["Redis"].url(places["Redis"]),
            "CHROMA_PORT": str(proxies["Chroma"].port),
        }
        stack.callback(cluster.stop)
        cluster.start()
        yield cluster, proxies
