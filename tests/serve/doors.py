"""Every door that a question can come through, for tests that hold for all of them."""

import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

QUESTION = "How tall is the Eiffel Tower?"
_CHAT = {"model": "standard", "messages": [{"role": "user", "content": QUESTION}]}
_RESPONSE = {"model": "standard", "input": QUESTION}
_TOOL = {"name": "standard", "arguments": {"query": QUESTION}}


@dataclass(frozen=True)
class Door:
    """A request that asks the question, sent over a bare connection, so that leaving is closing it."""

    name: str
    path: str
    body: dict[str, Any] | None
    streams: bool = False
    """Whether the answer comes token by token."""

    def knock(self, url: str) -> socket.socket:
        """:returns: The connection over which the request has been sent."""
        address = urlsplit(url)
        body = b"" if self.body is None else json.dumps(self.body).encode()
        head = (
            f"{'GET' if self.body is None else 'POST'} {self.path} HTTP/1.1\r\nhost: {address.netloc}\r\n"
            "content-type: application/json\r\naccept: application/json, text/event-stream\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        connection = socket.create_connection((str(address.hostname), address.port or 80), timeout=10)
        connection.sendall(head.encode() + body)
        return connection


DOORS = (
    Door("query", "/query/", {"q": QUESTION, "stream": False}),
    Door("query streamed", "/query/", {"q": QUESTION, "stream": True}, streams=True),
    Door("query by URL", f"/query/?stream=false&q={quote(QUESTION)}", None),
    Door("query by URL streamed", f"/query/?stream=true&q={quote(QUESTION)}", None, streams=True),
    Door("batch", "/query/batch", {"questions": [{"q": QUESTION}]}),
    Door("run", "/standard/run", {"query": QUESTION}),
    Door("chat", "/v1/chat/completions", _CHAT),
    Door("chat streamed", "/v1/chat/completions", {**_CHAT, "stream": True}, streams=True),
    Door("responses", "/v1/responses", _RESPONSE),
    Door("responses streamed", "/v1/responses", {**_RESPONSE, "stream": True}, streams=True),
    Door("mcp", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": _TOOL}),
)


def heard(connection: socket.socket, what: bytes) -> bytes:
    """
    Read until something has come.

    :param connection: Where from.
    :param what: What to wait for.
    :returns: All that has come.
    """
    said = b""
    while what not in said:
        part = connection.recv(65536)
        assert part, f"{what!r} did not come before the end of {said!r}"
        said += part
    return said
