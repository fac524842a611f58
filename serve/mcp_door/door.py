"""The ASGI application of `/mcp`: MCP's streamable HTTP, without state between requests."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import McpError
from mcp.types import (
    INVALID_PARAMS,
    CallToolRequest,
    CallToolResult,
    ErrorData,
    ServerResult,
    TextContent,
    Tool,
)
from sse_starlette.sse import AppStatus
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from serve.access import caller_of
from serve.deadlines import timeout_of
from serve.errors import problem_of
from serve.mcp_door.arguments import read_arguments
from serve.mcp_door.calls import CallCancelledError, CallKey, Calls
from serve.mcp_door.messages import InvalidMessageError, read_message, wants_answer
from serve.mcp_door.tools import Caller, Outcome, served_tools
from serve.service import Service
from serve.tenancy import Tenancy, tenancy_of

PATH = "/mcp"
_NAME = "thresher"
_INSTRUCTIONS = (
    "Thresher answers questions from a tenant's documents. Each mode is a tool that answers one question and cites its "
    "sources; `search` only finds chunks, `list_documents` tells what there is, `ingest_text` adds to it."
)

# Else the package would break off every answer the moment the server begins to stop.
AppStatus.disable_automatic_graceful_drain()


class McpDoor:
    """
    Serves the tools to MCP clients.

    Usage example:
    ```python
    door = McpDoor(service)
    app.router.routes.append(Route(PATH, door, methods=["POST"]))
    async with door.running():
        ...  # serve the application
    ```
    """

    def __init__(self, service: Service) -> None:
        """
        Declare the tools.

        :param service: what the tools work with.
        """
        self._settings = settings = service.settings
        self._tools = served_tools(service)
        self._calls = Calls()
        self._server: Server[Any, Request] = Server(_NAME, settings.api_version, _INSTRUCTIONS)
        self._server.list_tools()(self._list_tools)
        # Not by the package's decorator, which tells the client the text of every exception.
        self._server.request_handlers[CallToolRequest] = self._call_tool
        self._manager: StreamableHTTPSessionManager | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer requests as long as the `with` block lasts."""
        self._manager = StreamableHTTPSessionManager(
            self._server, stateless=True, max_request_body_size=self._settings.max_body_bytes
        )
        async with self._manager.run():
            try:
                yield
            finally:
                await self._calls.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Handle one request.

        :param scope: the ASGI scope.
        :param receive: gives the request's messages.
        :param send: takes the response's messages.
        """
        request = Request(scope, receive)
        body = await request.body()
        try:
            message = read_message(body)
        except InvalidMessageError as error:
            await error.response()(scope, receive, send)
            return
        if not wants_answer(message):
            # Of all notifications there are, only this one matters where there is no state.
            if message.get("method") == "notifications/cancelled":
                self._cancel(request, message)
            await Response(status_code=202)(scope, receive, send)
            return
        if message.get("method") == "initialize":
            send = _with_session(send)
        assert self._manager is not None, "the door is not running"
        await self._manager.handle_request(scope, _again(body, receive), send)

    async def _list_tools(self) -> list[Tool]:
        request: Request = self._server.request_context.request  # type: ignore[assignment]
        caller = caller_of(request)
        return [tool.declared for tool in self._tools.values() if tool.rule.allows(caller)]

    async def _call_tool(self, called: CallToolRequest) -> ServerResult:
        name = called.params.name
        if name not in self._tools:
            raise McpError(
                ErrorData(
                    code=INVALID_PARAMS,
                    message=f"there is no tool '{name[:64]}'; there are {', '.join(self._tools)}",
                )
            )
        request: Request = self._server.request_context.request  # type: ignore[assignment]
        key = _key(request, self._server.request_context.request_id)
        stopping = getattr(request.state, "stopping", None)
        # Here and not in the call's own task, for telling of its failure looks at who calls.
        tenancy = tenancy_of(request)
        try:
            outcome = await self._calls.run(self._outcome(called, request, tenancy), key, stopping)
        except CallCancelledError:
            raise McpError(ErrorData(code=0, message="Request cancelled")) from None
        except Exception as error:
            return ServerResult(_failure(error, request.state.request_id))
        return ServerResult(
            CallToolResult(
                content=[TextContent(type="text", text=outcome.text)],
                structuredContent=outcome.content.model_dump(mode="json"),
                isError=outcome.failed,
            )
        )

    async def _outcome(self, called: CallToolRequest, request: Request, tenancy: Tenancy) -> Outcome:
        tool = self._tools[called.params.name]
        tool.rule.check(caller_of(request))
        caller = Caller(
            tenancy,
            request.state.request_id,
            timeout_of(request.headers),
            self._teller(called),
        )
        return await tool.run(read_arguments(tool.arguments, called.params.arguments or {}), caller)

    def _teller(self, called: CallToolRequest) -> Any:
        """Give what sends the client the progress; None when it did not ask for that."""
        context = self._server.request_context
        token = called.params.meta.progressToken if called.params.meta else None
        if token is None:
            return None
        steps = 0

        async def tell(text: str) -> None:
            nonlocal steps
            steps += 1
            await context.session.send_progress_notification(
                token, steps, message=text, related_request_id=str(context.request_id)
            )

        return tell

    def _cancel(self, request: Request, message: dict[str, Any]) -> None:
        parameters = message.get("params")
        cancelled = parameters.get("requestId") if isinstance(parameters, dict) else None
        if isinstance(cancelled, str | int) and (key := _key(request, cancelled)):
            self._calls.cancel(key)


def _key(request: Request, request_id: str | int) -> CallKey | None:
    # Clients number their requests from 0: without the session one client could take back another's call.
    session = request.headers.get(MCP_SESSION_ID_HEADER)
    return None if session is None else (caller_of(request).key_id, session, request_id)


def _failure(error: Exception, request_id: str) -> CallToolResult:
    problem = problem_of(error, request_id)
    text = f"{problem['detail']} (request id: {request_id})"
    return CallToolResult(
        content=[TextContent(type="text", text=text)], isError=True, _meta={"thresher/problem": problem}
    )


def _with_session(send: Send) -> Send:
    """
    Name the client's session, by which it takes calls back.

    Nothing is kept of a session, so that any process may answer any of its requests.
    """

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            MutableHeaders(scope=message)[MCP_SESSION_ID_HEADER] = uuid.uuid4().hex
        await send(message)

    return named


def _again(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read, and then what comes after it."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
