"""What the server reads of a request before the application knows of it."""

import socket
import time
from contextlib import suppress

import httpx
import pytest

from serve.limiting import protocol


def connect(client: httpx.Client) -> socket.socket:
    """A connection of its own to the service."""
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=10)


def test_a_head_without_an_end_is_cut_off(client: httpx.Client) -> None:
    """A header that goes on and on is a 431 after some hundred kilobytes, and the connection is closed."""
    sent = 0
    with connect(client) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-long: ")
        with suppress(ConnectionError):
            while sent < 20_000_000:
                sent += connection.send(b"a" * 65_536)
        received = b""
        with suppress(ConnectionError):
            received = connection.recv(1_000)
    assert sent < 20_000_000
    assert received.startswith(b"HTTP/1.1 431 ") or received == b""


def test_a_head_that_does_not_come_is_not_waited_for(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection with half a head, or with nothing at all, is closed after a while; one that asks is not."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    with connect(client) as silent, connect(client) as half, connect(client) as asking:
        half.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n")
        for _ in range(5):
            asking.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert b"200 OK" in asking.recv(1_000)
            time.sleep(0.1)
        assert silent.recv(100) == half.recv(100) == b""
