"""The reader of requests, with an end to what it takes in before the application knows of a request."""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.limiting.errors import HeadersTooLargeError

HEAD_SECONDS = 30.0
"""How long a client may take to send the head of a request, and to begin with its first."""
# What comes at once may be the rest of one request and the beginning of the next. The application tells exactly.
_SLACK = 256 * 1024


class LimitedProtocol(HttpToolsProtocol):
    """
    Closes a connection whose request has a head without an end, or one that does not come.

    uvicorn keeps all of a head in memory until it is complete, and waits for that as long as the client likes.
    """

    max_header_bytes = 32 * 1024

    _reads_head = False
    _head_bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        super().data_received(data)
        if not self._reads_head:
            return
        self._head_bytes += len(data)
        if self._head_bytes > self.max_header_bytes + _SLACK and not self.transport.is_closing():
            self.transport.write(_refusal(self.max_header_bytes))
            self.transport.close()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._reads_head, self._head_bytes = True, 0
        self._start_clock()

    def on_headers_complete(self) -> None:
        """Hand a request to the application."""
        self._reads_head = False
        self._stop_clock()
        super().on_headers_complete()

    def _start_clock(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.cycle is not None and not self.cycle.response_complete:
            # What comes behind a request is not read while that is worked on.
            self._start_clock()
        elif not self.transport.is_closing():
            self.transport.close()


def protocol_of(max_header_bytes: int) -> type[LimitedProtocol]:
    """
    Make the reader of a server.

    :param max_header_bytes: how large the headers of a request may be.
    :returns: what uvicorn takes as its `http`.
    """
    return type("Protocol", (LimitedProtocol,), {"max_header_bytes": max_header_bytes})


def _refusal(max_header_bytes: int) -> bytes:
    problem: dict[str, Any] = {
        "type": "urn:thresher:problem:headers-too-large",
        "title": "Headers too large",
        "status": 431,
        "detail": str(HeadersTooLargeError(max_header_bytes)),
    }
    body = json.dumps(problem).encode()
    head = (
        "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/problem+json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
