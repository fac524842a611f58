"""Documents indexed in a second through the service, beside embedding and upserting the same chunks by hand."""

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from benchmarks import jobs, meanwhile, service
from benchmarks.by_hand import ByHand, Rows, embedder, rows_in
from benchmarks.corpus import MADE_UP, corpora, documents
from benchmarks.processes import RunningServer, running
from benchmarks.report import aim, console, save, show

SHARE_AIM = 0.85
ACCEPTED_AIM_MS = 60.0
ACCEPTED_TEXTS = 5_000

Row = dict[str, Any]


async def measure(quick: bool) -> None:
    """
    Measure, print and save.

    :param quick: fewer documents and shorter times.
    """
    sizes = {"hashing": 500 if quick else 2_000, "minilm": 30 if quick else 100}
    rates = [
        await _rate(embeddings, corpus, count, 2 if quick else 4)
        for embeddings, count in sizes.items()
        for corpus in corpora()
    ]
    show("Ingest through the service, beside embedding and upserting the same chunks by hand", rates)
    accepted = [await _accepted(3 if quick else 10)]
    show(f"POST /ingest/ with {ACCEPTED_TEXTS} texts", accepted)
    others = await meanwhile.rows(quick)
    show("Queries and GET /health during an ingest", others)
    console.print(save("ingest", [*rates, *accepted, *others]))


# After a job was cancelled its documents are still deleted.
_REST_SECONDS = 1.0


@dataclass
class _Round:
    """One corpus ingested once by hand and once by the service."""

    by_hand: float
    chunks_per_second: float
    documents_per_second: float
    cpu_ms: float
    """Processor time of the service for each chunk."""


async def _rate(embeddings: str, corpus: str, count: int, rounds: int) -> Row:
    posted = documents(corpus, count)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thresher-bench-")))
        rows = await _rows_of(posted, folder / "first")
        model = service.EMBEDDINGS[embeddings](service.settings(folder / "model", llm_port=1)).embedding_model
        by_hand = ByHand(folder / "by hand", embedder(embeddings, model))
        server = await stack.enter_async_context(_service(folder / "service", embeddings))
        # The first job of a service opens the database and loads the model.
        await _ingested(server, posted[:32], "warm-up")
        before = server.rss_mb
        seen = [await _round(server, by_hand, posted, rows, number) for number in range(rounds)]
        share = median(one.chunks_per_second / one.by_hand for one in seen)
        return {
            "embeddings": embeddings,
            "corpus": corpus,
            "documents": len(posted),
            "chunks": rows.count,
            "by hand, chunks/s": median(one.by_hand for one in seen),
            "chunks/s": median(one.chunks_per_second for one in seen),
            "documents/s": median(one.documents_per_second for one in seen),
            "share": share,
            "aim": aim(share, least=SHARE_AIM),
            "CPU ms/chunk": median(one.cpu_ms for one in seen),
            "RSS before, after": f"{before:.0f}, {server.rss_mb:.0f} MB",
        }


async def _round(
    server: RunningServer, by_hand: ByHand, posted: list[dict[str, Any]], rows: Rows, number: int
) -> _Round:
    raw = await asyncio.to_thread(by_hand.write, rows, f"round-{number}")
    cpu = await server.cpu_seconds()
    chunks, seconds = await _ingested(server, posted, f"round-{number}")
    if chunks != rows.count:
        raise RuntimeError(f"the service wrote {chunks} chunks, and {rows.count} the first time")
    cpu = await server.cpu_seconds() - cpu
    return _Round(raw, chunks / seconds, len(posted) / seconds, 1000 * cpu / chunks)


async def _ingested(server: RunningServer, posted: list[dict[str, Any]], tenant: str) -> tuple[int, float]:
    """Chunks written, and seconds from the request to the end of its job."""
    body = jobs.body_of(posted, tenant)
    begin = time.perf_counter()
    job = await jobs.finished(server, await jobs.submit(server, body))
    return int(job["chunks_ok"]), time.perf_counter() - begin


async def _rows_of(posted: list[dict[str, Any]], folder: Path) -> Rows:
    """What the service makes of documents; its embeddings are no matter."""
    async with _service(folder, "hashing") as server:
        await _ingested(server, posted, "first")
    return await asyncio.to_thread(rows_in, folder / "chroma")


async def _accepted(times: int) -> Row:
    texts = [text["text"] for text in documents(MADE_UP, ACCEPTED_TEXTS)]
    body = orjson.dumps({"tenant_id": "bench", "texts": texts})
    taken = []
    with tempfile.TemporaryDirectory(prefix="thresher-bench-") as folder:
        async with _service(Path(folder), "hashing") as server:
            for _ in range(times + 1):
                begin = time.perf_counter()
                job_id = await jobs.submit(server, body)
                taken.append(1000 * (time.perf_counter() - begin))
                await jobs.cancel(server, job_id)
                await asyncio.sleep(_REST_SECONDS)
    # The first one opens the database.
    del taken[0]
    return {
        "megabytes": len(body) / 1e6,
        "median ms": median(taken),
        "longest ms": max(taken),
        "aim": aim(median(taken), most=ACCEPTED_AIM_MS),
    }


def _service(folder: Path, embeddings: str) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    # No model is asked, so there is no server for one.
    options = ("--data", str(folder), "--embeddings", embeddings, "--llm-port", "1")
    return running("service", *options, log=folder / "service.log")
