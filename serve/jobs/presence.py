"""Presence: which processes work on the jobs in Redis, for those that only accept them."""

from typing import Any

from redis.asyncio import Redis

from serve.jobs.redis_client import redis_errors

# A worker shows itself every 5 seconds; one that was killed is missed after a few of them.
STALE_SECONDS = 20
# By Redis' clock, which all share. KEYS: the set. ARGV: the worker, seconds.
SHOW = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 1)
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
"""
COUNT = "return redis.call('ZCOUNT', KEYS[1], redis.call('TIME')[1], '+inf')"


class WorkerPresence:
    """
    Where workers show themselves.

    Usage example:
    ```python
    presence = WorkerPresence(open_redis("redis://localhost:6379/0"), "thresher:workers")
    await presence.show("machine-1-4711")
    print(await presence.count())
    ```
    """

    def __init__(self, redis: Redis, key: str) -> None:
        """
        :param redis: a client from `open_redis`; not closed by this.
        :param key: where the workers stand.
        """
        client: Any = redis
        self._show, self._count = client.register_script(SHOW), client.register_script(COUNT)
        self._redis: Any = redis
        self._key = key

    async def show(self, worker: str) -> None:
        """
        Show that a worker lives.

        :param worker: its name, no other's.
        :raises ExecutionStoreError: when Redis fails.
        """
        with redis_errors():
            await self._show(keys=[self._key], args=[worker, STALE_SECONDS])

    async def leave(self, worker: str) -> None:
        """
        Show that a worker has stopped.

        :param worker: its name.
        :raises ExecutionStoreError: when Redis fails.
        """
        with redis_errors():
            await self._redis.zrem(self._key, worker)

    async def count(self) -> int:
        """
        :returns: how many workers live.
        :raises ExecutionStoreError: when Redis fails.
        """
        with redis_errors():
            return int(await self._count(keys=[self._key]))
