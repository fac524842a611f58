"""Chunks indexed in a second through the job queue, beside embedding and writing them in batches by hand."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import chromadb

from benchmarks import service
from benchmarks.corpus import texts
from benchmarks.hashing import HashingResources, embed_all
from benchmarks.report import aim, console, save, show
from registry import ModeRegistry
from resources import Resources
from serve.jobs import JobQueue
from serve.service import INDEXING, as_document

SHARE_AIM = 0.85
TENANT = "bench"

Embed = Callable[[Sequence[str]], Any]


async def measure(quick: bool) -> None:
    """
    Measure, print and save.

    :param quick: fewer texts.
    """
    sizes = {
        "hashing": (HashingResources, 500 if quick else 2_000),
        "MiniLM": (Resources, 20 if quick else 100),
    }
    rows = [await _row(name, kind, count, 2 if quick else 5) for name, (kind, count) in sizes.items()]
    show("Indexing, one chunk a text", rows)
    console.print(save("ingest", rows))


async def _row(name: str, kind: type[Resources], count: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="thresher-bench-") as folder:
        settings = service.settings(Path(folder) / "service", llm_port=1)
        resources = kind(settings)
        with ModeRegistry(settings, resources) as registry:
            registry.indexing[INDEXING].pipeline.warm_up()
            model = resources.embedding_model
            embed: Embed = embed_all if kind is HashingResources or model is None else model.encode
            by_hand = chromadb.PersistentClient(str(Path(folder) / "by hand"))
            collection = by_hand.create_collection(
                "chunks", metadata={"hnsw:space": "cosine"}, embedding_function=None
            )
            raw, queued = [], []
            for number in range(rounds):
                written = texts(count, seed=10 + number)
                raw.append(await asyncio.to_thread(_by_hand, collection, embed, written, number))
                queued.append(await _through_the_queue(registry, written, number))
    share = median(b / a for a, b in zip(raw, queued, strict=True))
    return {
        "embeddings": name,
        "texts": count,
        "by hand, chunks/s": median(raw),
        "job queue, chunks/s": median(queued),
        "share": share,
        "aim": aim(share, least=SHARE_AIM),
    }


def _by_hand(collection: Any, embed: Embed, written: list[str], number: int, batch_size: int = 256) -> float:
    begin = time.perf_counter()
    for start in range(0, len(written), batch_size):
        part = written[start : start + batch_size]
        ids = [f"{number}-{start + place}" for place in range(len(part))]
        metas = [{"document_id": key, "title": "", "start": 0, "chunk_index": 0} for key in ids]
        collection.upsert(ids=ids, documents=part, embeddings=embed(part), metadatas=metas)
    return len(written) / (time.perf_counter() - begin)


async def _through_the_queue(registry: ModeRegistry, written: list[str], number: int) -> float:
    def index(documents: list[dict[str, Any]], tenant_id: str) -> int:
        whole = [as_document(data) for data in documents]
        return sum(registry.indexing[INDEXING].run(tenant_id, whole).written.values())

    settings = registry.settings
    queue = JobQueue(
        index,
        data_dir=settings.data_dir,
        workers=settings.ingest_workers,
        batch_size=settings.ingest_batch_size,
    )
    await queue.start()
    try:
        documents = [
            {"id": f"{number}-{place}", "text": text, "title": None, "meta": {}}
            for place, text in enumerate(written)
        ]
        begin = time.perf_counter()
        job = await queue.submit(TENANT, documents, request_id="")
        while not job.status.finished:
            await asyncio.sleep(0.01)
            found = await queue.get(job.job_id)
            assert found is not None
            job = found
        spent = time.perf_counter() - begin
    finally:
        await queue.close()
    if job.chunks_ok != len(written):
        raise RuntimeError(f"the job wrote other than one chunk for each text: {job}")
    return len(written) / spent
