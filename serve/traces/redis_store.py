"""Runs in Redis, for any number of processes."""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from components.breaking import Breaker, CircuitOpenError
from serve.traces.errors import TraceStoreError
from serve.traces.records import KeptRun
from serve.traces.store import FULL_TENANTS, MARK_SECONDS, RUNS_OF_A_REQUEST

_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 3.0
_PART = 500
_AWAY = (RedisConnectionError, RedisTimeoutError)
# The process that deletes a tenant and the one that answers its question may be on two machines.
_CLOCKS_DIFFER_SECONDS = 5.0


class RedisTraceStore:
    """
    A `TraceStore` for many processes.

    Each run is a key of its own. A list for each tenant and request names its runs, a set names the tenants of a
    request, and sorted sets name the runs of each tenant, and of all, by their time; the oldest go first. One more has
    the times at which tenants were forgotten.

    Usage example:
    ```python
    store = RedisTraceStore("redis://localhost:6379/0", "thresher", ttl=3600, max_runs=1000)
    store.put([run])
    [run] = store.find(run.request_id, lambda tenant_id: tenant_id == "acme")
    ```
    """

    def __init__(
        self, url: str, prefix: str, ttl: int, max_runs: int, breaker: Breaker | None = None
    ) -> None:
        """
        Remember where; it connects when it is first used.

        :param url: `redis://…`, `rediss://…` or `unix://…`.
        :param prefix: what every key begins with.
        :param ttl: seconds for which a run is kept.
        :param max_runs: runs kept of one tenant.
        :param breaker: that of all who ask this Redis, so that nobody waits for one that is known to be away.
        """
        self._breaker = breaker or Breaker("Redis")
        # Its types leave open whether replies are awaited; ours are not.
        self._redis: Any = Redis.from_url(
            url, socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=_ANSWER_SECONDS
        )
        self._prefix = f"{prefix}:traces"
        self._all = f"{self._prefix}:all"
        self._forgotten = f"{self._prefix}:forgotten"
        self._ttl = ttl
        self._max_runs = max_runs

    def put(self, runs: Sequence[KeptRun]) -> None:
        """Keep runs that began since their tenant was last forgotten; what has outlived its time goes."""
        if not runs:
            return
        now = time.time()
        with self._asking():
            # Once more when a tenant is forgotten just then.
            self._redis.transaction(lambda pipe: self._write(pipe, runs, now), self._forgotten)
            for tenant_id in {run.tenant_id for run in runs}:
                self._trim(self._of_tenant(tenant_id), self._max_runs, now)
            self._trim(self._all, self._max_runs * FULL_TENANTS, now)

    def find(self, request_id: str, may_read: Callable[[str], bool]) -> list[KeptRun]:
        """Give the runs of a request, in order; see `TraceStore`."""
        with self._asking():
            asked = sorted(tenant.decode() for tenant in self._redis.smembers(self._tenants(request_id)))
            keys = [
                self._run(name.decode())
                for tenant_id in asked
                if may_read(tenant_id)
                for name in self._redis.lrange(self._of_request(tenant_id, request_id), 0, -1)
            ]
            found = self._redis.mget(keys) if keys else []
        runs = [KeptRun.model_validate_json(run) for run in found if run is not None]
        return sorted(runs, key=lambda run: run.started_at)[:RUNS_OF_A_REQUEST]

    def forget(self, tenant_id: str) -> int:
        """Forget all runs of a tenant; see `TraceStore`."""
        now, forgotten = time.time(), 0
        with self._asking():
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.zremrangebyscore(self._forgotten, "-inf", now - MARK_SECONDS)
                pipe.zadd(self._forgotten, {tenant_id: now + _CLOCKS_DIFFER_SECONDS})
                pipe.expire(self._forgotten, int(MARK_SECONDS))
                pipe.execute()
            while names := self._redis.zrange(self._of_tenant(tenant_id), 0, _PART - 1):
                self._drop(names, of_all=True)
                forgotten += len(names)
        return forgotten

    def close(self) -> None:
        """Close the connections."""
        with _errors():
            self._redis.close()

    def _write(self, pipe: Any, runs: Sequence[KeptRun], now: float) -> None:
        marks = pipe.zmscore(self._forgotten, [run.tenant_id for run in runs])
        pipe.multi()
        for run, mark in zip(runs, marks, strict=True):
            if mark is not None and run.started_at.timestamp() <= mark:
                continue
            # No id of a tenant or request has a colon.
            name = f"{run.tenant_id}:{run.request_id}:{secrets.token_hex(8)}"
            of_request = self._of_request(run.tenant_id, run.request_id)
            pipe.set(self._run(name), run.model_dump_json(), ex=self._ttl)
            pipe.rpush(of_request, name)
            pipe.ltrim(of_request, -RUNS_OF_A_REQUEST, -1)
            pipe.sadd(self._tenants(run.request_id), run.tenant_id)
            listings = self._of_tenant(run.tenant_id), self._all
            for listing in listings:
                pipe.zadd(listing, {name: now})
            for key in (of_request, self._tenants(run.request_id), *listings):
                pipe.expire(key, self._ttl)

    def _trim(self, listing: str, most: int, now: float) -> None:
        self._redis.zremrangebyscore(listing, "-inf", now - self._ttl)
        while (more := self._redis.zcard(listing) - most) > 0:
            self._drop(self._redis.zrange(listing, 0, min(more, _PART) - 1))

    def _drop(self, names: Sequence[bytes], of_all: bool = False) -> None:
        """Drop runs; of all of their tenant's, nothing is left."""
        with self._redis.pipeline(transaction=True) as pipe:
            for name in (found.decode() for found in names):
                tenant_id, request_id, _ = name.split(":")
                pipe.unlink(self._run(name))
                pipe.lrem(self._of_request(tenant_id, request_id), 0, name)
                if of_all:
                    pipe.srem(self._tenants(request_id), tenant_id)
                for listing in (self._of_tenant(tenant_id), self._all):
                    pipe.zrem(listing, name)
            pipe.execute()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        with _errors(), self._breaker.guarding(lambda error: isinstance(error, _AWAY)):
            yield

    def _run(self, name: str) -> str:
        return f"{self._prefix}:run:{name}"

    def _of_request(self, tenant_id: str, request_id: str) -> str:
        return f"{self._prefix}:request:{tenant_id}:{request_id}"

    def _of_tenant(self, tenant_id: str) -> str:
        return f"{self._prefix}:tenant:{tenant_id}"

    def _tenants(self, request_id: str) -> str:
        return f"{self._prefix}:tenants:{request_id}"


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except CircuitOpenError as error:
        raise TraceStoreError(str(error)) from error
    except RedisError as error:
        # Not its words: they may hold the command, and with it what was asked.
        raise TraceStoreError(f"Redis: {type(error).__name__}") from error
