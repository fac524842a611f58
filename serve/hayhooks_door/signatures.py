"""Whether a wrapper's method can be called over HTTP, said of each parameter before Hayhooks makes a model of it."""

import inspect
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from serve.hayhooks_door.library import accepts_request_headers


class SignatureError(TypeError):
    """A parameter has no type that a request could carry; `code` is where its method stands."""

    def __init__(self, method: Callable[..., Any], parameter: str, lack: str) -> None:
        """
        Name the parameter.

        :param method: the method.
        :param parameter: its parameter.
        :param lack: what is wrong with it.
        """
        super().__init__(f"parameter '{parameter}' of {method.__name__} {lack}")
        self.code = getattr(inspect.unwrap(method), "__code__", None)


def check_parameters(method: Callable[..., Any]) -> None:
    """
    Check that a request can give what a method takes.

    :param method: a wrapper's `run_api`, or the one that does not block.
    :raises SignatureError: if a parameter has no type, or one that JSON and forms don't know.
    """
    parameters = dict(inspect.signature(method, eval_str=True).parameters)
    if accepts_request_headers(method):
        del parameters["headers"]
    for name, parameter in parameters.items():
        if parameter.annotation is inspect.Parameter.empty:
            raise SignatureError(method, name, "needs a type")
        try:
            TypeAdapter(parameter.annotation).json_schema()
        except PydanticUserError:
            raise SignatureError(method, name, "has a type that no request can carry") from None
