"""Sending an httpx client's requests through aiohttp."""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import aiohttp
import httpx

from components.bounded_reading import bounded
from components.tracing import trace_headers

# Below the 5 seconds after which uvicorn, and so vLLM, closes an idle connection.
KEEP_ALIVE_SECONDS = 4.0


class AiohttpTransport(httpx.AsyncBaseTransport):
    """
    Carries the requests of an `httpx.AsyncClient`, for a third of the processor time of httpx's own transport.

    That one also slows down with each request in flight, and a grader has many in flight.

    ### Usage example
    ```python
    from components.models.aiohttp_transport import AiohttpClient, AiohttpTransport

    async with AiohttpClient(AiohttpTransport()) as client:
        response = await client.get("http://127.0.0.1:11434/api/tags")
    ```
    """

    def __init__(self, verify: bool = True, trust_env: bool = True, keep_alive: int = 100) -> None:
        """
        Store the configuration; the first request connects.

        :param verify: Whether certificates are checked; loading the trusted ones takes 20 ms.
        :param trust_env: Whether the environment's proxies are used.
        :param keep_alive: How many idle connections are kept.
        """
        self.verify = verify
        self.trust_env = trust_env
        self.keep_alive = keep_alive
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send a request, in the trace that is current.

        :param request: The request.
        :returns: The response; its body is read from the connection as it is wanted.
        :raises httpx.TransportError: If it could not be sent or was not answered.
        """
        if self._session is None:
            self._session = self._new_session()
        limits = request.extensions.get("timeout", {})
        timeout = aiohttp.ClientTimeout(
            connect=limits.get("pool"), sock_connect=limits.get("connect"), sock_read=limits.get("read")
        )
        with _as_httpx(request):
            response = await self._session.request(
                request.method,
                str(request.url),
                headers=[*request.headers.multi_items(), *trace_headers().items()],
                data=await request.aread() or None,
                allow_redirects=False,
                timeout=timeout,
            )
        return httpx.Response(
            response.status,
            headers=response.raw_headers,
            stream=_Body(request, response),
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": (response.reason or "").encode()},
        )

    async def aclose(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _new_session(self) -> aiohttp.ClientSession:
        context: ssl.SSLContext | bool = _trusting() if self.verify else False
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ssl=context)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # httpx does it
            trust_env=self.trust_env,
        )


class AiohttpClient(httpx.AsyncClient):
    """
    An `httpx.AsyncClient` for one server that sends through aiohttp and does without what only costs there.

    That is: reading each URL anew, authentication schemes, cookies, event hooks and history, which together take
    more time than sending. A redirect is still followed, by httpx's own way.
    """

    def __init__(self, transport: AiohttpTransport, **options: Any) -> None:
        """
        Create a client.

        :param transport: What sends.
        :param options: Further arguments of `httpx.AsyncClient`.
        """
        super().__init__(transport=transport, **options)
        self._sender = transport
        self._urls: dict[str, httpx.URL] = {}

    def build_request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Request:
        """
        Build a request; see `httpx.AsyncClient.build_request`.

        :param method: Its method.
        :param url: Its URL, absolute or below the base URL.
        :param options: The rest of it.
        :returns: The request.
        """
        key = str(url)
        if key not in self._urls:
            self._urls[key] = super().build_request(method, url).url
        return super().build_request(method, self._urls[key], **options)

    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """
        Send a request; see `httpx.AsyncClient.send`.

        :param request: The request.
        :param stream: Whether the caller reads the body.
        :param options: Passed on when there is a redirect to follow.
        :returns: The response.
        :raises httpx.TransportError: If it could not be sent or was not answered.
        """
        response = await self._sender.handle_async_request(request)
        response.request = request
        if response.has_redirect_location:
            await response.aclose()
            return await super().send(request, stream=stream, **options)
        if not stream:
            try:
                await response.aread()
            except BaseException:
                await response.aclose()
                raise
        return response


class _Body(httpx.AsyncByteStream):
    def __init__(self, request: httpx.Request, response: aiohttp.ClientResponse) -> None:
        self._request = request
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx(self._request):
            async for chunk in bounded(self._response.content.iter_any()):
                yield chunk

    async def aclose(self) -> None:
        # Keeps the connection when the body was read to its end, else closes it, which tells the server to stop.
        self._response.close()


@cache
def _trusting() -> ssl.SSLContext:
    return httpx.create_ssl_context()


@contextmanager
def _as_httpx(request: httpx.Request) -> Iterator[None]:
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout(str(error), request=request) from error
    except (TimeoutError, aiohttp.ServerTimeoutError) as error:
        raise httpx.ReadTimeout(str(error), request=request) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx.ConnectError(str(error), request=request) from error
    except (
        aiohttp.ServerDisconnectedError,
        aiohttp.ClientPayloadError,
        aiohttp.ClientResponseError,
    ) as error:
        raise httpx.RemoteProtocolError(str(error) or type(error).__name__, request=request) from error
    except aiohttp.InvalidURL as error:
        raise httpx.UnsupportedProtocol(str(error), request=request) from error
    except aiohttp.ClientError as error:
        raise httpx.NetworkError(str(error) or type(error).__name__, request=request) from error
