"""HTTP/1.1 over kept connections with as little as it takes: what a client written by hand would cost."""

import asyncio
from collections import deque

_END = b"\r\n\r\n"


class RawClient:
    """
    Sends requests to one server and keeps every connection.

    Usage example:
    ```python
    client = RawClient(8000)
    status, body = await client.send("POST", "/query/", b'{"q": "Why?"}')
    client.close()
    ```
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        """
        Remember where the server is.

        :param port: its port.
        :param host: its host.
        """
        self.host = host
        self.port = port
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def send(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """
        Send a request and read its response.

        :param method: the method.
        :param path: path and query string.
        :param body: JSON.
        :returns: status and body.
        """
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        request = head.encode() + body
        while self._idle:
            try:
                return await self._exchange(request, *self._idle.pop())
            except (asyncio.IncompleteReadError, ConnectionError):
                continue  # the server closed it while it was idle
        return await self._exchange(request, *await asyncio.open_connection(self.host, self.port))

    async def _exchange(
        self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[int, bytes]:
        try:
            writer.write(request)
            received = (await reader.readuntil(_END)).lower()
            status = int(received[9:12])
            length = int(received.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            answer = await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return status, answer

    def close(self) -> None:
        """Close every connection that is not in use."""
        while self._idle:
            self._idle.pop()[1].close()
