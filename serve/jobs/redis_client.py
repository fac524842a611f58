"""How jobs talk to Redis: a client with deadlines, one kind of error, and a log line for an outage, not thousands."""

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

from hayhooks.durable.store import ExecutionStoreError
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from components.breaking import Breaker

log = logging.getLogger(__name__)

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 5.0
# A crowd waits for a connection instead of being refused one.
MAX_CONNECTIONS = 50
# Hayhooks repeats what fails, near the end of a lease without any pause.
PAUSE_SECONDS = 0.2
REMIND_SECONDS = 60.0
# A Redis whose memory is full answers every other call. It is well again when none has failed for so long.
CALM_SECONDS = 5.0


def open_redis(url: str) -> Redis:
    """
    Make a client; it connects when it is first used.

    :param url: `redis://…`, `rediss://…` or `unix://…`.
    :returns: a client as Hayhooks wants it: binary replies, nothing sent twice, a deadline for every answer.
    :raises ValueError: when the URL can't be read.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=ANSWER_SECONDS,
        protocol=2,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        health_check_interval=15,
    )
    return Redis.from_pool(pool)


@contextmanager
def redis_errors() -> Iterator[None]:
    """
    Raise what Redis and its client raise as an error of the job store.

    :raises ExecutionStoreError: when the block raises an error of Redis.
    """
    try:
        yield
    except RedisError as error:
        raise ExecutionStoreError(f"Redis: {_reason(error)}") from error


async def _with_known_errors(asked: Awaitable[Any]) -> Any:
    try:
        return await asked
    except RuntimeError as error:
        # What uvloop raises on writing to a connection that was reset, and the client does not know as an error of it.
        if not str(error).endswith("the handler is closed"):
            raise
        closed = RedisConnectionError("the connection was closed")
        raise ExecutionStoreError(f"Redis: {closed}") from closed


def _reason(error: RedisError) -> str:
    # The client tells the command too, and with it what somebody posted.
    return str(error).rpartition(" of pipeline caused error: ")[2].strip("(',\")") or type(error).__name__


class RedisOutage:
    """
    Says once that Redis is away, now and then that it still is, and once that it is back.

    Usage example:
    ```python
    outage = RedisOutage(Breaker("Redis"))
    store = outage.watch(FairRedisStore(client, "ingest"))
    ```
    """

    def __init__(self, breaker: Breaker) -> None:
        """
        Begin with Redis there.

        :param breaker: is told of every outcome, and so opens for those who ask it first.
        """
        self._breaker = breaker
        self._since: float | None = None
        self._said = 0.0
        self._failed = 0.0

    def watch(self, parts: Any) -> Any:
        """
        :param parts: an object whose coroutines talk to Redis and raise `ExecutionStoreError`.
        :returns: the same, noticing what fails.
        """
        return _Watched(parts, self)

    async def failed(self, error: Exception) -> None:
        """Note that Redis did not answer; takes a moment, so that nobody asks it a thousand times a second."""
        self._breaker.failed()
        now = self._failed = time.monotonic()
        if self._since is None:
            self._since = self._said = now
            log.error("Redis can't be used, and no jobs are accepted or worked on: %s", error)
            return
        if now - self._said >= REMIND_SECONDS:
            self._said = now
            log.error("Redis can't be used for %.0f s now: %s", now - self._since, error)
        await asyncio.sleep(PAUSE_SECONDS)

    def answered(self) -> None:
        """Note that Redis answered."""
        self._breaker.succeeded()
        if self._since is None or time.monotonic() - self._failed < CALM_SECONDS:
            return
        log.warning("Redis can be used again, after %.0f s; jobs go on", self._failed - self._since)
        self._since = None


class _Watched:
    """Passes everything on to another object, and the outcome of its coroutines to the outage."""

    def __init__(self, parts: Any, outage: RedisOutage) -> None:
        self._parts = parts
        self._outage = outage

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._parts, name)
        # What closes asks nothing.
        if name == "close" or not inspect.iscoroutinefunction(attribute):
            return attribute

        async def watched(*arguments: Any, **named: Any) -> Any:
            try:
                result = await _with_known_errors(attribute(*arguments, **named))
            except ExecutionStoreError as error:
                if isinstance(error.__cause__, RedisError):
                    await self._outage.failed(error)
                raise
            self._outage.answered()
            return result

        return watched
