"""Runs in Redis, for any number of processes."""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from serve.traces.errors import TraceStoreError
from serve.traces.records import KeptRun
from serve.traces.store import RUNS_OF_A_REQUEST

_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 3.0
_PART = 500


class RedisTraceStore:
    """
    A `TraceStore` for many processes.

    Each run is a key of its own. A list for each tenant and request names its runs, a set names the tenants of a
    request, and a sorted set all runs of a tenant by their time, the oldest of which go first.

    Usage example:
    ```python
    store = RedisTraceStore("redis://localhost:6379/0", "thresher", ttl=3600, max_runs=1000)
    store.put([run])
    [run] = store.find(run.request_id, lambda tenant_id: tenant_id == "acme")
    ```
    """

    def __init__(self, url: str, prefix: str, ttl: int, max_runs: int) -> None:
        """
        Remember where; it connects when it is first used.

        :param url: `redis://…`, `rediss://…` or `unix://…`.
        :param prefix: what every key begins with.
        :param ttl: seconds for which a run is kept.
        :param max_runs: runs kept of one tenant.
        """
        # Its types leave open whether replies are awaited; ours are not.
        self._redis: Any = Redis.from_url(
            url, socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=_ANSWER_SECONDS
        )
        self._prefix = f"{prefix}:traces"
        self._ttl = ttl
        self._max_runs = max_runs

    def put(self, runs: Sequence[KeptRun]) -> None:
        """Keep runs; what has outlived its time goes."""
        now = time.time()
        with _errors(), self._redis.pipeline(transaction=True) as pipe:
            for run in runs:
                # No id of a tenant or request has a colon.
                name = f"{run.request_id}:{secrets.token_hex(8)}"
                of_request = self._of_request(run.tenant_id, run.request_id)
                pipe.set(self._run(run.tenant_id, name), run.model_dump_json(), ex=self._ttl)
                pipe.rpush(of_request, name)
                pipe.ltrim(of_request, -RUNS_OF_A_REQUEST, -1)
                pipe.sadd(self._tenants(run.request_id), run.tenant_id)
                pipe.zadd(self._of_tenant(run.tenant_id), {name: now})
                for key in (of_request, self._tenants(run.request_id), self._of_tenant(run.tenant_id)):
                    pipe.expire(key, self._ttl)
            pipe.execute()
        for tenant_id in {run.tenant_id for run in runs}:
            self._trim(tenant_id, now)

    def find(self, request_id: str, may_read: Callable[[str], bool]) -> list[KeptRun]:
        """Give the runs of a request, in order; see `TraceStore`."""
        with _errors():
            asked = sorted(tenant.decode() for tenant in self._redis.smembers(self._tenants(request_id)))
            keys = [
                self._run(tenant_id, name.decode())
                for tenant_id in asked
                if may_read(tenant_id)
                for name in self._redis.lrange(self._of_request(tenant_id, request_id), 0, -1)
            ]
            found = self._redis.mget(keys) if keys else []
        runs = [KeptRun.model_validate_json(run) for run in found if run is not None]
        return sorted(runs, key=lambda run: run.started_at)[:RUNS_OF_A_REQUEST]

    def forget(self, tenant_id: str) -> None:
        """Forget all runs of a tenant."""
        with _errors():
            while popped := self._redis.zpopmin(self._of_tenant(tenant_id), _PART):
                names = [name.decode() for name, _ in popped]
                self._drop(tenant_id, names)
                with self._redis.pipeline(transaction=True) as pipe:
                    for name in names:
                        pipe.srem(self._tenants(name.partition(":")[0]), tenant_id)
                    pipe.execute()

    def close(self) -> None:
        """Close the connections."""
        with _errors():
            self._redis.close()

    def _trim(self, tenant_id: str, now: float) -> None:
        listing = self._of_tenant(tenant_id)
        with _errors():
            self._redis.zremrangebyscore(listing, "-inf", now - self._ttl)
            while (more := self._redis.zcard(listing) - self._max_runs) > 0:
                names = self._redis.zpopmin(listing, min(more, _PART))
                self._drop(tenant_id, [name.decode() for name, _ in names])

    def _drop(self, tenant_id: str, names: list[str]) -> None:
        with self._redis.pipeline(transaction=True) as pipe:
            for name in names:
                request_id = name.partition(":")[0]
                pipe.unlink(self._run(tenant_id, name))
                pipe.lrem(self._of_request(tenant_id, request_id), 0, name)
            pipe.execute()

    def _run(self, tenant_id: str, name: str) -> str:
        return f"{self._prefix}:run:{tenant_id}:{name}"

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
    except RedisError as error:
        # Not its words: they may hold the command, and with it what was asked.
        raise TraceStoreError(f"Redis: {type(error).__name__}") from error
