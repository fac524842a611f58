"""Many small tenants in one embedded Chroma: whether all answer, how fast, and in how much memory."""

import random
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from haystack import Document

from benchmarks.corpus import texts
from benchmarks.hashing import embed
from benchmarks.report import aim, console, save, show
from components.storing import TenantDocumentStores
from components.writing import TenantDocumentWriter

CHUNKS = 10
FILE_LIMIT = 1024
RATIO_AIM = 1.5


async def measure(quick: bool) -> None:
    """
    Measure, print and save.

    :param quick: fewer tenants.
    """
    many = 200 if quick else 1_000
    alone = _in_a_process(1, 100)
    rows = []
    for open_tenants in (64, 128):
        measured = _in_a_process(many, open_tenants)
        ratio = measured["warm p50"] / alone["warm p50"]
        rows.append(
            {
                "open at most": open_tenants,
                **measured,
                "÷ one tenant": ratio,
                "aim": aim(ratio, most=RATIO_AIM),
            }
        )
    show(f"{many} tenants of {CHUNKS} chunks, times in ms, at most {FILE_LIMIT} open files", rows)
    console.print(save("tenants", rows, tenants=many, chunks=CHUNKS, file_limit=FILE_LIMIT, alone=alone))


def _in_a_process(tenants: int, open_tenants: int) -> dict[str, Any]:
    # Memory and open files are a process's, so each measurement has one of its own.
    with (
        tempfile.TemporaryDirectory(prefix="thresher-bench-") as folder,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        return pool.submit(_measured, Path(folder), tenants, open_tenants).result()


def _measured(folder: Path, tenants: int, open_tenants: int) -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILE_LIMIT, FILE_LIMIT))
    before = _resident_mb()
    stores = TenantDocumentStores(path=folder, embedding_model="hashing", open_tenants=open_tenants)
    corpus = texts(CHUNKS)
    begin = time.perf_counter()
    writer = TenantDocumentWriter(stores)
    for tenant in range(tenants):
        writer.run(documents=_documents(corpus), tenant_id=f"tenant-{tenant}")
    filled = time.perf_counter() - begin
    order = [random.Random(0).randrange(tenants) for _ in range(min(2 * tenants, 2_000))]
    # Twice, because the first question after a start reads what is not in the index yet.
    errors, _ = _ask(stores, order, corpus)
    again, cold = _ask(stores, order, corpus)
    _, warm = _ask(stores, [0] * 500, corpus)
    begin = time.perf_counter()
    for tenant in order[:50]:
        stores.get(f"tenant-{tenant}").list_documents()
    listed = (time.perf_counter() - begin) / 50
    row = {
        "to fill one": 1_000 * filled / tenants,
        "errors": errors + again,
        "warm p50": median(warm),
        "any p50": median(cold),
        "list documents": 1_000 * listed,
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "MB": _resident_mb() - before,
    }
    stores.close()
    return row


def _documents(corpus: list[str]) -> list[Document]:
    return [
        Document(content=text, embedding=embed(text).tolist(), meta={"document_id": f"document-{number}"})
        for number, text in enumerate(corpus)
    ]


def _ask(stores: TenantDocumentStores, tenants: list[int], corpus: list[str]) -> tuple[int, list[float]]:
    """:returns: How many questions failed or missed their text, and the milliseconds of each."""
    errors, times = 0, []
    for number, tenant in enumerate(tenants):
        text = corpus[number % CHUNKS]
        vector = embed(text).tolist()
        begin = time.perf_counter()
        try:
            found = stores.get(f"tenant-{tenant}").search_embeddings([vector], 5)[0]
            errors += found[0].content != text
        except Exception:
            errors += 1
        times.append(1_000 * (time.perf_counter() - begin))
    return errors, times


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
