"""The layer that refuses requests which are too large at their head, or one too many of their caller."""

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.fairness import set_share
from serve.access import caller_of
from serve.errors import LimitError, describe, problem_response
from serve.http_middleware import HttpMiddleware
from serve.limiting.errors import (
    HeadersTooLargeError,
    RateLimitedError,
    TooManyRequestsError,
    UrlTooLongError,
)
from serve.limiting.limits import CallerLimits, refusal_headers
from serve.limiting.turns import Turns
from serve.pacing import PROBES
from settings import Settings

# A character of a question takes up to twelve bytes, percent-encoded.
_BYTES_PER_CHARACTER = 12
_OTHER_URL_BYTES = 8 * 1024
_MAX_PARAMETERS = 100


class LimitsMiddleware(HttpMiddleware):
    """Puts a request on its caller's account, and refuses it where that is overdrawn."""

    def __init__(self, app: ASGIApp, settings: Settings, limits: CallerLimits) -> None:
        """
        Wrap an application.

        :param app: the application.
        :param settings: the service's settings.
        :param limits: the callers' accounts.
        """
        super().__init__(app)
        self._limits = limits
        self._turns = Turns()
        self._max_header_bytes = settings.max_header_bytes
        self._max_url_bytes = settings.max_question_chars * _BYTES_PER_CHARACTER + _OTHER_URL_BYTES

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check_head(scope)
        except (HeadersTooLargeError, UrlTooLongError, LimitError) as error:
            await problem_response(scope, *describe(error))(scope, receive, send)
            return
        caller = _name_of(scope)
        set_share(key=caller)
        if scope["path"] in PROBES:
            await self.app(scope, receive, send)
            return
        try:
            with self._limits.under_way(caller):
                await self._turns.own()
                told = await self._limits.check_requests(caller)
                await self.app(scope, receive, _telling(send, told) if told else send)
        except (RateLimitedError, TooManyRequestsError) as error:
            await problem_response(scope, *describe(error), refusal_headers(error))(scope, receive, send)

    def _check_head(self, scope: Scope) -> None:
        if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > self._max_header_bytes:
            raise HeadersTooLargeError(self._max_header_bytes)
        query = scope.get("query_string", b"")
        if len(scope.get("raw_path") or b"") + len(query) > self._max_url_bytes:
            raise UrlTooLongError(self._max_url_bytes)
        if query.count(b"&") >= _MAX_PARAMETERS:
            raise LimitError("the URL", f"has more than {_MAX_PARAMETERS} parameters")


def _name_of(scope: Scope) -> str:
    """Name who sent a request: by its key, and where nobody asks for keys, by its address."""
    key_id = caller_of(HTTPConnection(scope)).key_id
    return key_id or f"at {(scope.get('client') or ('nowhere',))[0]}"


def _telling(send: Send, told: dict[str, str]) -> Send:
    async def telling(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(told)
        await send(message)

    return telling
