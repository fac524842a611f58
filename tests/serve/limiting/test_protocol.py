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


def closes(connection: socket.socket, seconds: float) -> bool:
    """Whether a connection over which a byte comes now and then is closed in this time."""
    begin = time.monotonic()
    connection.settimeout(0.02)
    with suppress(ConnectionError):
        while time.monotonic() - begin < seconds:
            with suppress(TimeoutError):
                if connection.recv(4_096) == b"":
                    return True
            connection.sendall(b"x")
        return False
    return True


def test_a_body_that_drips_behind_its_answer_is_not_waited_for(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is refused before the body has come has a moment to send the rest, and then the connection is closed."""
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.3)
    with connect(client) as connection:
        connection.sendall(b"POST /ingest/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9000000\r\n\r\n")
        assert connection.recv(4_096).startswith(b"HTTP/1.1 413 ")
        assert closes(connection, 5)


def test_a_connection_goes_on_when_the_rest_of_a_refused_body_has_come(client: httpx.Client) -> None:
    """A client that sends all of a body that is too large reads the answer, and may ask the next thing there."""
    with connect(client) as connection:
        connection.sendall(b"POST /ingest/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4000000\r\n\r\n")
        connection.sendall(b"x" * 4_000_000)
        assert connection.recv(4_096).startswith(b"HTTP/1.1 413 ")
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(4_096).startswith(b"HTTP/1.1 200 ")


def test_a_body_has_to_come_at_some_pace(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that drips is not waited for; a slow one that keeps coming is taken, however long it takes."""
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(protocol, "BODY_BYTES", 1_000)
    text = b'{"texts": ["' + b"slow " * 2_000 + b'"]}'
    head = b"POST /ingest/ HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    with connect(client) as dripping, connect(client) as steady:
        dripping.sendall(head % 900_000)
        steady.sendall(head % len(text))
        for begin in range(0, len(text), 1_000):
            steady.sendall(text[begin : begin + 1_000])
            with suppress(ConnectionError):
                dripping.sendall(b"x")
            time.sleep(0.1)
        assert steady.recv(4_096).startswith(b"HTTP/1.1 202 ")
        assert closes(dripping, 1)
