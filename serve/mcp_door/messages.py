"""Reading what a client sends, before the MCP package does, which would log a client's own words as its fault."""

from typing import Any, get_args

from mcp.types import INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, ClientRequest
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.responses import JSONResponse

_REQUESTS = get_args(ClientRequest.model_fields["root"].annotation)
_REQUEST_TYPES = {get_args(kind.model_fields["method"].annotation)[0]: kind for kind in _REQUESTS}
_LONGEST_NAME = 100
_MOST_FAULTS = 20


class InvalidMessageError(ValueError):
    """What was sent is no message of MCP."""

    def __init__(self, status: int, code: int, text: str, request_id: Any = None) -> None:
        """
        Say what is wrong.

        :param status: the HTTP status.
        :param code: JSON-RPC's code of the error.
        :param text: what is wrong.
        :param request_id: the id that the client gave the message, if that could be read.
        """
        super().__init__(text)
        self._status = status
        self._body = {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": text}}

    def response(self) -> JSONResponse:
        """:returns: The answer, a JSON-RPC error."""
        return JSONResponse(self._body, self._status)


def read_message(body: bytes) -> dict[str, Any]:
    """
    Read a message; a request is checked, as far as that goes without knowing the tools.

    :param body: the request's body.
    :returns: the message.
    :raises InvalidMessageError: if it is none.
    """
    try:
        # Refuses what json.loads takes: lone surrogates, NaN, and lists in lists that are too deep to go through.
        message = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidMessageError(400, PARSE_ERROR, f"the body is not valid JSON: {error}") from None
    if not isinstance(message, dict):
        raise InvalidMessageError(
            400, INVALID_REQUEST, "the body must be one JSON-RPC message, which is an object"
        )
    _check_envelope(message)
    if wants_answer(message):
        _check_request(message)
    return message


def wants_answer(message: dict[str, Any]) -> bool:
    """
    Tell a request from a notification, and from an answer to what the service never asks.

    :param message: the message.
    :returns: whether it is a request.
    """
    return "method" in message and "id" in message


def _check_envelope(message: dict[str, Any]) -> None:
    """Check what JSON-RPC 2.0 asks of every message."""
    request_id = message.get("id")
    if "id" in message and type(request_id) not in (str, int):
        raise InvalidMessageError(400, INVALID_REQUEST, "'id' must be a text or a whole number")
    if message.get("jsonrpc") != "2.0":
        raise InvalidMessageError(400, INVALID_REQUEST, "'jsonrpc' must be '2.0'", request_id)
    if not isinstance(message.get("method", ""), str):
        raise InvalidMessageError(400, INVALID_REQUEST, "'method' must be a text", request_id)
    if not {"method", "result", "error"} & message.keys():
        raise InvalidMessageError(400, INVALID_REQUEST, "'method' is missing", request_id)


def _check_request(message: dict[str, Any]) -> None:
    method, request_id = message["method"], message["id"]
    kind = _REQUEST_TYPES.get(method)
    if kind is None:
        text = f"there is no method '{method[:_LONGEST_NAME]}'"
        raise InvalidMessageError(200, METHOD_NOT_FOUND, text, request_id)
    try:
        kind.model_validate({"method": method, "params": message.get("params")})
    except ValidationError as error:
        told = error.errors()[:_MOST_FAULTS]
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in told)
        raise InvalidMessageError(200, INVALID_PARAMS, faults, request_id) from None
