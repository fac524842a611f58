"""Answers that are sent piece by piece: at once, with heartbeats, and with an end that says what broke."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress

from fastapi import Request
from fastapi.sse import KEEPALIVE_COMMENT
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serve.errors import ServiceStoppingError
from serve.server import grace_ends

HEARTBEAT_SECONDS = 10.0
HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
"""Keep what stands between a server and its client from gathering what is sent piece by piece."""


async def stream_response(
    request: Request, chunks: AsyncGenerator[bytes, None], ending: Callable[[Exception], bytes]
) -> "LiveResponse":
    """
    Answer with server-sent events, which are sent as they come.

    What is raised before the first chunk is raised here, so it is answered as without a stream; only when the first
    chunk lets a heartbeat's time pass, the answer begins without it.

    Usage example:
    ```python
    async def chunks():
        async for event in service.answering.stream("crag", question):
            yield format_sse_event(event=event.kind, data_str=event.data.model_dump_json())

    return await stream_response(request, chunks(), lambda error: b"event: error\\n...")
    ```

    :param request: the request.
    :param chunks: the events, encoded. The generator is closed when it has ended, when the client leaves, and when the
        server stops before it has ended.
    :param ending: makes the stream's last chunk from what broke it, `ServiceStoppingError` if the server stops.
    :returns: the response.
    """
    body = _LiveBody(chunks, ending, getattr(request.state, "stopping", None))
    await body.begin()
    return LiveResponse(body)


class _LiveBody:
    """The chunks of a stream, read by a task of its own, so that a heartbeat can be sent while it waits."""

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        ending: Callable[[Exception], bytes],
        stopping: asyncio.Event | None,
    ) -> None:
        # One chunk ahead. A client that reads slowly holds up this generator, but not a mode: what its run tells waits
        # in a queue of `Mode.stream`, which the length of one answer bounds.
        self._read: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(1)
        self._ending = ending
        self._first: bytes | Exception | None = None
        self._closed = False
        self._tasks = [asyncio.create_task(self._read_all(chunks))]
        if stopping is not None:
            self._tasks.append(asyncio.create_task(self._break_off(stopping)))

    async def begin(self) -> None:
        """Wait for the first chunk; raise what came instead of it."""
        try:
            self._first = await self._next()
            if isinstance(self._first, Exception):
                raise self._first
        except BaseException:
            await self.close()
            raise

    async def chunks(self) -> AsyncIterator[bytes]:
        chunk = self._first
        while chunk is not None:
            if isinstance(chunk, Exception):
                yield self._ending(chunk)
                return
            yield chunk
            chunk = await self._next()

    async def close(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _next(self) -> bytes | Exception | None:
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                return await self._read.get()
        return KEEPALIVE_COMMENT

    async def _read_all(self, chunks: AsyncGenerator[bytes, None]) -> None:
        fault = None
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    await self._read.put(chunk)
        except Exception as error:
            fault = error
        if not self._closed:
            await self._read.put(fault)

    async def _break_off(self, stopping: asyncio.Event) -> None:
        await grace_ends(stopping)
        await self._read.put(ServiceStoppingError())


class LiveResponse(StreamingResponse):
    """A response of server-sent events that stops what makes them when nobody reads them any more."""

    media_type = "text/event-stream"

    def __init__(self, body: _LiveBody) -> None:
        """
        Take what is to be sent.

        :param body: the chunks, begun.
        """
        super().__init__(body.chunks(), headers=HEADERS)
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Send the response.

        :param scope: the ASGI scope.
        :param receive: gives the request's messages.
        :param send: takes the response's messages.
        """
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Starlette leaves an iterator open when the client goes away while a chunk is being sent.
            await self._body.close()
