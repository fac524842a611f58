import asyncio
import gzip
import socket
from collections.abc import Awaitable, Callable

import httpx
import pytest

from components.models.aiohttp_transport import AiohttpClient, AiohttpTransport

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def answered_by(handler: Handler, timeout: float = 5.0) -> httpx.Response:
    """Send a request to a server that answers with `handler`."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, AiohttpClient(AiohttpTransport(verify=False), timeout=timeout) as client:
        return await client.post(f"http://127.0.0.1:{port}/path?a=b", json={"q": "why"})


async def write(writer: asyncio.StreamWriter, *parts: bytes) -> None:
    writer.write(b"".join(parts))
    await writer.drain()
    writer.close()


def test_carries_request_and_response() -> None:
    """Path, headers and body reach the server, and status, headers and an encoded body come back."""
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"}"))
        body = gzip.compress(b'{"a": 1}')
        head = f"content-encoding: gzip\r\nx-a: 1\r\nx-a: 2\r\ncontent-length: {len(body)}\r\n\r\n"
        await write(writer, b"HTTP/1.1 201 Created\r\n", head.encode(), body)

    response = asyncio.run(answered_by(handler))
    assert seen[0].startswith(b"POST /path?a=b HTTP/1.1\r\n")
    assert seen[0].endswith(b'\r\n\r\n{"q":"why"}')
    assert (response.status_code, response.reason_phrase) == (201, "Created")
    assert response.headers.get_list("x-a") == ["1", "2"]
    assert response.json() == {"a": 1}


def test_says_late_when_the_answer_is_late() -> None:
    """A server that accepts and does not answer is a read timeout."""
    done = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await write(writer)
        done.set()

    async def ask() -> None:
        with pytest.raises(httpx.ReadTimeout):
            await answered_by(handler, timeout=0.1)
        await asyncio.wait_for(done.wait(), 5)  # and the server learns that nobody waits

    asyncio.run(ask())


def test_says_broken_off_when_the_server_hangs_up() -> None:
    """A connection that ends before or in the answer is a protocol error, which is none of a timeout."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        await write(writer)

    async def short(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        await write(writer, b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")

    for handler in (silent, short):
        with pytest.raises(httpx.RemoteProtocolError):
            asyncio.run(answered_by(handler))


def test_says_connect_error_when_nobody_listens() -> None:
    """A refused connection is a connect error, by which clients tell that the server is down."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        async def ask() -> None:
            async with AiohttpClient(AiohttpTransport(verify=False)) as client:
                await client.get(f"http://127.0.0.1:{port}/")

        with pytest.raises(httpx.ConnectError):
            asyncio.run(ask())


def test_follows_a_redirect() -> None:
    """A redirect is followed when the client was told to, by httpx's rules."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b" /old " in request:
            await write(writer, b"HTTP/1.1 308 Moved\r\nlocation: /new\r\ncontent-length: 0\r\n\r\n")
        else:
            await write(writer, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    async def ask() -> httpx.Response:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        transport = AiohttpTransport(verify=False)
        async with server, AiohttpClient(transport, base_url=base, follow_redirects=True) as client:
            return await client.get("/old")

    response = asyncio.run(ask())
    assert (response.status_code, response.url.path) == (200, "/new")


def test_keeps_a_connection_that_was_read_to_its_end() -> None:
    """The second request goes over the connection of the first."""
    connections: list[int] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        while await reader.readline():
            while await reader.readline() not in (b"\r\n", b""):
                pass
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    async def ask_twice() -> None:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with server, AiohttpClient(AiohttpTransport(verify=False)) as client:
            await client.get(url)
            await client.get(url)

    asyncio.run(ask_twice())
    assert len(connections) == 1
