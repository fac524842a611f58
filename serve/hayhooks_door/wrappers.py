"""A wrapper as Hayhooks knows it, run so that its faults stay its own."""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException as AnyHTTPException

from serve.errors import ProblemError
from serve.hayhooks_door.answers import events_answer, text_answer
from serve.hayhooks_door.calls import ROUTE_DEPENDENCIES, current_call
from serve.hayhooks_door.conversing import Conversation, Piece, Protocol, joined, piece_of
from serve.hayhooks_door.library import (
    BasePipelineWrapper,
    SSEStream,
    accepts_request_headers,
    implements,
    prepare,
)
from serve.hayhooks_door.signatures import check_parameters
from serve.hayhooks_door.streaming import Deadline, in_thread, is_stream, items, safe_errors

_METHODS: dict[Protocol, tuple[str, str]] = {
    "chat": ("run_chat_completion", "messages"),
    "responses": ("run_response", "input_items"),
}


class NativeWrapper:
    """
    A wrapper that was loaded.

    Usage example:
    ```python
    if "chat" in wrapper.protocols:
        conversation = Conversation("chat", messages, body, request.headers, timeout=60)
        reply = await wrapper.complete(conversation)
        async for piece in wrapper.stream(conversation):
            print(piece.kind, piece.text)
    ```
    """

    def __init__(self, name: str, path: Path, instance: BasePipelineWrapper) -> None:
        """
        Make the wrapper ready to be served.

        :param name: what it is served as: the directory's name.
        :param path: the directory.
        :param instance: the wrapper, set up.
        :raises Exception: if no route can be made of the signature of its `run_api`.
        """
        self.name = name
        self.path = path
        self._instance = instance
        self.protocols = [protocol for protocol, (method, _) in _METHODS.items() if self._method(method)]
        """Which of `chat` and `responses` it speaks."""
        if (method := self._method("run_api")) is not None:
            check_parameters(method)
            instance.run_api_async = self._guarded(method)
            instance._is_run_api_async_implemented = True
        self.entry = prepare(name, instance, dependencies=ROUTE_DEPENDENCIES)
        """What Hayhooks serves."""

    @property
    def description(self) -> str:
        """What it does: the first line of the docstring of its `run_api`, or of its class."""
        # Not `getdoc`, which takes the docstring of the base class where there is none.
        of_class = inspect.cleandoc(type(self._instance).__doc__ or "").partition("\n")[0]
        return self.entry.registration.metadata["description"] or of_class

    async def complete(self, conversation: Conversation) -> Piece:
        """
        Answer a conversation at once.

        :param conversation: what the caller sent.
        :returns: the text, or the whole answer in OpenAI's form where the wrapper made it itself.
        :raises HTTPException: as the wrapper raises it.
        :raises WrapperError: if its code fails in another way.
        :raises QueryTimeoutError: if it takes too long.
        """
        async with aclosing(self.stream(conversation)) as pieces:
            return await joined(pieces)

    async def stream(self, conversation: Conversation) -> AsyncGenerator[Piece, None]:
        """
        Answer a conversation piece by piece; for errors see `complete`.

        :param conversation: what the caller sent.
        :returns: the pieces as they come, one for a wrapper that does not stream.
        """
        method_name, items_name = _METHODS[conversation.protocol]
        given = {"model": self.name, items_name: conversation.items, "body": conversation.body}
        deadline = Deadline(conversation.timeout)
        result = await self._call(self._method(method_name), given, conversation.headers, deadline)
        if not is_stream(result):
            if piece := piece_of(result):
                yield piece
            return
        async with aclosing(items(self.name, result, deadline)) as given_items:
            async for item in given_items:
                if piece := piece_of(item):
                    yield piece

    def _method(self, name: str) -> Callable[..., Any] | None:
        """Give the method that does not block, where the wrapper has both."""
        for there in (f"{name}_async", name):
            if implements(self._instance, there):
                method: Callable[..., Any] = getattr(self._instance, there)
                return method
        return None

    async def _call(
        self,
        method: Callable[..., Any] | None,
        given: dict[str, Any],
        headers: Mapping[str, str],
        deadline: Deadline,
    ) -> Any:
        with safe_errors(self.name):
            if method is None:
                raise NotImplementedError("the method that was asked for")
            if accepts_request_headers(method):
                given = {**given, "headers": Headers(dict(headers))}
            async with deadline.hold():
                if inspect.iscoroutinefunction(method):
                    return await method(**given)
                return await in_thread(method, **given)

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Make of `run_api` what Hayhooks calls: it answers streams itself, and raises what a client may be told."""

        @functools.wraps(method)
        async def run_api_async(**given: Any) -> Any:
            call = current_call()
            deadline = Deadline(call.seconds)
            try:
                call.tenancy.check_all_tenants()
                result = await self._call(method, given, call.request.headers, deadline)
                if isinstance(result, SSEStream):
                    return await events_answer(call.request, items(self.name, result.stream, deadline))
                if is_stream(result):
                    return await text_answer(call.request, items(self.name, result, deadline))
                return result
            except AnyHTTPException as error:
                # Hayhooks lets FastAPI's pass, which is a subclass.
                raise HTTPException(error.status_code, error.detail, dict(error.headers or {})) from None
            except Exception as error:
                raise ProblemError(error) from error

        return run_api_async
