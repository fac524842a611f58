"""Reading a JSON body in one step, after the dependencies had their say.

FastAPI reads the body first, and a large one twice: into Python objects, then into the model.
"""

import asyncio
from email.message import Message
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)


async def read_body(request: Request, model: type[M]) -> M:
    """
    Read a request's JSON body.

    :param request: the request; nothing has read its body yet.
    :param model: what the body must be.
    :returns: the body.
    :raises RequestValidationError: if it is something else.
    """
    if not _is_json(request.headers.get("content-type", "")):
        raise RequestValidationError([{"type": "model_type", "loc": ("body",), "msg": ""}])
    raw = await request.body()
    try:
        return await asyncio.to_thread(model.model_validate_json, raw)
    except ValidationError as error:
        raise request_error(error, "body") from None


def request_error(error: ValidationError, place: str) -> RequestValidationError:
    """
    Say where in the request a wrong value is.

    :param error: what pydantic found.
    :param place: what was read.
    :returns: the error to raise.
    """
    faults: Any = error.errors(include_url=False, include_input=False)
    return RequestValidationError([{**fault, "loc": (place, *fault["loc"])} for fault in faults])


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """
    Describe a body that `read_body` reads, for FastAPI does not see it.

    :param model: what the body must be.
    :returns: `openapi_extra` of the route.
    """
    schema = model.model_json_schema()
    content = {"application/json": {"schema": _resolved(schema, schema.pop("$defs", {}))}}
    return {"requestBody": {"required": True, "content": content}}


def _is_json(content_type: str) -> bool:
    message = Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (
        subtype == "json" or subtype.endswith("+json")
    )


def _resolved(schema: Any, definitions: dict[str, Any]) -> Any:
    """Put definitions in the place of their references, which would point outside of the OpenAPI document."""
    if isinstance(schema, list):
        return [_resolved(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _resolved(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _resolved(value, definitions) for key, value in schema.items()}
