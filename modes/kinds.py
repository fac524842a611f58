"""What a pipeline file is for, told by the names it declares: a mode, an indexing pipeline, or neither."""

import difflib
from typing import Any, Literal, get_args

RESULT_OUTPUTS = (
    "answer",
    "documents",
    "grades",
    "strategy",
    "rephrased",
    "citations",
    "removed_citations",
    "confidence",
    "cannot_answer",
    "reasoning",
    "data",
)
INDEXING_OUTPUTS = ("documents_written", "written", "notes")
Kind = Literal["mode", "indexing", "pipeline"]
KINDS: tuple[str, ...] = get_args(Kind)
# First parts of the service's paths: at `/{name}/run` something of such a name would stand among its routes.
RESERVED_NAMES = frozenset(
    {
        "docs",
        "documents",
        "health",
        "ingest",
        "mcp",
        "metrics",
        "modes",
        "pipelines",
        "playground",
        "query",
        "ready",
        "redoc",
        "status",
        "tenants",
        "traces",
        "v1",
    }
)
# What other pipelines give as well, under the same name or nearly.
_COMMON_OUTPUTS = ("documents", "data", "answers")
_NEAR = 0.75


def kind_of(content: dict[str, Any]) -> Kind:
    """
    Tell the kind of a pipeline file.

    A file with an output of a mode, or one that is nearly spelt as `answer`, is meant to be a mode, and so is one that
    takes a tenant's question and gives more than documents; likewise an indexing pipeline. So a mode with a slip in it
    is a mode with a fault, and not silently something else. A file may say what it is: `metadata: {kind: pipeline}`.

    :param content: what the file holds.
    :returns: `mode`, `indexing`, or `pipeline` for a plain pipeline, which may have any inputs and outputs.
    """
    metadata = content.get("metadata")
    said = metadata.get("kind") if isinstance(metadata, dict) else None
    if said in KINDS:
        return said
    outputs = [name for name in _names(content, "outputs") if name not in _COMMON_OUTPUTS]
    asked = {"query", "tenant_id"} <= set(_names(content, "inputs"))
    if _meant(outputs, RESULT_OUTPUTS, "answer") or (asked and outputs):
        return "mode"
    if _meant(outputs, INDEXING_OUTPUTS, "documents_written"):
        return "indexing"
    return "pipeline"


def _names(content: dict[str, Any], side: str) -> list[str]:
    declared = content.get(side)
    return [name for name in declared if isinstance(name, str)] if isinstance(declared, dict) else []


def _meant(outputs: list[str], known: tuple[str, ...], needed: str) -> bool:
    return any(name in known for name in outputs) or bool(
        difflib.get_close_matches(needed, outputs, n=1, cutoff=_NEAR)
    )
