"""A proxy between the service and a real dependency that hangs, drips, resets, refuses or cuts when a test says so."""

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

_PIECE = 65536
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing throws away what is unsent and tells the client at once


class FaultProxy:
    """
    The proxy, on a free port of loopback; `running_proxy` runs it.

    It passes everything on until a test calls `hang`, `drip`, `reset`, `refuse` or `cut`, each of which holds for the
    connections that there are and for new ones, until another one or `mend` is called.

    :param host: The dependency's host.
    :param port: The dependency's port.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.accepted = 0
        """Connections that ever were."""
        self._target = (host, port)
        self._loop: asyncio.AbstractEventLoop
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._flowing: asyncio.Event
        self._pause = 0.0
        self._left: int | None = None
        self._resetting = False

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._links)

    def url(self, of: str) -> str:
        """
        Give the address of the dependency by way of the proxy.

        :param of: The dependency's own URL.
        :returns: The same with the proxy's host and port.
        """
        parts = urlsplit(of)
        return parts._replace(netloc=f"127.0.0.1:{self.port}").geturl()

    def mend(self) -> None:
        """Pass everything on; what hung goes on where it stopped."""
        self._call(self._behave)

    def hang(self) -> None:
        """Take connections and bytes, but pass nothing on, either way."""
        self._call(lambda: self._behave(flowing=False))

    def drip(self, pause: float) -> None:
        """
        Send clients one byte at a time.

        :param pause: Seconds before each byte.
        """
        self._call(lambda: self._behave(pause=pause))

    def cut(self, after: int) -> None:
        """
        Close the connections to clients in the middle of a reply.

        :param after: Bytes, of all connections together, that clients still get.
        """
        self._call(lambda: self._behave(left=after))

    def reset(self) -> None:
        """Break every connection with a reset, new ones as soon as they are made."""
        self._call(lambda: self._behave(resetting=True))

    def refuse(self) -> None:
        """Break every connection and let none be made."""
        self._call(lambda: self._behave(resetting=True, listening=False))

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        self._loop, self._flowing = asyncio.get_running_loop(), asyncio.Event()
        await self._behave()
        ready.set()
        await stop.wait()
        await self._behave(resetting=True, listening=False)

    async def _behave(
        self,
        flowing: bool = True,
        pause: float = 0.0,
        left: int | None = None,
        resetting: bool = False,
        listening: bool = True,
    ) -> None:
        self._pause, self._left, self._resetting = pause, left, resetting
        self._flowing.set() if flowing else self._flowing.clear()
        if not listening and self._server is not None:
            self._server.close()
            self._server = None
        for link in self._links if resetting else ():
            link.reset()
        if listening and self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(reader, writer)
        self._links.add(link)
        try:
            if self._resetting:
                link.reset()
                return
            with suppress(OSError, asyncio.CancelledError):  # either side has gone, or the test is over
                await link.run(self._target, self._to_server, self._to_client)
        finally:
            self._links.discard(link)

    async def _to_server(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        writer.write(data)
        await writer.drain()

    async def _to_client(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        while data:
            size = 1 if self._pause else len(data)
            await asyncio.sleep(self._pause)
            if self._left is not None:
                size = min(size, self._left)
                self._left -= size
            writer.write(data[:size])
            await writer.drain()
            if self._left == 0:
                raise ConnectionAbortedError("cut")
            data = data[size:]

    def _call(self, behave: Callable[[], Any]) -> None:
        asyncio.run_coroutine_threadsafe(behave(), self._loop).result(5)


class _Link:
    """One client's connection and the proxy's own to the dependency."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._client = (reader, writer)
        self._server: asyncio.StreamWriter | None = None

    async def run(self, target: tuple[str, int], to_server: "_Pass", to_client: "_Pass") -> None:
        """Pass on what comes from either side until one ends."""
        reader, writer = self._client
        try:
            from_server, self._server = await asyncio.open_connection(*target)
            pumps = {
                asyncio.create_task(_pump(reader, self._server, to_server)),
                asyncio.create_task(_pump(from_server, writer, to_client)),
            }
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            writer.close()
            if self._server is not None:
                self._server.close()

    def reset(self) -> None:
        """Break both connections."""
        writer = self._client[1]
        connection: socket.socket = writer.get_extra_info("socket")
        with suppress(OSError):  # closed already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
        if self._server is not None:
            self._server.transport.abort()


_Pass = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, send: _Pass) -> None:
    while data := await reader.read(_PIECE):
        await send(data, writer)


@contextmanager
def running_proxy(url: str) -> Iterator[FaultProxy]:
    """
    Run a proxy in a thread.

    :param url: The dependency's URL, of any scheme.
    :returns: The proxy.
    """
    parts = urlsplit(url)
    proxy = FaultProxy(str(parts.hostname), int(parts.port or 80))
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(proxy.serve(ready, stop))

    thread = threading.Thread(target=run, name="fault-proxy")
    thread.start()
    ready.wait()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
