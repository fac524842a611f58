"""How long a client waits for the first word of an answer, over what the model itself takes for it."""

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import httpx

from benchmarks.report import aim, console, save, show
from benchmarks.rig import Rig, rig
from benchmarks.stub_llm import MODEL

MODES = {"standard": "standard", "crag_llm": "crag (LLM grader)"}
LATENCIES_MS = (0, 50, 500)
TOKEN_MS = 20
AIMS = {("standard", 50): 1.4, ("standard", 500): 1.05, ("crag_llm", 500): 2.1}

Row = dict[str, Any]


@dataclass
class Seen:
    """When the words of one answer came, in milliseconds."""

    first: float
    gap: float
    """The median time from word to word: as long as the model's own where nothing is kept back."""


async def measure(quick: bool, provider: str = "openai") -> None:
    """
    Measure, print and save.

    :param quick: fewer queries.
    :param provider: which of the stub's protocols the service speaks.
    """
    count = 8 if quick else 30
    rows: list[Row] = []
    async with rig(provider) as servers, httpx.AsyncClient(timeout=60, trust_env=False) as client:
        asked = itertools.cycle(servers.questions)
        for latency, mode in itertools.product(LATENCIES_MS, MODES):
            await servers.set_latency(latency, TOKEN_MS)
            rows.append(await _row(client, servers, mode, latency, asked, count))
    show(f"The first word of an answer; then a word every {TOKEN_MS} ms", rows)
    console.print(save("first_token", rows, provider=provider, token_ms=TOKEN_MS))


async def _row(
    client: httpx.AsyncClient, servers: Rig, mode: str, latency: int, asked: Iterator[str], count: int
) -> Row:
    model, service = [], []
    # The first of each is not counted: it warms up.
    for question in itertools.islice(asked, count + 1):
        model.append(await _ask_model(client, servers.stub.port, question))
        service.append(await _ask_service(client, servers.service.port, mode, question))
    first, own = median(seen.first for seen in service[1:]), median(seen.first for seen in model[1:])
    wanted = AIMS.get((mode, latency))
    return {
        "mode": MODES[mode],
        "model ms": float(latency),
        "model's first word ms": own,
        "first word ms": first,
        "ratio": first / own,
        "aim": aim(first / own, most=wanted) if wanted else "",
        "model's word to word ms": median(seen.gap for seen in model[1:]),
        "word to word ms": median(seen.gap for seen in service[1:]),
    }


async def _ask_model(client: httpx.AsyncClient, port: int, question: str) -> Seen:
    body = {
        "model": MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": f"[1] A. {question} B C D."}],
    }
    return await _seen(client, f"http://127.0.0.1:{port}/v1/chat/completions", body, '"content":')


async def _ask_service(client: httpx.AsyncClient, port: int, mode: str, question: str) -> Seen:
    body = {"q": question, "mode": mode, "stream": True}
    return await _seen(client, f"http://127.0.0.1:{port}/query/", body, '{"text":')


async def _seen(client: httpx.AsyncClient, url: str, body: Row, mark: str) -> Seen:
    begin = time.perf_counter()
    times, lines = [], []
    async with client.stream("POST", url, json=body) as response:
        if response.status_code != 200:
            raise RuntimeError(f"{url} answered {response.status_code}: {json.loads(await response.aread())}")
        async for line in response.aiter_lines():
            lines.append(line)
            if line.startswith("data: ") and mark in line:
                times.append(1000 * (time.perf_counter() - begin))
    if len(times) < 2:
        raise RuntimeError(f"{url} streamed no words: {lines}")
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    return Seen(times[0], median(gaps))
