"""How soon the service says that it is alive while it is busy."""

import asyncio
import time
from contextlib import suppress
from statistics import quantiles
from typing import Any

from benchmarks import load
from benchmarks.processes import RunningServer
from benchmarks.raw_http import RawClient
from benchmarks.report import aim, console, save, show
from benchmarks.rig import Rig, rig

CLIENTS = 64
PAUSE_SECONDS = 0.01
P99_AIM_MS = 30.0


async def measure(quick: bool) -> None:
    """
    Measure, print and save.

    :param quick: a shorter time.
    """
    seconds = 3.0 if quick else 10.0
    async with rig("ollama") as servers:
        rows = [await _row(servers, latency, seconds) for latency in (500, 50, 0)]
    show(f"GET /health with {CLIENTS} standard queries in flight", rows)
    console.print(save("health", rows, clients=CLIENTS))


async def _row(servers: Rig, latency: int, seconds: float) -> dict[str, Any]:
    await servers.set_latency(0)
    for server in (servers.floor, servers.service):
        await load.ask(server, servers.questions, "standard", len(servers.questions))
    await servers.set_latency(latency)
    floor = await _answer_times(servers.floor, servers.questions, seconds)
    service = await _answer_times(servers.service, servers.questions, seconds)
    return {
        "model call ms": latency,
        "floor p50 ms": floor[49],
        "floor p99 ms": floor[98],
        "p50 ms": service[49],
        "p99 ms": service[98],
        # With calls of no time a client never waits: that is how much the machine can do, not what is in flight.
        "aim": aim(service[98], most=P99_AIM_MS) if latency == 500 else "",
    }


async def _answer_times(server: RunningServer, questions: list[str], seconds: float) -> list[float]:
    """:returns: Percentiles 1 to 99 of the milliseconds until `/health` answers."""
    asking = asyncio.create_task(load.crowd(server, questions, "standard", CLIENTS, seconds + 1))
    await asyncio.sleep(0.5)
    client, times = RawClient(server.port), []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        status, _ = await client.send("GET", "/health")
        times.append(1000 * (time.perf_counter() - begin))
        assert status == 200
        await asyncio.sleep(PAUSE_SECONDS)
    client.close()
    with suppress(asyncio.CancelledError):
        await asking
    return quantiles(times, n=100)
