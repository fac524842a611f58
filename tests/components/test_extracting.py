import asyncio

import pytest
from haystack import Document

from components.citing import CANNOT_ANSWER, CitedAnswerBuilder
from components.extracting import ExtractiveChatGenerator, LanguageModelNeededError
from components.prompting import GroundedPromptBuilder
from components.structuring import StructuredAnswerBuilder

QUERY = "How tall is the tower?"
DOCUMENTS = [
    Document(content="The bridge is 200 m long. It is old.", meta={"document_id": "bridge", "start": 0}),
    Document(
        content="It stands in Paris. The tower is 90 m tall.", meta={"document_id": "tower", "start": 0}
    ),
]


def messages(documents=DOCUMENTS, **parameters):
    return GroundedPromptBuilder(**parameters).run(query=QUERY, documents=documents)["messages"]


def test_reply_is_the_sentence_that_fits_the_question_with_its_citation():
    """Without a model the best sentence answers, cites its passage, and says that no model wrote it."""
    (reply,) = ExtractiveChatGenerator().run(messages())["replies"]
    assert reply.text == "It stands in Paris. [2] The tower is 90 m tall. [2]"
    assert (reply.meta["model"], reply.meta["finish_reason"]) == ("extractive", "stop")
    assert reply.meta["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def test_reply_passes_through_the_answer_builder():
    """The cited answer of an extractive reply quotes that very sentence."""
    reply = ExtractiveChatGenerator().run(messages())["replies"]
    result = CitedAnswerBuilder().run(reply, DOCUMENTS, QUERY)
    assert "The tower is 90 m tall." in result["citations"][0]["quote"]
    assert result["citations"][0]["document_id"] == "tower"


def test_default_structured_answer_needs_no_model():
    """The fields of the default schema are filled; the reasoning says how."""
    builder = StructuredAnswerBuilder(ExtractiveChatGenerator())
    result = builder.run(messages=messages(instructions=""), documents=DOCUMENTS, query=QUERY)
    assert result["answer"] == "It stands in Paris. The tower is 90 m tall."
    assert result["citations"][0]["document_id"] == "tower"
    assert result["reasoning"].startswith("extractive")


def test_another_schema_needs_a_model():
    """A schema that takes understanding is refused, with what can be had."""
    schema = {"type": "object", "properties": {"verdict": {"type": "string"}}}
    builder = StructuredAnswerBuilder(ExtractiveChatGenerator(), json_schema=schema)
    with pytest.raises(LanguageModelNeededError, match="only these fields"):
        builder.run(messages=messages(instructions=""), documents=DOCUMENTS, query=QUERY)


def test_a_prompt_without_passages_needs_a_model():
    """Any other prompt than that of the prompt builder is refused."""
    stripped = [type(message).from_user(message.text) for message in messages()]
    with pytest.raises(LanguageModelNeededError, match="without passages"):
        ExtractiveChatGenerator().run(stripped)


def test_no_messages_give_no_replies():
    """Nothing asked is nothing answered."""
    assert ExtractiveChatGenerator().run([]) == {"replies": []}


def test_passages_without_text_give_the_fixed_sentence():
    """Where there is no sentence there is no answer."""
    reply = ExtractiveChatGenerator().run(messages([Document(content=" ")]))["replies"][0]
    assert reply.text == CANNOT_ANSWER


def test_reply_is_streamed():
    """A streaming callback, plain or async, gets the text."""
    got: list[str] = []
    ExtractiveChatGenerator().run(messages(), streaming_callback=lambda chunk: got.append(chunk.content))

    async def callback(chunk) -> None:
        got.append(chunk.content)

    replies = asyncio.run(ExtractiveChatGenerator().run_async(messages(), streaming_callback=callback))
    assert got == ["It stands in Paris. [2] The tower is 90 m tall. [2]"] * 2
    assert replies["replies"][0].text == got[0]
