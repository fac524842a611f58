"""What the service does with more questions than it can answer: whom it refuses, how soon, and who notices."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import orjson

from benchmarks.corpus import questions, texts
from benchmarks.processes import RunningServer, running
from benchmarks.raw_http import RawClient
from benchmarks.report import aim, console, save, show
from benchmarks.rig import ingest

CHUNKS = 200
SLOTS = 8
CALL_MS = 500
CROWD, POLITE = "crowd", "polite"
HEALTH_PAUSE = 0.01


@dataclass
class _Outcome:
    """Milliseconds until an answer, and until a refusal."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)


async def measure(quick: bool) -> None:
    """
    Measure, print and save.

    :param quick: shorter times.
    """
    seconds = 5.0 if quick else 20.0
    async with _servers() as (stub, service, asked):
        idle = _Outcome()
        await _ask_in_turn(service, CROWD, asked, seconds, idle)
        overload = [await _overloaded(service, asked, seconds, idle, times) for times in (3, 10)]
        fairness = [
            await _beside_a_crowd(service, asked, seconds, crowd) for crowd in (3 * SLOTS, 10 * SLOTS)
        ]
        await stub.post("/stub?latency_ms=2000", {})
        health = [await _health(service, asked, seconds, 200)]
    about = f"{SLOTS} calls of {CALL_MS} ms at a time"
    show(f"clients that ask without a pause, {about}", overload)
    show(f"one question a second of a tenant beside another one's crowd, {about}", fairness)
    show("GET /health beside clients that ask without a pause, calls of 2000 ms", health)
    console.print(save("overload", overload, fairness=fairness, health=health, slots=SLOTS, call_ms=CALL_MS))


async def _overloaded(
    service: RunningServer, asked: list[str], seconds: float, idle: _Outcome, times: int
) -> dict[str, Any]:
    seen = _Outcome()
    await _crowd(service, CROWD, asked, times * SLOTS, seconds, seen)
    answered, alone, refused = (_percentiles(each) for each in (seen.answered, idle.answered, seen.refused))
    ratio = answered[98] / alone[98]
    return {
        "clients ÷ slots": times,
        "idle p99 ms": alone[98],
        "answered p50 ms": answered[49],
        "p99 ms": answered[98],
        "÷ idle": ratio,
        "aim": aim(ratio, most=2.0),
        "answered ÷ possible": len(seen.answered) / seconds / (SLOTS * 1000 / CALL_MS),
        "refused/s": len(seen.refused) / seconds,
        "refused p50 ms": refused[49],
        "refused p99 ms": refused[98],
        "refused aim": aim(refused[98], most=100.0) if times == 3 else "",
    }


async def _beside_a_crowd(
    service: RunningServer, asked: list[str], seconds: float, clients: int
) -> dict[str, Any]:
    alone, beside, crowd = _Outcome(), _Outcome(), _Outcome()
    await _once_a_second(service, POLITE, asked, seconds, alone)
    flood = asyncio.create_task(_crowd(service, CROWD, asked, clients, seconds + 1, crowd))
    await asyncio.sleep(0.5)
    await _once_a_second(service, POLITE, asked, seconds, beside)
    await flood
    before, after = _percentiles(alone.answered)[94], _percentiles(beside.answered)[94]
    return {
        "crowd": clients,
        "alone p95 ms": before,
        "beside p95 ms": after,
        "ratio": after / before,
        "aim": aim(after / before, most=1.5),
        "refused": len(beside.refused),
        "crowd answered/s": len(crowd.answered) / (seconds + 1),
        "crowd refused/s": len(crowd.refused) / (seconds + 1),
    }


async def _health(service: RunningServer, asked: list[str], seconds: float, clients: int) -> dict[str, Any]:
    flood = asyncio.create_task(_crowd(service, CROWD, asked, clients, seconds + 1, _Outcome()))
    await asyncio.sleep(0.5)
    client, times = RawClient(service.port), []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        assert (await client.send("GET", "/health"))[0] == 200
        times.append(1000 * (time.perf_counter() - begin))
        await asyncio.sleep(HEALTH_PAUSE)
    client.close()
    await flood
    seen = _percentiles(times)
    return {"clients": clients, "p50 ms": median(times), "p99 ms": seen[98], "aim": aim(seen[98], most=50.0)}


async def _crowd(
    service: RunningServer, tenant: str, asked: list[str], clients: int, seconds: float, seen: _Outcome
) -> None:
    """Have many clients ask at once, each anew as soon as it is answered or refused."""
    bodies, end = _bodies(asked, tenant), time.perf_counter() + seconds

    async def client() -> None:
        while time.perf_counter() < end:
            await _one(service, next(bodies), seen)

    await asyncio.gather(*(client() for _ in range(clients)))


async def _ask_in_turn(
    service: RunningServer, tenant: str, asked: list[str], seconds: float, seen: _Outcome
) -> None:
    await _crowd(service, tenant, asked, 1, seconds, seen)


async def _once_a_second(
    service: RunningServer, tenant: str, asked: list[str], seconds: float, seen: _Outcome
) -> None:
    bodies, tasks = _bodies(asked, tenant), []
    for _ in range(int(seconds)):
        tasks.append(asyncio.create_task(_one(service, next(bodies), seen)))
        await asyncio.sleep(1)
    await asyncio.gather(*tasks)


async def _one(service: RunningServer, body: bytes, seen: _Outcome) -> None:
    begin = time.perf_counter()
    status, answer = await service.client.send("POST", "/query/?mode=standard", body)
    milliseconds = 1000 * (time.perf_counter() - begin)
    if status == 200:
        seen.answered.append(milliseconds)
    elif status == 503 and b"overloaded" in answer:
        seen.refused.append(milliseconds)
    else:
        raise RuntimeError(f"a question was answered with {status}: {answer[:500]!r}")


def _bodies(asked: list[str], tenant: str) -> Iterator[bytes]:
    return cycle([orjson.dumps({"q": question, "k": 5, "tenant_id": tenant}) for question in asked])


def _percentiles(times: list[float]) -> list[float]:
    # None where there are too few to tell.
    return quantiles(times, n=100, method="inclusive") if len(times) > 1 else [float("nan")] * 99


@asynccontextmanager
async def _servers() -> AsyncIterator[tuple[RunningServer, RunningServer, list[str]]]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thresher-bench-")))
        stub = await stack.enter_async_context(
            running("stub_llm", "--latency-ms", str(CALL_MS), log=folder / "stub.log", ready="/stub")
        )
        options = ("--data", str(folder / "service"), "--llm-concurrency", str(SLOTS))
        port = ("--llm-port", str(stub.port), "--provider", "ollama")
        service = await stack.enter_async_context(
            running("service", *options, *port, log=folder / "service.log", ready="/ready")
        )
        written = texts(CHUNKS)
        for tenant in (CROWD, POLITE):
            await ingest(service, written, tenant)
        yield stub, service, questions(written)
