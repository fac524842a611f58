import pytest
from haystack import Document
from jsonschema import Draft202012Validator

from components.citing import CitedAnswerBuilder
from components.models.llama_cpp import LlamaCppChatGenerator
from components.prompting import GroundedPromptBuilder
from components.structured_data import DEFAULT_SCHEMA
from components.structuring import StructuredAnswerBuilder

pytestmark = pytest.mark.model

QUERY = "How tall is the tower?"
DOCUMENTS = [
    Document(content="The bridge is 200 m long.", meta={"document_id": "bridge", "start": 0}),
    Document(
        content="It stands in Paris. The tower is 90 m tall.", meta={"document_id": "tower", "start": 0}
    ),
]
RATED = {
    "type": "object",
    "properties": {
        "metres": {"type": "integer", "minimum": 1, "maximum": 100},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["metres", "stars"],
    "additionalProperties": False,
}


def test_a_real_model_answers_with_its_source(small_model: LlamaCppChatGenerator) -> None:
    """Prompt, model and answer builder together give the answer, and the sentence that says so."""
    prompt = GroundedPromptBuilder().run(query=QUERY, documents=DOCUMENTS)
    result = CitedAnswerBuilder().run(small_model.run(**prompt)["replies"], DOCUMENTS, QUERY)
    assert "90 m" in result["answer"]
    # The code that frames the passages is another one in each process, and with it a small model's words may be.
    [citation] = result["citations"]
    assert citation["document_id"] == "tower"
    assert "The tower is 90 m tall." in citation["quote"]


def test_a_real_model_keeps_to_the_schema(small_model: LlamaCppChatGenerator) -> None:
    """Held to the schema, even a small model's first reply is valid; its confidence is measured."""
    prompt = GroundedPromptBuilder(instructions="").run(query=QUERY, documents=DOCUMENTS)
    builder = StructuredAnswerBuilder(small_model, max_repairs=0)
    result = builder.run(**prompt, documents=DOCUMENTS, query=QUERY)
    Draft202012Validator(DEFAULT_SCHEMA).validate(result["data"])
    assert "90" in result["answer"]
    assert 0 < result["confidence"] <= 1
    assert result["citations"][0]["document_id"] == "tower"


def test_a_real_model_fills_a_schema_of_the_request(small_model: LlamaCppChatGenerator) -> None:
    """Ranges of numbers hold, too, in a schema that came with the request."""
    prompt = GroundedPromptBuilder(instructions="").run(query=QUERY, documents=DOCUMENTS)
    builder = StructuredAnswerBuilder(small_model, max_repairs=0, min_confidence=0)
    result = builder.run(**prompt, documents=DOCUMENTS, query=QUERY, json_schema=RATED)
    Draft202012Validator(RATED).validate(result["data"])
