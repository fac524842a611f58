"""What callers use up in a minute: counted in this process, or in Redis for all processes together."""

import asyncio
import logging
import time
from math import ceil
from typing import NamedTuple

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from redis.exceptions import RedisError

from serve.jobs.redis_client import open_redis
from settings import Settings

logger = logging.getLogger("thresher.limits")

# A request waits for Redis no longer than this, and when that was too long, the next ones do not wait at all.
_ANSWER_SECONDS = 0.25
_AWAY_SECONDS = 5.0


class Used(NamedTuple):
    """What a caller has used up of a minute, and the seconds until the next one begins."""

    amount: int
    seconds: int


class MinuteCounts:
    """
    Counts what callers use; a caller's minute begins with its first use.

    While Redis does not answer, this process counts for itself.

    Usage example:
    ```python
    counts = MinuteCounts(settings, "requests")
    used = await counts.add("key-1", 1)
    print(used.amount)
    ```
    """

    def __init__(self, settings: Settings, what: str) -> None:
        """
        Begin with nothing used; Redis is connected to when it is first asked.

        :param settings: the service's settings.
        :param what: what is counted.
        """
        # The library's limit is only what it takes for a key's name: what is too much is decided by whoever asks.
        self._minute = RateLimitItemPerMinute(1, namespace=what)
        self._own = MemoryStorage()
        self._shared: RedisStorage | None = None
        if settings.redis_url is not None:
            client = open_redis(settings.redis_url.get_secret_value())
            pool = {"connection_pool": client.connection_pool}
            prefix = f"{settings.redis_prefix}:limits"
            self._shared = RedisStorage("async+redis://", implementation="redispy", key_prefix=prefix, **pool)  # type: ignore[arg-type]
            self._client = client
        self._away_until = 0.0

    async def add(self, caller: str, amount: int) -> Used:
        """
        Count what a caller uses.

        :param caller: the caller's name.
        :param amount: how much.
        :returns: what it has used of this minute, with that.
        """
        return await self._ask(caller, amount)

    async def look(self, caller: str) -> Used:
        """
        Tell what a caller has used.

        :param caller: the caller's name.
        :returns: what it has used of this minute.
        """
        return await self._ask(caller, 0)

    async def close(self) -> None:
        """Close the connections."""
        if self._shared is not None:
            await self._client.aclose()

    async def _ask(self, caller: str, amount: int) -> Used:
        key = self._minute.key_for(caller)
        if self._shared is not None and time.monotonic() >= self._away_until:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    return await _used(self._shared, key, amount)
            except (TimeoutError, RedisError, OSError) as error:
                logger.warning(
                    "Redis does not answer (%s), so this process counts what callers use by itself",
                    type(error).__name__,
                )
                self._away_until = time.monotonic() + _AWAY_SECONDS
        return await _used(self._own, key, amount)


async def _used(storage: Storage, key: str, amount: int) -> Used:
    used = await (storage.incr(key, 60, amount) if amount else storage.get(key))
    left = await storage.get_expiry(key) - time.time()
    return Used(used, max(1, ceil(left)))
