"""`/{mode}/run`: a mode with its own inputs and outputs, no more."""

import functools
import inspect
from typing import Annotated, Any

from pydantic import BaseModel, create_model

from modes.mode import Mode
from modes.results import QueryResult
from serve.answering import Answering
from serve.errors import ProblemError
from serve.hayhooks_door.calls import ROUTE_DEPENDENCIES, current_call
from serve.hayhooks_door.library import BasePipelineWrapper, Entry, make_wrapper, prepare
from serve.schemas import FilledText, Message, Question

# What the inputs of a mode are called in the service's other requests, where that is another name.
_CALLED = {"query": "q", "top_k": "k"}
# What a run tells by itself; no file declares it.
_ALWAYS = (
    "mode",
    "standalone_question",
    "fallback",
    "explanation",
    "model",
    "finish_reason",
    "usage",
    "timings",
)


def mode_entry(mode: Mode, answering: Answering) -> Entry:
    """
    Make what Hayhooks serves of a mode.

    :param mode: the mode.
    :param answering: asks it.
    :returns: the entry.
    """
    result_model = _result_model(mode)

    async def run_api_async(self: BasePipelineWrapper, **given: Any) -> BaseModel:
        call = current_call()
        try:
            tenant_id = call.tenancy.tenant(given.pop("tenant_id", None))
            history = [Message(**message).turn() for message in given.pop("history")]
            result = await answering.ask(
                mode.name, history=history, timeout=call.timeout, tenant_id=tenant_id, **given
            )
        except Exception as error:
            raise ProblemError(error) from error
        return result_model.model_construct(
            **{name: getattr(result, name) for name in result_model.model_fields}
        )

    # A conversation is any mode's: without an input for it, it is made into a question that needs none.
    fields = {name: _field(name) for name in dict.fromkeys([*mode.inputs, "history", "explain"])}
    run_api_async.__signature__ = signature(fields, result_model)  # type: ignore[attr-defined]
    run_api_async.__doc__ = "\n".join(["", *(f":param {name}: {_about(name)}" for name in fields)])
    wrapper = make_wrapper({"setup": functools.partialmethod(_setup, mode), "run_api_async": run_api_async})
    return prepare(mode.name, wrapper, mode.description, dependencies=ROUTE_DEPENDENCIES)


def signature(fields: dict[str, tuple[Any, Any]], result: Any) -> inspect.Signature:
    """
    Make the signature that Hayhooks reads the fields of a request off.

    :param fields: type and default by name; a field whose default is `inspect.Parameter.empty` must be given.
    :param result: the type of the answer.
    :returns: the signature of a method.
    """
    owner = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in fields.items()
    ]
    return inspect.Signature([owner, *parameters], return_annotation=result)


def _field(name: str) -> tuple[Any, Any]:
    if name == "query":
        return FilledText, inspect.Parameter.empty
    field = Question.model_fields[_CALLED.get(name, name)]
    kind = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return kind, [] if name == "history" else None


def _about(name: str) -> str:
    return Question.model_fields[_CALLED.get(name, name)].description or "whose documents"


def _setup(wrapper: BasePipelineWrapper, mode: Mode) -> None:
    wrapper.pipeline = mode.pipeline


def _result_model(mode: Mode) -> type[BaseModel]:
    fields: dict[str, Any] = {
        name: (field.annotation, field)
        for name, field in QueryResult.model_fields.items()
        if name in mode.outputs or name in _ALWAYS
    }
    return create_model(f"{mode.name}_result", __config__=QueryResult.model_config, **fields)
