"""What the tools take: pydantic models, whose JSON schemas clients and their language models read."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, create_model

from modes.mode import Mode
from modes.searching import Search
from serve.bodies import inlined_schema, request_error
from serve.ingestion_schemas import DEFAULT_PIPELINE, DocumentInput
from serve.schemas import NOT_GUESSED, FilledText, Request, TenantID, Text
from settings import Settings

_ABOUT_TENANT = "Whose documents; the caller's own when left out."
_ABOUT_FILTERS = (
    'Haystack filters over the metadata, e.g. {"field": "meta.title", "operator": "==", "value": "README"}.'
)


class ListDocumentsArguments(Request):
    """What `list_documents` takes."""

    tenant_id: TenantID | None = Field(None, description=_ABOUT_TENANT)
    limit: Annotated[int, Field(ge=1, le=500), NOT_GUESSED] = Field(50, description="How many at most.")
    cursor: Annotated[str, Field(max_length=500)] | None = Field(
        None, description="`next` of the page before."
    )


class IngestTextArguments(DocumentInput):
    """What `ingest_text` takes: a document as `POST /ingest/` takes it."""

    tenant_id: TenantID | None = Field(None, description=_ABOUT_TENANT)
    pipeline: Text = Field(DEFAULT_PIPELINE, description="Which indexing pipeline takes the document.")


def declared_arguments(asked: Mode | Search, settings: Settings) -> type[BaseModel]:
    """
    Describe what the tool of a mode, or of the search, takes: the inputs that its file declares.

    :param asked: what is asked.
    :param settings: has the limits.
    :returns: the model.
    """
    known = _inputs(settings)
    takes = [*asked.inputs, "explain"] if isinstance(asked, Mode) else asked.inputs
    fields = {name: known[name] for name in known if name in takes}
    return create_model(f"{asked.name}_arguments", __base__=Request, **fields)  # type: ignore[call-overload]


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """
    Write a model as JSON Schema, in the plain form that every client understands.

    :param model: the model.
    :returns: the schema, without references. Null is taken for a field that may be left out, but not offered.
    """
    schema = inlined_schema(model)
    for field in schema.get("properties", {}).values():
        if field.get("default", ...) is None:
            del field["default"]
            [kind] = [kind for kind in field.pop("anyOf") if kind.get("type") != "null"]
            # What is said of the field comes before what is said of its kind.
            field.update({**kind, **field})
    return schema


def read_arguments(model: type[BaseModel], given: dict[str, Any]) -> BaseModel:
    """
    Check what a client gave a tool.

    :param model: what the tool takes.
    :param given: what it was given.
    :returns: the arguments.
    :raises RequestValidationError: if they are others; told as for a request's body.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise request_error(error, "body", model) from None


def _inputs(settings: Settings) -> dict[str, tuple[Any, Any]]:
    return {
        "query": (
            Annotated[FilledText, Field(max_length=settings.max_question_chars)],
            Field(description="The question, complete in itself: what was said before is not known here."),
        ),
        "tenant_id": (TenantID | None, Field(None, description=_ABOUT_TENANT)),
        "top_k": (
            Annotated[int, Field(ge=1, le=settings.max_top_k), NOT_GUESSED] | None,
            Field(None, description=f"How many chunks to retrieve; usually {settings.top_k}."),
        ),
        "filters": (dict[str, Any] | None, Field(None, description=_ABOUT_FILTERS)),
        "model": (
            Text | None,
            Field(None, description="Another language model, of those the service allows."),
        ),
        "json_schema": (
            dict[str, Any] | None,
            Field(None, description="A JSON Schema of an object that the answer's `data` has to match."),
        ),
        "instructions": (
            Text | None,
            Field(None, description="Wishes about the answer's form, such as its language or length."),
        ),
        "generation_kwargs": (
            dict[str, Any] | None,
            Field(None, description="Options of the model by OpenAI's names, such as `max_tokens`."),
        ),
        "explain": (
            bool | None,
            Field(
                None, description="Whether the result tells each chunk's way to the answer, for debugging."
            ),
        ),
    }
