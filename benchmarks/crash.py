"""The crash protocol at full size: kill -9 at random moments, in both shapes; nothing may be lost or be there twice."""

import asyncio
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import console, save, show
from tests.cluster import running_cluster
from tests.crashing import CrashProtocol

KILLS = 20
DOCUMENTS = 2_000
SECONDS_BETWEEN = (0.5, 4.0)
DEADLINE = 1_200.0


async def measure(quick: bool) -> None:
    """
    Run the protocol for both shapes, print and save.

    :param quick: fewer kills and smaller jobs.
    :raises RuntimeError: if anything was lost, doubled or left without a reason.
    """
    kills, documents = (5, 300) if quick else (KILLS, DOCUMENTS)
    rows = [
        await asyncio.to_thread(_run, shape == "Redis", kills, documents)
        for shape in ("one machine", "Redis")
    ]
    show(f"{kills} x kill -9 over jobs of {documents} documents", [_shown(row) for row in rows])
    console.print(save("crash", [_shown(row) for row in rows]))
    faults = [fault for row in rows for fault in row["faults"]]
    if faults:
        raise RuntimeError("\n".join(["the crash protocol found:", *faults[:50]]))


def _run(redis: bool, kills: int, documents: int) -> dict[str, Any]:
    chance = random.Random(kills + redis)
    with (
        tempfile.TemporaryDirectory(prefix="thresher-crash-") as folder,
        running_cluster(Path(folder), redis=redis) as cluster,
    ):
        protocol = CrashProtocol(cluster, tenants=3, jobs=3, documents=documents)
        begin = time.monotonic()
        protocol.post()
        blows = protocol.blows(seed=kills)
        for _ in range(kills):
            time.sleep(chance.uniform(*SECONDS_BETWEEN))
            next(blows)()
        outcome = protocol.outcome(DEADLINE)
        return {
            "shape": "Redis, 2 workers, Chroma server" if redis else "one machine",
            "jobs": len(outcome.jobs),
            "documents": outcome.documents,
            "chunks": outcome.chunks,
            "seconds": time.monotonic() - begin,
            "attempts": sum(job["attempts"] for job in outcome.jobs),
            "faults": outcome.faults,
        }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "faults": len(row["faults"])}
