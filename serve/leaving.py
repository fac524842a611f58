"""Clients that go away before their answer is complete: nobody works on it any longer."""

import asyncio
import re

from starlette.types import Message, Receive, Scope, Send

from serve.http_middleware import HttpMiddleware
from serve.middleware import BodyTooLargeError

# Where a question is asked. What changes documents or jobs goes on without its client.
_ASKING = re.compile(r"/(query|v1|mcp)(/.*)?|/(?!ingest/|documents/)[^/]+/run")
# As nginx has it; nobody gets it, but it stands in the access line.
_CLIENT_LEFT = 499


class LeavingMiddleware(HttpMiddleware):
    """
    Cancels the work on a question when its client goes away before the answer is complete.

    It reads on in the request while the application works, so the limit of its body has to be around it.

    `request.state.left` is an event that is set then, for what works on the question in another task than the
    request's.
    """

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _ASKING.fullmatch(scope["path"]):
            await self.app(scope, receive, send)
            return
        visit = _Visit(receive, send)
        scope.setdefault("state", {})["left"] = visit.left
        answer = asyncio.ensure_future(self.app(scope, visit.receive, visit.send))
        watch = asyncio.create_task(visit.watch(answer))
        try:
            await answer
        except asyncio.CancelledError:
            if visit.fault is not None:
                raise visit.fault from None
            if not visit.left.is_set():
                raise
            await visit.end()
        finally:
            watch.cancel()


class _Visit:
    """A request whose client is watched while the application works on it."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.left = asyncio.Event()
        self.fault: BodyTooLargeError | None = None
        self._receive = receive
        self._send = send
        self._started = False
        self._complete = False
        self._is_read = False
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()

    async def watch(self, answer: "asyncio.Future[None]") -> None:
        """Read the request, and cancel the answer when the client leaves or sends too much."""
        gone = False
        while not gone:
            try:
                message = await self._receive()
            except BodyTooLargeError as fault:
                self.fault = fault
                answer.cancel()
                return
            gone = message["type"] == "http.disconnect"
            # The server says so of an answer that is complete, too.
            if gone and not self._complete:
                self.left.set()
                answer.cancel()
            self._inbox.put_nowait(message)
            # A large body comes as fast as it is read. One that nobody reads is kept up to its limit, for what comes
            # behind it is that the client leaves.
            if self._is_read and message.get("more_body", False):
                await self._inbox.join()

    async def receive(self) -> Message:
        """Give the application the next message."""
        self._is_read = True
        message = await self._inbox.get()
        self._inbox.task_done()
        return message

    async def send(self, message: Message) -> None:
        """Take a message of the application."""
        self._started = True
        self._complete = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def end(self) -> None:
        """Tell the layers around how the request ended."""
        if not self._started:
            await self._send({"type": "http.response.start", "status": _CLIENT_LEFT, "headers": []})
