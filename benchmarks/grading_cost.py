"""What it costs to have the language model grade k chunks, in calls' time: one if they are asked about at once."""

import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

from haystack import Document

from benchmarks.corpus import questions, texts
from benchmarks.processes import running
from benchmarks.report import aim, console, save, show
from benchmarks.stub_llm import MODEL
from components.generating import ModelChatGenerator
from components.json_grading import JsonScoreGrader
from components.llm_grading import LogprobGrader
from components.models.chat_models import ChatModels

TOP_K = 5
LATENCY_MS = 50
CALLS_AIM = 1.25


async def measure(quick: bool) -> None:
    """
    Measure, print and save.

    :param quick: fewer repetitions.
    """
    with tempfile.TemporaryDirectory(prefix="thresher-bench-") as folder:
        log = Path(folder) / "stub.log"
        async with running("stub_llm", "--latency-ms", str(LATENCY_MS), log=log, ready="/stub") as stub:
            models = ChatModels("ollama", MODEL, url=f"http://127.0.0.1:{stub.port}", concurrency=2 * TOP_K)
            try:
                rows = await _rows(ModelChatGenerator(models), 5 if quick else 20)
            finally:
                await models.close_async()
    show(f"Grading {TOP_K} chunks, model calls of {LATENCY_MS} ms", rows)
    console.print(save("grading_cost", rows, top_k=TOP_K, latency_ms=LATENCY_MS))


async def _rows(generator: ModelChatGenerator, rounds: int) -> list[dict[str, Any]]:
    written = texts(TOP_K)
    question = questions(written, 1)[0]
    documents = [Document(content=text) for text in written]
    graders = {
        "log-probability, all at once": LogprobGrader(generator),
        "log-probability, one by one": LogprobGrader(generator, concurrency=1),
        "JSON score, all at once": JsonScoreGrader(generator),
        "JSON score, one call for all": JsonScoreGrader(generator, mode="one_call"),
    }
    one_chunk = LogprobGrader(generator)
    one = await _milliseconds(lambda: one_chunk.run_async(query=question, documents=documents[:1]), rounds)
    rows: list[dict[str, Any]] = [{"grader": "one chunk", "ms": one, "in calls": 1.0, "aim": ""}]
    for name, grader in graders.items():
        spent = await _milliseconds(_grading(grader, question, documents), rounds)
        wanted = aim(spent / one, most=CALLS_AIM) if name.endswith("at once") else ""
        rows.append({"grader": name, "ms": spent, "in calls": spent / one, "aim": wanted})
    return rows


def _grading(grader: Any, question: str, documents: list[Document]) -> Callable[[], Awaitable[Any]]:
    return lambda: grader.run_async(query=question, documents=documents)


async def _milliseconds(ask: Callable[[], Awaitable[Any]], rounds: int) -> float:
    await ask()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        await ask()
        times.append(1000 * (time.perf_counter() - begin))
    return median(times)
