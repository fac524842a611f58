"""What a pipeline file is taken for."""

import pytest
from haystack import Document

from modes.kinds import Kind, kind_of
from modes.plain import as_json


def content(inputs: str, outputs: str, **metadata: str) -> dict:
    """Make the content of a file from the names that it declares."""
    sides = {"inputs": inputs, "outputs": outputs}
    return {side: dict.fromkeys(names.split(), "a.b") for side, names in sides.items()} | {
        "metadata": metadata
    }


@pytest.mark.parametrize(
    ("inputs", "outputs", "kind"),
    [
        ("query tenant_id", "answer documents", "mode"),
        ("query", "anwser", "mode"),
        ("question", "answer", "mode"),
        ("query", "citations", "mode"),
        ("query tenant_id", "reply documents", "mode"),
        ("query", "replies", "pipeline"),
        ("query", "answers", "pipeline"),
        ("urls query", "replies", "pipeline"),
        ("query tenant_id top_k", "documents", "pipeline"),
        ("documents tenant_id", "documents_written", "indexing"),
        ("documents", "document_written", "indexing"),
        ("texts", "written", "indexing"),
        ("documents query", "documents", "pipeline"),
        ("value", "double final", "pipeline"),
    ],
)
def test_the_outputs_tell_what_is_meant(inputs: str, outputs: str, kind: Kind) -> None:
    """A slip in a mode leaves it a mode; what has nothing of one is a plain pipeline."""
    assert kind_of(content(inputs, outputs)) == kind


@pytest.mark.parametrize("kind", ["mode", "indexing", "pipeline"])
def test_a_file_may_say_what_it_is(kind: Kind) -> None:
    """What metadata.kind says counts before any guess."""
    assert kind_of(content("query", "answer", kind=kind)) == kind


def test_a_file_that_is_broken_has_a_kind_too() -> None:
    """Faults are found elsewhere."""
    assert kind_of({"inputs": 5, "outputs": None, "metadata": []}) == "pipeline"


def test_documents_anywhere_lose_their_embeddings() -> None:
    """What a pipeline gives is lists, dictionaries, texts and numbers, however deep a document lies in it."""
    document = Document(content="x", embedding=[0.5], meta={"page": 1}, score=float("nan"))
    given = as_json({"inner": [(document, {"raw": b"\xff", 1: {2}})]})
    plain = {"id": document.id, "content": "x", "blob": None, "meta": {"page": 1}, "score": None}
    assert given == {"inner": [[plain, {"raw": "_w==", "1": [2]}]]}
    with pytest.raises(ValueError, match="can't say a object"):
        as_json([object()])
