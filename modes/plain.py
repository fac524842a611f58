"""A plain pipeline: one in YAML that is no mode, with inputs and outputs of its own."""

import dataclasses
import keyword
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from haystack import Document
from haystack.dataclasses import ChatMessage
from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_jsonable_python

from modes.checking import CheckedPipeline
from modes.failures import own_errors
from modes.named import NamedPipeline
from modes.wire_types import UnfitTypeError, wire_type

_EMBEDDINGS = ("embedding", "sparse_embedding")


@dataclass(frozen=True)
class Parameter:
    """A declared input as a request gives it."""

    name: str
    kind: Any
    """The type of the socket it feeds."""
    required: bool
    default: Any
    """What the component takes when the input is not given, where JSON can say it; otherwise None."""

    @property
    def annotation(self) -> Any:
        """The type for a request's model: Haystack's objects are JSON that can be made into them."""
        kind = wire_type(self.kind, convert=False)
        return kind if self.required else kind | None

    def value(self, given: Any) -> Any:
        """
        Make of a request's value what the socket takes.

        :param given: the value.
        :returns: the same, with Haystack's objects in the place of their JSON.
        """
        return TypeAdapter(wire_type(self.kind, convert=True)).validate_python(given)


class PlainPipeline(NamedPipeline):
    """A pipeline that is served with the inputs and outputs that its file declares; made by `ModeRegistry`."""

    @cached_property
    def parameters(self) -> list[Parameter]:
        """Its inputs with their types and defaults."""
        return list(_parameters(self.checked))

    @property
    def tenant_inputs(self) -> list[str]:
        """The inputs that say whose documents are used, whatever they are called."""
        sockets = self.checked.inputs
        return [name for name in sockets if any(place.endswith(".tenant_id") for place in sockets[name])]

    async def run_async(self, **inputs: Any) -> dict[str, Any]:
        """
        Run the pipeline.

        :param inputs: values by the names that the file declares; one that is None is not given.
        :returns: the declared outputs by name, as JSON can say them: documents without their embeddings.
        :raises Exception: what a component raised.
        """
        given = {
            parameter.name: parameter.value(inputs[parameter.name])
            for parameter in self.parameters
            if inputs.get(parameter.name) is not None
        }
        with own_errors():
            outputs = await self.pipeline.run_async(
                self.checked.feed(given), include_outputs_from=self.checked.read_from
            )
        values = self.checked.read(outputs)
        return {name: as_json(values.get(name)) for name in self.outputs}


def unfit_inputs(checked: CheckedPipeline) -> Iterator[tuple[str, str]]:
    """
    Find the inputs that no request can give.

    :param checked: a plain pipeline.
    :returns: name and fault of each.
    """
    for parameter in _parameters(checked):
        if not _is_field_name(parameter.name):
            yield (
                parameter.name,
                f"inputs.{parameter.name}: give the input another name; no request's field can have it",
            )
        try:
            _ = parameter.annotation
        except UnfitTypeError:
            places = ", ".join(f"'{place}'" for place in checked.inputs[parameter.name])
            yield (
                parameter.name,
                f"inputs.{parameter.name} feeds {places} of type {_shown(parameter.kind)}, which no request can carry",
            )


def as_json(value: Any) -> Any:
    """
    Write a value of a pipeline as JSON.

    :param value: the value.
    :returns: the value in lists, dictionaries, texts and numbers; documents without their embeddings.
    :raises ValueError: if it is something that JSON can't say.
    """
    if isinstance(value, Document):
        fields = value.to_dict(flatten=False)
        return {name: as_json(field) for name, field in fields.items() if name not in _EMBEDDINGS}
    if isinstance(value, ChatMessage):
        return as_json(value.to_dict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(inner) for inner in value]
    return to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="null", fallback=_refuse)


def _refuse(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise ValueError(f"JSON can't say a {type(value).__name__}")


def _shown(kind: Any) -> str:
    """Name a type without the modules in it."""
    return kind.__name__ if isinstance(kind, type) else re.sub(r"\b(?:\w+\.)+", "", str(kind))


def _is_field_name(name: str) -> bool:
    python = name.isidentifier() and not keyword.iskeyword(name)
    # Hayhooks takes `files` for uploads and `headers` for the request's.
    return python and not (name.startswith("_") or hasattr(BaseModel, name) or name in ("files", "headers"))


def _parameters(checked: CheckedPipeline) -> Iterator[Parameter]:
    sockets = checked.pipeline.inputs(include_components_with_connected_inputs=True)
    for name, places in checked.inputs.items():
        infos = [sockets[component][socket] for component, _, socket in (p.partition(".") for p in places)]
        required = any(info["is_mandatory"] for info in infos)
        yield Parameter(name, infos[0]["type"], required, None if required else _default(infos[0]))


def _default(info: dict[str, Any]) -> Any:
    default = info.get("default_value")
    return default if isinstance(default, str | int | float | bool) else None
