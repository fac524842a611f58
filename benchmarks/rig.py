"""What most measurements need: the stub, the floor and the service, with the same texts in both."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.corpus import questions, texts
from benchmarks.processes import RunningServer, running

CHUNKS = 1_000


@dataclass
class Rig:
    """The servers of a measurement."""

    stub: RunningServer
    floor: RunningServer
    service: RunningServer
    questions: list[str]

    async def set_latency(self, milliseconds: float, token_ms: float = 0.0) -> None:
        """
        Set how long a model call takes from now on.

        :param milliseconds: how long, in a stream until the first word.
        :param token_ms: milliseconds from word to word in a stream.
        """
        await self.stub.post(f"/stub?latency_ms={milliseconds}&token_ms={token_ms}", {})


@asynccontextmanager
async def rig(provider: str = "openai", chunks: int = CHUNKS) -> AsyncIterator[Rig]:
    """
    Start all three and fill floor and service.

    :param provider: which of the stub's protocols the service speaks.
    :param chunks: texts to fill in, each one chunk.
    :returns: the servers; they are stopped and their data deleted at the end.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thresher-bench-")))
        stub = await stack.enter_async_context(running("stub_llm", log=folder / "stub.log", ready="/stub"))
        port = ("--llm-port", str(stub.port))
        floor = await stack.enter_async_context(
            running("floor", "--data", str(folder / "floor"), *port, log=folder / "floor.log")
        )
        options = ("--data", str(folder / "service"), "--provider", provider)
        service = await stack.enter_async_context(
            running("service", *options, *port, log=folder / "service.log", ready="/ready")
        )
        written = texts(chunks)
        await floor.post("/fill", {"texts": written})
        await ingest(service, written)
        yield Rig(stub, floor, service, questions(written))


async def ingest(service: RunningServer, written: list[str], tenant: str = "default") -> None:
    """
    Ingest texts and wait until they can be found.

    :param service: the service.
    :param written: the texts.
    :param tenant: whose they are.
    :raises RuntimeError: if the job fails.
    """
    job: Any = await service.post("/ingest/", {"tenant_id": tenant, "texts": written})
    while job["status"] not in ("done", "failed", "cancelled"):
        await asyncio.sleep(0.2)
        job = await service.get(f"/ingest/{job['job_id']}")
    if job["status"] != "done":
        raise RuntimeError(f"the texts could not be ingested: {job}")
