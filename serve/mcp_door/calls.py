"""Calls of tools under way, so that a client can take one back."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from serve.errors import ServiceStoppingError
from serve.server import grace_ends

T = TypeVar("T")

CallKey = tuple[str | None, str, str | int]
"""The id of the client's API key, its session, and the id that it gave its request."""


class CallCancelledError(Exception):
    """The client has taken the call back."""


class Calls:
    """
    Runs calls, each in a task of its own that is cancelled once.

    What runs in the MCP package's task groups is cancelled again at each of its steps, so that nothing in it could
    wait for its own end, as the built-in model does.
    """

    def __init__(self) -> None:
        """Begin with no call."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._by_key: dict[CallKey, asyncio.Task[Any]] = {}

    async def run(
        self, work: Coroutine[Any, Any, T], key: CallKey | None, stopping: asyncio.Event | None
    ) -> T:
        """
        Run a call to its end; leaving early cancels it.

        :param work: the call.
        :param key: whose call it is; None for one that can't be taken back.
        :param stopping: set when the server begins to stop.
        :returns: what the call gave.
        :raises CallCancelledError: if the client took it back.
        :raises ServiceStoppingError: if the server stops before its end.
        """
        task = self._start(work)
        waited_for: set[asyncio.Task[Any]] = {task}
        if stopping is not None:
            waited_for.add(self._start(grace_ends(stopping)))
        if key is not None:
            self._by_key[key] = task
        try:
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if key is not None and self._by_key.get(key) is task:
                del self._by_key[key]
            for waiting in waited_for:
                waiting.cancel()
        if not task.done():
            raise ServiceStoppingError
        if task.cancelled():
            raise CallCancelledError
        return task.result()

    def cancel(self, key: CallKey) -> None:
        """
        Take a call back; one that is not known has ended.

        :param key: whose call it is.
        """
        if task := self._by_key.get(key):
            task.cancel()

    async def close(self) -> None:
        """Cancel what still runs, and wait for its end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Looked at, so that asyncio does not complain of an error which nobody waits for any more.
            task.exception()
