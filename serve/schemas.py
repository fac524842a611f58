"""What the HTTP API takes and gives."""

import math
import re
from collections import Counter
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from components.filtering import CHROMA_KEYS
from components.storing import TENANT_PATTERN
from components.writing import RESERVED_META
from modes.results import QueryResult

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
LONGEST_ID = 512
LONGEST_TITLE = 1_024


def _encodable(text: str) -> str:
    if _LONE_SURROGATE.search(text):
        raise ValueError("holds a lone surrogate, which is no valid Unicode text")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _meta_value(value: Any) -> Any:
    # Before the union, whose own message has a line for each of its members.
    if not isinstance(value, str | int | float | bool):
        raise ValueError("must be a text, a number or a boolean")
    return _encodable(value) if isinstance(value, str) else value


Text = Annotated[str, AfterValidator(_encodable)]
FilledText = Annotated[Text, AfterValidator(_not_blank)]
TenantID = Annotated[
    str,
    Field(
        pattern=TENANT_PATTERN.replace("(?:", "("),
        description="Whose documents: 1 to 64 letters, digits, `_` or `-`.",
        examples=["demo"],
    ),
]
MetaValue = Annotated[str | int | float | bool, BeforeValidator(_meta_value)]


class Request(BaseModel):
    """A request's body; unknown fields are refused, so that a misspelt one is not silently ignored."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class QueryBody(Request):
    """A question; each field can also be a query parameter of the same name, which then wins."""

    q: FilledText | None = Field(None, description="The question.", examples=["What is a mode?"])
    mode: Text | None = Field(
        None, description="Which mode answers; `GET /modes` lists them.", examples=["crag"]
    )
    tenant_id: TenantID | None = None
    model: Text | None = Field(None, description="Another language model, of those the service allows.")
    k: int | None = Field(None, ge=1, description="Chunks to retrieve.", examples=[5])
    filters: dict[str, Any] | None = Field(
        None,
        description="Haystack filters over the chunks' metadata and content.",
        examples=[{"field": "meta.title", "operator": "==", "value": "README"}],
    )


class QueryResponse(QueryResult):
    """The answer of a mode."""

    request_id: str


class DocumentInput(Request):
    """A document to ingest."""

    id: Annotated[FilledText, Field(max_length=LONGEST_ID)] | None = Field(
        None,
        description="Names the document; ingesting it again replaces it. Made from the text when left out.",
    )
    text: FilledText
    title: Annotated[Text, Field(max_length=LONGEST_TITLE)] | None = None
    meta: dict[Annotated[FilledText, Field(max_length=128)], MetaValue] = Field(
        default_factory=dict,
        description="Further metadata, for filters: texts, numbers and booleans.",
        max_length=64,
    )

    @model_validator(mode="after")
    def _check_meta(self) -> "DocumentInput":
        for key, value in self.meta.items():
            if key in RESERVED_META or key.startswith(CHROMA_KEYS):
                raise ValueError(f"meta.{key} is the service's own; choose another name")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"meta.{key} is not a finite number")
            if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
                raise ValueError(f"meta.{key} has more than 64 bits")
        return self


class IngestBody(Request):
    """Documents to ingest, as plain texts or with ids, titles and metadata."""

    tenant_id: TenantID = "default"
    texts: list[FilledText] | None = Field(None, min_length=1, examples=[["chunk one", "chunk two"]])
    documents: list[DocumentInput] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one_of_both(self) -> "IngestBody":
        if (self.texts is None) == (self.documents is None):
            raise ValueError("give either 'texts' or 'documents'")
        ids = Counter(document.id for document in self.documents or [] if document.id is not None)
        if ids and (most := ids.most_common(1)[0])[1] > 1:
            raise ValueError(f"two documents have the id '{most[0][:80]}'")
        return self


class ModeInfo(BaseModel):
    """A mode."""

    name: str
    description: str
    inputs: list[str]
    outputs: list[str]
    origin: str = Field(description="`built-in`, `directory` (PIPELINES_DIR), `package` or `added`.")
    file: str = Field(description="The file's name.")


class ModeList(BaseModel):
    """Every mode that can be asked."""

    items: list[ModeInfo]
    next: str | None = None
    broken: list[str] = Field(
        default_factory=list, description="Files that have faults, as `file:line: what`."
    )


class Health(BaseModel):
    """The process is alive."""

    status: str = "ok"
    version: str


class Ready(BaseModel):
    """Whether queries can be served, and what is in the way."""

    model_config = ConfigDict(protected_namespaces=())

    status: str = Field(description="`ok`, `loading` or `degraded`.")
    chroma: str
    store: str = Field(
        description="Where the documents are: `embedded` in this process, or on a Chroma `server`."
    )
    llm: dict[str, Any] = Field(description="Provider, model, why it was chosen, and its status.")
    embeddings: str
    jobs: str
    modes: list[str]
    problems: list[str] = Field(default_factory=list)
