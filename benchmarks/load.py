"""Clients that ask without a pause, and what they see."""

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from statistics import median

import orjson

from benchmarks.processes import RunningServer


@dataclass
class Seen:
    """What clients saw of a server during some time."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    late: int = 0
    """Queries whose answer came after that time."""
    latencies: list[float] = field(default_factory=list)

    @property
    def queries(self) -> int:
        """:returns: How many queries were answered in time."""
        return len(self.latencies)

    @property
    def p50_ms(self) -> float:
        """:returns: The median time of a query."""
        return 1000 * median(self.latencies) if self.latencies else float("inf")

    @property
    def cpu_ms(self) -> float:
        """:returns: Processor time of the server for each query."""
        return 1000 * self.cpu_seconds / (self.queries + self.late)

    @property
    def per_second(self) -> float:
        """:returns: Queries answered in a second."""
        return self.queries / self.seconds


async def ask(
    server: RunningServer, questions: list[str], mode: str, count: int, tenant: str = "default"
) -> Seen:
    """
    Ask one question after the other.

    :param server: the server.
    :param questions: the questions, asked in turn.
    :param mode: the mode.
    :param count: how many queries.
    :param tenant: whose documents are asked about.
    :returns: what was seen.
    """
    seen = Seen()
    bodies = itertools.islice(itertools.cycle(_bodies(questions, tenant)), count)
    begin, cpu = time.perf_counter(), await server.cpu_seconds()
    for body in bodies:
        await _one(server, mode, body, seen)
    seen.seconds, seen.cpu_seconds = time.perf_counter() - begin, await server.cpu_seconds() - cpu
    return seen


async def crowd(server: RunningServer, questions: list[str], mode: str, clients: int, seconds: float) -> Seen:
    """
    Have many clients ask at once; queries still under way at the end are waited for and count as late.

    :param server: the server.
    :param questions: the questions, asked in turn.
    :param mode: the mode.
    :param clients: how many.
    :param seconds: for how long.
    :returns: what was seen.
    """
    seen = Seen()
    bodies = itertools.cycle(_bodies(questions))
    begin, cpu = time.perf_counter(), await server.cpu_seconds()
    end = begin + seconds

    async def client() -> None:
        while time.perf_counter() < end:
            await _one(server, mode, next(bodies), seen, end)

    await asyncio.gather(*(client() for _ in range(clients)))
    seen.seconds, seen.cpu_seconds = seconds, await server.cpu_seconds() - cpu
    return seen


def _bodies(questions: list[str], tenant: str = "default") -> list[bytes]:
    return [orjson.dumps({"q": question, "k": 5, "tenant_id": tenant}) for question in questions]


async def _one(
    server: RunningServer, mode: str, body: bytes, seen: Seen, until: float = float("inf")
) -> None:
    begin = time.perf_counter()
    status, answer = await server.client.send("POST", f"/query/?mode={mode}", body)
    end = time.perf_counter()
    if status != 200:
        raise RuntimeError(f"a query in mode '{mode}' answered {status}: {answer[:500]!r}")
    if end <= until:
        seen.latencies.append(end - begin)
    else:
        seen.late += 1
