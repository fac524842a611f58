"""Whether the service stays as it is over very many requests and jobs: its memory, threads and open files."""

import asyncio
import itertools
import random
from collections import Counter
from typing import Any

import orjson

from benchmarks import jobs
from benchmarks.processes import RunningServer
from benchmarks.report import aim, console, save, show
from benchmarks.rig import rig

REQUESTS, JOBS = 100_000, 10_000
QUICK_REQUESTS, QUICK_JOBS = 20_000, 1_000
ROUNDS = 10
CLIENTS = 8
# A tenant's documents are replaced again and again, so that what is stored stays the same.
DOCUMENTS = 50
GROWTH_AIM = 1.05
STREAMED, LEAVING = 0.1, 0.3
MODES = ("standard", "crag", "structured", "crag_structured")


async def measure(quick: bool) -> None:
    """
    Send all requests and jobs in rounds, print what the process holds after each, and save.

    :param quick: a fifth of the requests and a tenth of the jobs.
    :raises RuntimeError: if anything was answered in another way than it should be, or the memory grows.
    """
    requests, job_count = (QUICK_REQUESTS, QUICK_JOBS) if quick else (REQUESTS, JOBS)
    async with rig() as servers:
        soak = _Soak(servers.service, servers.questions)
        # The first round fills caches and pools, which is no leak.
        await soak.round(requests // ROUNDS, job_count // ROUNDS)
        rows = [soak.row(0)]
        for number in range(1, ROUNDS + 1):
            await soak.round(requests // ROUNDS, job_count // ROUNDS)
            rows.append(soak.row(number))
            console.print(rows[-1], soft_wrap=True)
    growth = rows[-1]["RSS MB"] / min(row["RSS MB"] for row in rows)
    show(f"{requests} requests and {job_count} jobs after a first round", rows)
    console.print(f"memory at the end: {growth:.3f} of the least since, {aim(growth, most=GROWTH_AIM)}")
    console.print(save("soak", rows, growth=growth, answers=dict(soak.answers)))
    if soak.unexpected or growth > GROWTH_AIM:
        raise RuntimeError(f"the memory grew by {growth - 1:.1%}; unexpected answers: {soak.unexpected[:10]}")


class _Soak:
    """A mixed crowd of callers of one service."""

    def __init__(self, server: RunningServer, questions: list[str]) -> None:
        self._server = server
        self._questions = itertools.cycle(questions)
        self._numbers = itertools.count()
        self._chance = random.Random(1)
        self.answers: Counter[str] = Counter()
        self.unexpected: list[str] = []

    async def round(self, requests: int, job_count: int) -> None:
        """Send some of the requests and jobs, all of which have ended at the end."""
        asked = iter(range(requests))
        posted = iter(range(job_count))
        await asyncio.gather(*(self._ask(asked) for _ in range(CLIENTS)), self._ingest(posted))

    def row(self, number: int) -> dict[str, Any]:
        """:returns: What the process holds now."""
        return {
            "round": number,
            "requests": sum(self.answers.values()),
            "RSS MB": self._server.rss_now_mb,
            "threads": self._server.threads,
            "open files": self._server.open_files,
        }

    async def _ask(self, turns: Any) -> None:
        for _ in turns:
            if self._chance.random() < STREAMED:
                await self._stream(leaving=self._chance.random() < LEAVING)
                continue
            method, path, body, expected = self._request()
            status, answer = await self._server.client.send(method, path, body)
            self.answers[f"{path.partition('?')[0]} {status}"] += 1
            if status != expected:
                self.unexpected.append(f"{method} {path}: {status} {answer[:200]!r}")

    async def _ingest(self, turns: Any) -> None:
        for _ in turns:
            number = next(self._numbers)
            documents = [{"id": f"d{number % DOCUMENTS}", "text": f"Version {number} of a short text."}]
            job_id = await jobs.submit(self._server, jobs.body_of(documents, "soak"))
            await jobs.finished(self._server, job_id)

    async def _stream(self, leaving: bool) -> None:
        """Read an answer as events, or go away after the first of them."""
        body = orjson.dumps({"q": next(self._questions), "mode": self._chance.choice(MODES), "stream": True})
        reader, writer = await asyncio.open_connection(self._server.client.host, self._server.port)
        head = (
            "POST /query/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        told = await reader.readuntil(b"\n\n") if leaving else await reader.read()
        writer.close()
        self.answers[f"/query/ as events{', left' if leaving else ''}"] += 1
        if not leaving and (b"event: result" not in told or b"event: error" in told):
            self.unexpected.append(f"events: {told[-200:]!r}")

    def _request(self) -> tuple[str, str, bytes, int]:
        """:returns: A method, a path, a body, and the status that it should be answered with."""
        question = next(self._questions)
        mode = self._chance.choice(MODES)
        asked = {"q": question, "mode": mode, "k": 5}
        return self._chance.choices(
            [
                ("POST", "/query/", orjson.dumps(asked), 200),
                ("POST", "/query/batch", orjson.dumps({"questions": [asked, asked]}), 200),
                (
                    "POST",
                    "/v1/chat/completions",
                    orjson.dumps({"model": mode, "messages": [{"role": "user", "content": question}]}),
                    200,
                ),
                ("GET", "/documents?limit=20", b"", 200),
                ("GET", "/ingest/?tenant_id=soak&limit=5", b"", 200),
                ("GET", "/health", b"", 200),
                ("GET", "/ready", b"", 200),
                ("POST", "/query/", b'{"q": ""}', 422),
                ("POST", "/query/", b'{"q": "x", "mode": "none"}', 404),
                ("GET", f"/ingest/{next(self._numbers)}", b"", 404),
                ("GET", f"/nothing/{next(self._numbers)}", b"", 404),
            ],
            weights=[40, 2, 10, 5, 5, 10, 5, 5, 5, 5, 8],
        )[0]
