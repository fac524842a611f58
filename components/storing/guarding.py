"""How a Chroma server is asked: within a time, once more where that is safe, and not at all while it keeps failing."""

import re
from typing import Any

import httpx

from components.bounded_reading import bound_reading
from components.breaking import AWAY_STATUSES, Breaker
from components.retrying import two_attempts

# Calls that change nothing, whose answer may be asked for again when it gets lost.
_READING = re.compile(r".*/(query|get|count)")
_PAUSE_SECONDS = 0.05


class GuardedTransport(httpx.BaseTransport):
    """Sends the requests of Chroma's client, and reads each answer to its end, which the client would do next."""

    def __init__(self, transport: httpx.BaseTransport, breaker: Breaker) -> None:
        """
        Wrap a transport.

        :param transport: what sends.
        :param breaker: opens when the server keeps failing.
        """
        self._transport = transport
        self._breaker = breaker

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send a request.

        :param request: the request.
        :returns: the response, read.
        :raises CircuitOpenError: if the server has kept failing.
        :raises httpx.TransportError: if it can't be reached, or does not answer in time.
        """
        if "/collections" not in request.url.path:
            # This asks whether the server is there, or is how a client begins. So it is always asked; but to answer it
            # is not to work.
            response = self._once(request)
            if not response.is_server_error:
                self._breaker.seems_well()
            return response
        try:
            with self._breaker.guarding(_shows_it_away):
                response = self._exchange(request)
                if response.is_server_error:
                    response.raise_for_status()
        except httpx.HTTPStatusError as error:
            # Chroma's client reads what it says.
            return error.response
        return response

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()

    def _exchange(self, request: httpx.Request) -> httpx.Response:
        if request.method != "GET" and not _READING.fullmatch(request.url.path):
            return self._once(request)
        # A connection that was kept open breaks when the server has been started anew.
        broken = (httpx.NetworkError, httpx.RemoteProtocolError)
        for attempt in two_attempts(broken, _PAUSE_SECONDS):
            with attempt:
                return self._once(request)
        raise AssertionError("the last attempt gives an answer or raises")

    def _once(self, request: httpx.Request) -> httpx.Response:
        response = self._transport.handle_request(request)
        response.request = request
        bound_reading(response)
        response.read()
        return response


def _shows_it_away(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        # A 500 may be about a single call, and shows nothing.
        return error.response.status_code in AWAY_STATUSES
    return isinstance(error, httpx.HTTPError)


def guard(session: httpx.Client, timeout: float, breaker: Breaker) -> None:
    """
    Bound a session of Chroma's client, which bounds nothing itself.

    :param session: the session.
    :param timeout: seconds a call may take.
    :param breaker: opens when the server keeps failing.
    """
    session.timeout = httpx.Timeout(timeout)
    private: Any = session
    private._transport = GuardedTransport(private._transport, breaker)
    private._mounts = {
        pattern: transport and GuardedTransport(transport, breaker)
        for pattern, transport in private._mounts.items()
    }
