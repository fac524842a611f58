"""The reader of requests, with an end to what it takes in before the application knows of a request."""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.limiting.errors import HeadersTooLargeError

HEAD_SECONDS = 30.0
"""How long a client may take to send the head of a request, and to begin with its first."""
BODY_SECONDS = 30.0
"""How often a body is looked at, whether it comes."""
BODY_BYTES = 16 * 1024
"""How much of a body has to come in this time; the slowest of mobile networks bring ten times as much."""
LINGER_SECONDS = 5.0
"""How long the rest of a body is taken in, and thrown away, when its request has its answer already.

A connection that is closed at once would tear the answer from whoever still sends.
"""
# What comes at once may be the rest of one request and the beginning of the next. The application tells exactly.
_SLACK = 256 * 1024


class LimitedProtocol(HttpToolsProtocol):
    """
    Closes a connection whose request has a head without an end, or a head or body that does not come.

    uvicorn keeps all of a head in memory until it is complete, and waits for that and for the body as long as the
    client likes.
    """

    max_header_bytes = 32 * 1024

    _reads_head = False
    _head_bytes = 0
    _reads_body = False
    _body_bytes = 0
    _was_paused = False
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(transport)
        self._start_clock(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        super().data_received(data)
        if self._reads_body:
            self._body_bytes += len(data)
            self._start_clock(BODY_SECONDS)
        elif self._reads_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.max_header_bytes + _SLACK and not self.transport.is_closing():
                self.transport.write(_refusal(self.max_header_bytes))
                self.transport.close()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._reads_head, self._head_bytes = True, 0
        self._start_clock(HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        """Hand a request to the application."""
        self._reads_head = False
        self._reads_body, self._body_bytes, self._was_paused = True, 0, False
        self._stop_clock()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request."""
        self._reads_body = False
        self._stop_clock()
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete:
            # uvicorn's own clock for the next request has been stopped by the rest of this one.
            self._start_clock(HEAD_SECONDS)

    def on_response_complete(self) -> None:
        """End an answer, perhaps before its request."""
        super().on_response_complete()
        if self._reads_body and self.cycle.response_complete and not self.transport.is_closing():
            self._stop_clock()
            self._start_clock(LINGER_SECONDS)

    def _start_clock(self, seconds: float) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(seconds, self._time_is_up)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_is_up(self) -> None:
        self._deadline = None
        if self._reads_body and self._may_go_on():
            self._body_bytes, self._was_paused = 0, self.flow.read_paused
            self._start_clock(BODY_SECONDS)
        elif not self._reads_body and self.cycle is not None and not self.cycle.response_complete:
            # What comes behind a request is not read while that is worked on.
            self._start_clock(HEAD_SECONDS)
        elif not self.transport.is_closing():
            self.transport.close()

    def _may_go_on(self) -> bool:
        """Tell whether a body comes fast enough, or does not come because of us."""
        if self.cycle.response_complete:
            return False
        awaits_us = self._was_paused or self.flow.read_paused or self.cycle.waiting_for_100_continue
        return awaits_us or self.cycle.response_started or self._body_bytes >= BODY_BYTES


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
