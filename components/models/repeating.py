"""Asking once more after a fault that may pass, but never behind the back of who has heard or left."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from haystack.dataclasses import StreamingChunk
from haystack.dataclasses.streaming_chunk import AsyncStreamingCallbackT, SyncStreamingCallbackT

from components.models.errors import ModelError

T = TypeVar("T")
RETRY_SECONDS = 0.5
# Who is to come back later than this is told so, instead of being kept waiting.
LONGEST_PAUSE = 2.0


class Listener:
    """
    Hears the chunks of a reply.

    :param callback: Called with each chunk.
    """

    def __init__(self, callback: SyncStreamingCallbackT) -> None:
        self.heard = False
        self.fault: Exception | None = None
        self._callback = callback

    def hear(self, chunk: StreamingChunk) -> None:
        """Pass a chunk on."""
        self.heard = True
        try:
            self._callback(chunk)
        except Exception as error:
            self.fault = error
            raise


class AsyncListener:
    """
    Hears the chunks of a reply.

    :param callback: A coroutine function called with each chunk.
    """

    def __init__(self, callback: AsyncStreamingCallbackT) -> None:
        self.heard = False
        self.fault: Exception | None = None
        self._callback = callback

    async def hear(self, chunk: StreamingChunk) -> None:
        """Pass a chunk on."""
        self.heard = True
        try:
            await self._callback(chunk)
        except Exception as error:
            self.fault = error
            raise


def repeated(call: Callable[[], T], listener: Listener | None) -> T:
    """
    Make a call, and once more after a fault that may pass.

    A call that was late or cancelled is not repeated, nor one whose reply somebody has begun to hear, nor one that the
    server wants to see no sooner than in some seconds.

    :param call: The call.
    :param listener: Who hears the reply while it comes.
    :returns: What it gives.
    :raises ModelError: If it failed for good.
    """
    try:
        return call()
    except ModelError as error:
        if not _may_repeat(error, listener):
            raise
        pause = _pause(error)
    time.sleep(pause)
    return call()


async def repeated_async(call: Callable[[], Awaitable[T]], listener: AsyncListener | None) -> T:
    """
    Make a call, and once more after a fault that may pass; see `repeated`.

    :param call: The call.
    :param listener: Who hears the reply while it comes.
    :returns: What it gives.
    :raises ModelError: If it failed for good.
    """
    try:
        return await call()
    except ModelError as error:
        if not _may_repeat(error, listener):
            raise
        pause = _pause(error)
    await asyncio.sleep(pause)
    return await call()


def _may_repeat(error: ModelError, listener: Listener | AsyncListener | None) -> bool:
    return error.passing and _pause(error) <= LONGEST_PAUSE and not (listener and listener.heard)


def _pause(error: ModelError) -> float:
    return max(RETRY_SECONDS, error.retry_after or 0.0)
