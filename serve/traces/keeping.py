"""Keeping runs in the background: a store that is slow or away costs no request anything."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable

from components.breaking import Breaker
from serve.errors import describe
from serve.tenancy import DEFAULT_TENANT
from serve.traces.errors import TraceStoreError
from serve.traces.records import KeptRun, kept_run
from serve.traces.redis_store import RedisTraceStore
from serve.traces.sqlite_store import SqliteTraceStore
from serve.traces.store import TraceStore
from serve.watching import FinishedRun
from settings import Settings

logger = logging.getLogger("thresher.traces")

_MOST_WAITING = 1_000
_MOST_AT_ONCE = 100
_FLUSH_SECONDS = 1.0
_CLOSE_SECONDS = 3.0
_REMIND_SECONDS = 60.0


class RunKeeper:
    """
    Hands each run that has ended to a store, from a thread of its own.

    Usage example:
    ```python
    store = SqliteTraceStore(data_dir, ttl=3600, max_runs=1000)
    keeper = RunKeeper(store, keeps_content=False, is_tenant=document_stores.has_opened)
    answering.watchers.append(keeper)
    runs = await keeper.find("4d8f", lambda tenant_id: tenant_id == "acme")
    ```
    """

    def __init__(
        self,
        store: TraceStore,
        keeps_content: bool,
        is_tenant: Callable[[str], bool],
        is_model: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """
        Begin to keep.

        :param store: where.
        :param keeps_content: whether questions and answers are kept, too.
        :param is_tenant: tells at once whether there is such a tenant.
        :param is_model: tells whether there is such a language model; no other name is kept.
        """
        self._is_model = is_model
        self._store = store
        self._keeps_content = keeps_content
        self._is_tenant = is_tenant
        self._waiting: queue.Queue[KeptRun | threading.Event | None] = queue.Queue(_MOST_WAITING)
        self._said = 0.0
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
        self._thread.start()

    def ended(self, run: FinishedRun) -> None:
        """
        Take note of a run; where too many wait to be written, it is not kept.

        What is refused is not kept either, so that whoever asks for what there is not, pushes nothing out.

        :param run: the run.
        """
        if run.request_id is None or _is_refused(run):
            return
        if not self._is_tenant(run.inputs.get("tenant_id", DEFAULT_TENANT)):
            return
        try:
            self._waiting.put_nowait(kept_run(run, self._keeps_content, self._is_model))
        except queue.Full:
            self._warn("too many wait to be written")

    async def find(self, request_id: str, may_read: Callable[[str], bool]) -> list[KeptRun]:
        """
        Give the runs of a request, in order.

        :param request_id: the request's id.
        :param may_read: tells whether a tenant's runs are asked for.
        :returns: the runs.
        :raises TraceStoreError: if the store can't be read.
        """
        await asyncio.to_thread(self._flush)
        return await asyncio.to_thread(self._store.find, request_id, may_read)

    async def forget(self, tenant_id: str) -> int:
        """
        Forget all runs of a tenant; of those that have begun none will be kept.

        :param tenant_id: the tenant.
        :returns: how many there were.
        :raises TraceStoreError: if the store fails.
        """
        return await asyncio.to_thread(self._store.forget, tenant_id)

    def close(self) -> None:
        """Write what waits, within a few seconds."""
        try:
            self._waiting.put(None, timeout=_CLOSE_SECONDS)
        except queue.Full:
            return
        self._thread.join(_CLOSE_SECONDS)

    def _flush(self) -> None:
        """Wait until what has ended by now is written, but not for ever."""
        written = threading.Event()
        try:
            self._waiting.put(written, timeout=_FLUSH_SECONDS)
        except queue.Full:
            return
        written.wait(_FLUSH_SECONDS)

    def _work(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < _MOST_AT_ONCE and not self._waiting.empty():
                batch.append(self._waiting.get())
            self._write([item for item in batch if isinstance(item, KeptRun)])
            for item in batch:
                if isinstance(item, threading.Event):
                    item.set()
            if None in batch:
                self._end()
                return

    def _write(self, runs: list[KeptRun]) -> None:
        try:
            if runs:
                self._store.put(runs)
        except TraceStoreError as error:
            self._warn(str(error))
        except Exception:
            logger.exception("runs could not be kept")

    def _end(self) -> None:
        try:
            self._store.close()
        except TraceStoreError as error:
            self._warn(str(error))

    def _warn(self, why: str) -> None:
        now = time.monotonic()
        if not self._said or now - self._said >= _REMIND_SECONDS:
            self._said = now
            logger.warning("runs are not kept (TRACE_STORE): %s", why)


def _is_refused(run: FinishedRun) -> bool:
    return not run.began or (isinstance(run.error, Exception) and describe(run.error)[0] < 500)


def open_keeper(
    settings: Settings,
    is_tenant: Callable[[str], bool],
    is_model: Callable[[str], bool],
    redis_breaker: Breaker | None,
) -> RunKeeper | None:
    """
    Begin to keep runs, if the settings say so.

    :param settings: say whether, where and how long.
    :param is_tenant: tells at once whether there is such a tenant.
    :param is_model: tells whether there is such a language model.
    :param redis_breaker: that of Redis, where it is used.
    :returns: the keeper, or None.
    """
    if not settings.trace_store:
        return None
    limits = {"ttl": settings.trace_ttl, "max_runs": settings.trace_max_runs}
    store: TraceStore
    if settings.redis_url is None:
        store = SqliteTraceStore(settings.data_dir, **limits)
    else:
        url = settings.redis_url.get_secret_value()
        store = RedisTraceStore(url, settings.redis_prefix, **limits, breaker=redis_breaker)
    return RunKeeper(store, settings.trace_content, is_tenant, is_model)
