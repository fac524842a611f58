"""What callers use up in a minute."""

import asyncio
import time
from pathlib import Path

import pytest

from serve.limiting.counts import MinuteCounts
from settings import Settings
from tests.fault_proxy import running_proxy
from tests.redis_server import redis_server


def counts(folder: Path, redis_url: str | None = None) -> MinuteCounts:
    """Counts as a service has them."""
    more = {} if redis_url is None else {"redis_url": redis_url, "chroma_host": "nowhere"}
    return MinuteCounts(Settings.load(data_dir=folder, **more), "requests")


def test_each_caller_has_a_minute_of_its_own(tmp_path: Path) -> None:
    """What one caller uses is no other's, adds up, and the minute has no more than 60 seconds left."""

    async def use() -> None:
        counted = counts(tmp_path)
        assert (await counted.look("a")).amount == 0
        await counted.add("a", 3)
        used = await counted.add("a", 4)
        assert used.amount == (await counted.look("a")).amount == 7
        assert 50 < used.seconds <= 60
        assert (await counted.add("b", 1)).amount == 1

    asyncio.run(use())


def test_processes_count_together_in_redis_and_alone_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With Redis the use of all processes adds up; while it hangs, each counts for itself and nobody waits for it."""

    async def use(url: str) -> None:
        with running_proxy(url) as proxy:
            here, there = counts(tmp_path, url), counts(tmp_path, proxy.url(url))
            await here.add("a", 3)
            assert (await there.add("a", 4)).amount == 7
            proxy.hang()
            begin = time.monotonic()
            assert [(await there.add("a", 1)).amount for _ in range(20)] == list(range(1, 21))
            assert time.monotonic() - begin < 2
            assert (await here.look("a")).amount == 7
            proxy.mend()
            await here.close()
            await there.close()

    with redis_server() as running:
        asyncio.run(use(running.url))
    assert len([record for record in caplog.records if "Redis does not answer" in record.message]) == 1
