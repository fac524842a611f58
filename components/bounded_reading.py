"""Reading a server's answer no further than it can make sense, and no longer than it may take."""

import time
from collections.abc import AsyncIterator, Iterator

import httpx

# A reply of 8,000 tokens with 20 alternatives for each has about as many bytes; a text has a thousandth of it.
MAX_REPLY_BYTES = 16 * 1024 * 1024


class ReplyTooLargeError(httpx.TransportError):
    """A model's server sends more than any reply has."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__(f"it sent more than {MAX_REPLY_BYTES} bytes")


def bound_reading(response: httpx.Response, max_bytes: int | None = None) -> None:
    """
    Bound what is read of a response.

    The client's own timeout holds for each read, so that a server which drips would hold its caller for ever. Here it
    holds for the whole body as well.

    :param response: The response, of which nothing is read yet.
    :param max_bytes: How much it may have; None for any size.
    """
    seconds = response.request.extensions.get("timeout", {}).get("read")
    assert isinstance(response.stream, httpx.SyncByteStream)
    response.stream = _Bounded(response.stream, response.request, seconds, max_bytes)


class _Bounded(httpx.SyncByteStream):
    def __init__(
        self,
        stream: httpx.SyncByteStream,
        request: httpx.Request,
        seconds: float | None,
        max_bytes: int | None,
    ) -> None:
        self._stream = stream
        self._request = request
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._max_bytes = max_bytes

    def __iter__(self) -> Iterator[bytes]:
        came = 0
        for chunk in self._stream:
            came += len(chunk)
            if self._max_bytes is not None and came > self._max_bytes:
                raise ReplyTooLargeError
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise httpx.ReadTimeout("the reply did not end in time", request=self._request)
            yield chunk

    def close(self) -> None:
        self._stream.close()


def bound_reply(response: httpx.Response) -> None:
    """
    Bound what is read of a model's reply; an event hook of an `httpx.Client`.

    :param response: The response, of which nothing is read yet.
    """
    bound_reading(response, MAX_REPLY_BYTES)


async def bounded(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """
    Bound what is read of a model's reply, whose time its caller bounds.

    :param chunks: The body.
    :returns: The same.
    :raises ReplyTooLargeError: When it is too large.
    """
    left = MAX_REPLY_BYTES
    async for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise ReplyTooLargeError
        yield chunk
