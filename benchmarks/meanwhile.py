"""What queries and `GET /health` notice of an ingest, and what the ingest notices of the queries."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks import jobs, load
from benchmarks.corpus import MADE_UP, documents, questions, texts
from benchmarks.processes import RunningServer, running
from benchmarks.raw_http import RawClient
from benchmarks.report import aim
from benchmarks.rig import ingest
from serve.pacing import MOMENT

CHUNKS = 1_000
LATENCY_MS = 50
HEALTH_PAUSE = 0.01
HEALTH_AIM_MS = 60.0
P50_AIM, P99_AIM, RATE_AIM = 1.7, 3.0, 0.4
# More than are ever indexed while it is measured.
TEXTS = 10_000

Row = dict[str, Any]


@dataclass
class _Times:
    """Milliseconds of answers."""

    queries: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)


@dataclass
class _Seen:
    """What was seen over the rounds: with queries only, ingest only, and both."""

    alone: _Times = field(default_factory=_Times)
    ingesting: _Times = field(default_factory=_Times)
    both: _Times = field(default_factory=_Times)
    rates_alone: list[float] = field(default_factory=list)
    rates_both: list[float] = field(default_factory=list)


async def rows(quick: bool) -> list[Row]:
    """
    Measure.

    :param quick: shorter times, and one kind of embeddings.
    :returns: a row for each number of clients and kind of embeddings.
    """
    seconds, rounds = (3.0, 1) if quick else (6.0, 3)
    found = []
    for embeddings in ("hashing",) if quick else ("hashing", "minilm"):
        async with _servers(embeddings) as (server, asked):
            for clients in (1, 8):
                seen = _Seen()
                for number in range(rounds):
                    await _round(server, asked, clients, seconds, seen, f"{clients}-{number}")
                found.append(_row(embeddings, clients, seen))
    return found


def _row(embeddings: str, clients: int, seen: _Seen) -> Row:
    alone, both = quantiles(seen.alone.queries, n=100), quantiles(seen.both.queries, n=100)
    share = median(b / a for a, b in zip(seen.rates_alone, seen.rates_both, strict=True))
    health = [quantiles(times.health, n=100)[98] for times in (seen.alone, seen.ingesting, seen.both)]
    return {
        "embeddings": embeddings,
        "clients": clients,
        "p50 ms alone": alone[49],
        "during": both[49],
        "p50 ratio": both[49] / alone[49],
        "p50 aim": aim(both[49] / alone[49], most=P50_AIM),
        "p99 ms alone": alone[98],
        "during ": both[98],
        "p99 ratio": both[98] / alone[98],
        "p99 aim": aim(both[98] / alone[98], most=P99_AIM),
        "chunks/s alone": median(seen.rates_alone),
        "during  ": median(seen.rates_both),
        "rate ratio": share,
        "rate aim": aim(share, least=RATE_AIM),
        "health p99 ms: queries, ingest, both": " ".join(f"{value:.0f}" for value in health),
        "health aim": aim(max(health[1:]), most=HEALTH_AIM_MS),
    }


async def _round(
    server: RunningServer, asked: list[str], clients: int, seconds: float, seen: _Seen, tenant: str
) -> None:
    await _watch(server, asked, clients, seconds, seen.alone)
    # Until the service takes it that nobody asks any more.
    await asyncio.sleep(MOMENT + 0.5)
    job_id = await jobs.submit(server, jobs.body_of(documents(MADE_UP, TEXTS), f"busy-{tenant}"))
    # Until it has begun.
    await _next_count(server, job_id)
    seen.rates_alone.append(await _rate(server, job_id, asyncio.sleep(seconds)))
    await _watch(server, asked, 0, seconds, seen.ingesting)
    watching = _watch(server, asked, clients, seconds, seen.both)
    seen.rates_both.append(await _rate(server, job_id, watching))
    await jobs.cancel(server, job_id)


async def _rate(server: RunningServer, job_id: str, meanwhile: Any) -> float:
    """Chunks in a second between two changes of the count, of which the second comes after `meanwhile`."""
    first, begin = await _next_count(server, job_id)
    await meanwhile
    last, end = await _next_count(server, job_id)
    return (last - first) / (end - begin)


async def _next_count(server: RunningServer, job_id: str) -> tuple[int, float]:
    count = before = await jobs.chunks_so_far(server, job_id)
    while count == before:
        await asyncio.sleep(jobs.POLL_SECONDS / 5)
        count = await jobs.chunks_so_far(server, job_id)
    return count, time.perf_counter()


async def _watch(
    server: RunningServer, asked: list[str], clients: int, seconds: float, times: _Times
) -> None:
    """Ask with some clients, and for `/health`, for some seconds."""
    asking = asyncio.create_task(load.crowd(server, asked, "standard", clients, seconds))
    client, end = RawClient(server.port), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        status, _ = await client.send("GET", "/health")
        times.health.append(1000 * (time.perf_counter() - begin))
        assert status == 200
        await asyncio.sleep(HEALTH_PAUSE)
    client.close()
    times.queries += [1000 * latency for latency in (await asking).latencies]


@asynccontextmanager
async def _servers(embeddings: str) -> AsyncIterator[tuple[RunningServer, list[str]]]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thresher-bench-")))
        stub = await stack.enter_async_context(running("stub_llm", log=folder / "stub.log", ready="/stub"))
        options = ("--data", str(folder / "service"), "--embeddings", embeddings)
        port = ("--llm-port", str(stub.port), "--provider", "ollama")
        server = await stack.enter_async_context(
            running("service", *options, *port, log=folder / "service.log", ready="/ready")
        )
        await stub.post(f"/stub?latency_ms={LATENCY_MS}", {})
        written = texts(CHUNKS if embeddings == "hashing" else CHUNKS // 10)
        await ingest(server, written)
        asked = questions(written)
        # What is asked again is known to the caches, as in a service with some traffic.
        await load.crowd(server, asked, "standard", 8, 2.0)
        yield server, asked
