"""ASGI middleware around the whole application: request id, access line, body limit."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import ServiceStoppingError, describe, problem_response
from serve.http_middleware import HttpMiddleware
from serve.json_values import ValueCounter
from serve.telemetry import bound_request_id
from serve.telemetry.routes import method_of, route_of

access_log = logging.getLogger("thresher.access")
error_log = logging.getLogger("thresher.error")

VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What an id of a request may be."""


class RequestIDMiddleware(HttpMiddleware):
    """
    Gives every request an id and writes one line about it.

    A valid `X-Request-ID` of the caller is kept (1 to 64 letters, digits, `.`, `_`, `-`), else 32 hex digits are made.
    The id is at `request.state.request_id`, in every log line of the request and on every response. It has to be the
    outermost layer: Starlette answers unhandled exceptions outside of `add_middleware`.
    """

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        inbound = Headers(scope=scope).get("x-request-id", "")
        request_id = inbound if VALID_ID.fullmatch(inbound) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        exchange = _Exchange(send, request_id)
        begin = time.perf_counter()
        with bound_request_id(request_id):
            try:
                await self.app(scope, receive, exchange.send)
            except Exception:
                # The application has answered already; all that is left is to say why.
                error_log.exception("unhandled error in %s %s", method_of(scope), route_of(scope))
            finally:
                _log_access(scope, exchange, time.perf_counter() - begin)


class _Exchange:
    """The sending half of a request, with the id put on its response."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status: int | None = None
        self.bytes = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self._request_id
        await self._send(message)
        self.bytes += len(message.get("body", b""))


def _log_access(scope: Scope, exchange: _Exchange, seconds: float) -> None:
    """Write the line of a request that has ended, with all of its answer; of its path only what is not the caller's."""
    fields = {
        "method": method_of(scope),
        "route": route_of(scope),
        "status": exchange.status,
        "ms": round(1000 * seconds, 1),
        "bytes": exchange.bytes,
        "key_id": caller.key_id if (caller := scope["state"].get("caller")) else None,
    }
    shown = (fields["method"], fields["route"], exchange.status or "-", 1000 * seconds)
    access_log.info("%s %s → %s [%.0fms]", *shown, extra={"fields": fields})


class SlashMiddleware(HttpMiddleware):
    """Takes `/ingest` for `/ingest/` and `/documents/` for `/documents`; a redirect would lose many clients' body."""

    def __init__(self, app: ASGIApp, routes: Iterable[tuple[str, str]]) -> None:
        """
        Wrap an application.

        :param app: the application.
        :param routes: its routes without parameters in their path, each as method and path.
        """
        super().__init__(app)
        self.routes = frozenset(routes)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        other = path[:-1] if path.endswith("/") else f"{path}/"
        if (method, path) not in self.routes and (method, other) in self.routes:
            scope = {**scope, "path": other, "raw_path": other.encode()}
        await self.app(scope, receive, send)


class StoppingMiddleware(HttpMiddleware):
    """Answers 503 to what is still worked on when the server's time to stop is over, instead of cutting it off."""

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except asyncio.CancelledError:
            stopping: asyncio.Event | None = scope.get("state", {}).get("stopping")
            if started or stopping is None or not stopping.is_set():
                raise
            error = ServiceStoppingError()
            headers = {"Retry-After": str(error.retry_after)}
            await problem_response(scope, *describe(error), headers)(scope, receive, send)


class BodyLimit(NamedTuple):
    """The largest body of some requests, and the setting that says so."""

    max_bytes: int
    setting: str
    max_values: int | None = None
    """How many lists, objects and entries of them it may have, as JSON; None for what is no JSON."""


class BodyLimitMiddleware(HttpMiddleware):
    """Answers 413 to a body that is too large, at once when its length is declared, else when it has come that far."""

    def __init__(
        self, app: ASGIApp, limit: BodyLimit, by_path: Mapping[str, BodyLimit] | None = None
    ) -> None:
        """
        Wrap an application.

        :param app: the application.
        :param limit: the limit of most requests.
        :param by_path: limits of single paths.
        """
        super().__init__(app)
        self.limit = limit
        self.by_path = by_path or {}

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self.by_path.get(scope["path"], self.limit)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > limit.max_bytes:
            await _refuse(_too_large(limit), scope, receive, send)
            return
        received = 0
        started = False
        counter = None if limit.max_values is None else ValueCounter()

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit.max_bytes:
                raise BodyTooLargeError(_too_large(limit))
            if counter is not None:
                counter.add(message.get("body", b""))
                if counter.values > (limit.max_values or 0):
                    raise BodyTooLargeError(_too_many(limit))
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, limited, watched)
        except BodyTooLargeError as error:
            if not started:
                await _refuse(str(error), scope, receive, send)


def _too_large(limit: BodyLimit) -> str:
    return f"The body is larger than {limit.max_bytes} bytes ({limit.setting}); send it in parts."


def _too_many(limit: BodyLimit) -> str:
    return f"The body has more than {limit.max_values} values (lists, objects and their entries); send it in parts."


async def _refuse(detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    response = problem_response(scope, 413, "body-too-large", detail)
    await response(scope, receive, send)


class BodyTooLargeError(BaseException):
    """
    More of a body has come than its limit allows.

    Not an `Exception`, so that no handler in between turns it into another answer.
    """
