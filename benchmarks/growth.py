"""How much longer a query takes when a tenant has many chunks."""

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import jobs
from benchmarks.corpus import MADE_UP, documents, questions, texts
from benchmarks.load import ask
from benchmarks.processes import running
from benchmarks.report import aim, console, save, show

SMALL = 1_000
RATIO_AIM = 1.5
JOB_TEXTS = 5_000
QUERIES = 100


async def measure(quick: bool) -> None:
    """
    Measure, print and save.

    :param quick: 10,000 chunks instead of 100,000.
    """
    row = await _row(10_000 if quick else 100_000, 3 if quick else 5)
    show("Queries of a large tenant, model calls of 0 ms", [row])
    console.print(save("growth", [row]))


async def _row(large: int, rounds: int) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thresher-bench-")))
        stub = await stack.enter_async_context(running("stub_llm", log=folder / "stub.log", ready="/stub"))
        options = ("--data", str(folder / "service"), "--provider", "ollama", "--llm-port", str(stub.port))
        server = await stack.enter_async_context(
            running("service", *options, log=folder / "service.log", ready="/ready")
        )
        posted = documents(MADE_UP, large)
        for begin in range(0, large, JOB_TEXTS):
            part = jobs.body_of(posted[begin : begin + JOB_TEXTS], "large")
            await jobs.finished(server, await jobs.submit(server, part))
        await jobs.finished(server, await jobs.submit(server, jobs.body_of(posted[:SMALL], "small")))
        asked = questions(texts(SMALL))
        times: dict[str, list[float]] = {"small": [], "large": []}
        for tenant in times:
            await ask(server, asked, "standard", len(asked), tenant)
        for _ in range(rounds):
            for tenant, seen in times.items():
                seen.append((await ask(server, asked, "standard", QUERIES, tenant)).p50_ms)
        ratio = median(b / a for a, b in zip(times["small"], times["large"], strict=True))
        return {
            "chunks": f"{SMALL}, {large}",
            "small p50 ms": median(times["small"]),
            "large p50 ms": median(times["large"]),
            "ratio": ratio,
            "aim": aim(ratio, most=RATIO_AIM),
            "RSS MB": server.rss_mb,
        }
