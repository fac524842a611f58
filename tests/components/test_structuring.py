import asyncio
import json
import threading

import pytest
from haystack import Document
from haystack.components.generators.chat import MockChatGenerator
from haystack.dataclasses import ChatMessage
from jsonschema import Draft202012Validator

from components.citing import CANNOT_ANSWER
from components.prompting import GroundedPromptBuilder
from components.schemas import InvalidSchemaError
from components.structured_data import DEFAULT_SCHEMA
from components.structuring import StructuredAnswerBuilder, StructuredAnswerError
from components.validating import checked_reply

QUERY = "How tall is the tower?"
DOCUMENTS = [
    Document(content="The tower is 90 m tall.", meta={"document_id": "tower", "start": 5}),
    Document(content="The bridge is 200 m long.", meta={"document_id": "bridge", "start": 0}),
]
GOOD = {"answer": "90 m", "citations": [1], "cannot_answer": False, "reasoning": "It says so."}
VERDICT = {
    "type": "object",
    "properties": {"verdict": {"enum": ["yes", "no"]}, "why": {"type": "string"}},
    "required": ["verdict"],
    "additionalProperties": False,
}


class Recording:
    """Hands each call to a MockChatGenerator and keeps what was asked."""

    def __init__(self, *replies: object) -> None:
        texts = [reply if isinstance(reply, str | ChatMessage) else json.dumps(reply) for reply in replies]
        self.mock = MockChatGenerator(texts)
        self.calls: list[dict] = []

    def run(self, messages, generation_kwargs):
        self.calls.append({"messages": messages, **generation_kwargs})
        return self.mock.run(messages, generation_kwargs=generation_kwargs)


def build(generator, documents=None, run_kwargs=None, **parameters):
    documents = DOCUMENTS if documents is None else documents
    prompt = GroundedPromptBuilder(instructions="").run(query=QUERY, documents=documents)
    builder = StructuredAnswerBuilder(generator, **parameters)
    return builder.run(**prompt, documents=documents, query=QUERY, **(run_kwargs or {}))


def cut(text: str) -> ChatMessage:
    return ChatMessage.from_assistant(text, meta={"finish_reason": "length"})


def test_a_valid_reply_becomes_answer_citations_and_data():
    """The reply's fields come out, its citations resolved to quotes, and all of it matches the schema."""
    result = build(Recording(GOOD))
    assert (result["answer"], result["reasoning"], result["cannot_answer"]) == ("90 m", "It says so.", False)
    (citation,) = result["citations"]
    assert (citation["document_id"], citation["start"], citation["end"]) == ("tower", 5, 28)
    Draft202012Validator(DEFAULT_SCHEMA).validate(result["data"])
    assert result["data"]["citations"] == [1]


def test_schema_goes_into_the_prompt_and_to_the_model():
    """The system message tells the schema, always the same; the call constrains the output by it."""
    first, second = Recording(GOOD), Recording(GOOD)
    build(first)
    build(second, documents=DOCUMENTS[:1])
    assert first.calls[0]["messages"][0].text == second.calls[0]["messages"][0].text
    assert '"cannot_answer":{"type":"boolean"' in first.calls[0]["messages"][0].text
    form = first.calls[0]["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["schema"]["properties"]["citations"]["items"]["enum"] == [1, 2]


def test_the_passages_stay_readable_for_a_generator_without_a_model():
    """The user message keeps the question and the passages in its meta data."""
    generator = Recording(GOOD)
    build(generator)
    assert generator.calls[0]["messages"][-1].meta["query"] == QUERY


@pytest.mark.parametrize(
    "reply",
    [
        "The tower is 90 m tall.",
        '{"answer": "90 m"}',
        '{"answer": 90, "citations": [1], "cannot_answer": false, "reasoning": ""}',
        '{"answer": "90 m", "citations": ["1"], "cannot_answer": false, "reasoning": ""}',
        '{"answer": "90 m", "citations": [0], "cannot_answer": false, "reasoning": ""}',
        '{"answer": "90 m", "citations": [1], "cannot_answer": false, "reasoning": "", "more": 1}',
        '{"answer": "90 m", "citations": [1], "cannot_answer": false, "reasoning": "\\ud800"}',
        '{"answer": "90 m", "citations": [NaN], "cannot_answer": false, "reasoning": ""}',
        '{"answer": "90 m", "citations": [1], "cannot_answer": false, "reasoning": "","confidence": 99999}',
        "[]",
        "null",
        "[" * 100_000,
        "",
    ],
)
def test_an_invalid_reply_is_never_returned(reply):
    """Two replies that don't match end in an error that says what was wrong with the last."""
    with pytest.raises(StructuredAnswerError, match="did not match the schema") as caught:
        build(Recording(reply))
    assert len(caught.value.faults) == 2


def test_a_repair_carries_the_fault_back():
    """The second call holds the bad reply and what is wrong with it; its good reply counts."""
    generator = Recording('{"answer": 90}', GOOD)
    result = build(generator)
    assert result["answer"] == "90 m"
    bad, asked = generator.calls[1]["messages"][-2:]
    assert bad.text == '{"answer": 90}'
    assert "90 is not of type 'string'" in asked.text
    assert len(generator.calls) == 2


def test_usage_is_summed_over_calls():
    """A repair's tokens count as well."""
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
    replies = [ChatMessage.from_assistant(text, meta={"usage": usage}) for text in ("no", json.dumps(GOOD))]
    assert build(Recording(*replies))["usage"]["total_tokens"] == 24


def test_a_cut_reply_is_repaired_with_more_room():
    """A reply that max_tokens cut is invalid even when it parses; the next one may be twice as long."""
    generator = Recording(cut(json.dumps(GOOD)), GOOD)
    build(generator, generation_kwargs={"max_tokens": 100})
    assert [call["max_tokens"] for call in generator.calls] == [100, 200]
    assert "cut off" in generator.calls[1]["messages"][-1].text


def test_a_fenced_reply_is_read():
    """JSON in a code fence is what some models write in spite of everything."""
    assert build(Recording(f"```json\n{json.dumps(GOOD)}\n```"))["answer"] == "90 m"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("reply", ["```" + "\n" * 20_000, "```json " + " " * 20_000 + "{"])
def test_blanks_without_end_are_no_json(reply):
    """A reply of blanks is found to be no JSON at once."""
    with pytest.raises(StructuredAnswerError):
        build(Recording(reply))


def test_number_of_repairs_is_a_setting():
    """Without repairs the first bad reply ends it."""
    generator = Recording("no")
    with pytest.raises(StructuredAnswerError):
        build(generator, max_repairs=0)
    assert len(generator.calls) == 1


def test_citations_of_nothing_given_are_removed_and_counted():
    """A number beyond the passages doesn't reach the caller, in citations or data."""
    result = build(Recording({**GOOD, "citations": [1, 7, 9]}))
    assert result["removed_citations"] == 2
    assert result["data"]["citations"] == [1]


def test_an_answer_without_citations_is_attributed():
    """A model that forgets to cite gets the citation of the passage that holds its answer."""
    assert build(Recording({**GOOD, "citations": []}))["citations"][0]["document_id"] == "tower"


@pytest.mark.parametrize(
    "change", [{"cannot_answer": True}, {"answer": ""}, {"answer": "not in the passages"}]
)
def test_a_refusal_is_the_fixed_sentence(change):
    """However the model refuses, answer, citations and confidence say the same."""
    result = build(Recording({**GOOD, **change}))
    assert (result["answer"], result["citations"], result["confidence"]) == (CANNOT_ANSWER, [], 0.0)
    assert result["cannot_answer"] is result["data"]["cannot_answer"] is True
    Draft202012Validator(DEFAULT_SCHEMA).validate(result["data"])


def test_without_documents_no_model_is_asked():
    """Nothing retrieved is nothing to ask: the fixed sentence, confidence 0, data that matches the schema."""
    result = build(None, documents=[])
    assert (result["answer"], result["confidence"], result["cannot_answer"]) == (CANNOT_ANSWER, 0.0, True)
    Draft202012Validator(DEFAULT_SCHEMA).validate(result["data"])


def test_confidence_is_measured():
    """What the passages don't hold has none; a token in doubt lowers it; the model's word counts not."""
    assert build(Recording({**GOOD, "confidence": 0.1}))["confidence"] == 1.0
    assert build(Recording({**GOOD, "answer": "Berlin", "confidence": 1}))["confidence"] == 0.0
    tokens = [{"token": token, "logprob": -0.7} for token in ('{"answer": "', "90", " m", '", ')]
    doubted = ChatMessage.from_assistant(json.dumps(GOOD), meta={"logprobs": {"content": tokens}})
    assert build(Recording(doubted))["confidence"] == pytest.approx(0.792, abs=0.001)


def test_an_answer_of_little_confidence_is_not_given():
    """An invented answer gives way to the fixed sentence, unless every answer is wanted."""
    invented = {**GOOD, "answer": "Berlin"}
    assert build(Recording(invented))["cannot_answer"]
    assert build(Recording(invented), min_confidence=0)["answer"] == "Berlin"


def test_a_request_may_bring_its_own_schema():
    """Another schema, at creation or for one request, is what the reply has to match; data is the reply."""
    reply = {"verdict": "yes", "why": "The tower is 90 m tall."}
    for parameters in ({"json_schema": VERDICT}, {"run_kwargs": {"json_schema": VERDICT}}):
        result = build(Recording(reply), **parameters)
        assert result["data"] == reply
        assert result["citations"][0]["document_id"] == "tower"
        with pytest.raises(StructuredAnswerError):
            build(Recording(GOOD), **parameters)


def test_model_of_the_request_is_passed_on():
    """The model chosen for a request reaches the generator."""
    generator = Recording(GOOD)
    build(generator, run_kwargs={"model": "other"})
    assert generator.calls[0]["model"] == "other"


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "objekt"}, "not valid at type"),
        ({"type": "array"}, 'has the type "array"'),
        ({"properties": []}, "not valid at properties"),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "only references inside it"),
        (
            {"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}},
            "only references inside it",
        ),
        ("object", "is a str"),
    ],
)
def test_an_unusable_schema_is_refused(schema, fault):
    """A schema that can't work is a clear error before any model is asked."""
    with pytest.raises(InvalidSchemaError, match=fault):
        build(Recording(GOOD), run_kwargs={"json_schema": schema})
    with pytest.raises(InvalidSchemaError, match=fault):
        StructuredAnswerBuilder(json_schema=schema)


@pytest.mark.parametrize("schema", [{"$ref": "#/nowhere"}, {"$ref": "#"}])
def test_a_schema_that_leads_nowhere_is_refused(schema):
    """A broken or endless reference shows when the first reply is checked, as an error about the schema."""
    with pytest.raises(InvalidSchemaError, match="can't be applied"):
        build(Recording(GOOD), run_kwargs={"json_schema": schema})


def test_run_async_gives_what_run_gives():
    """Both ways share their logic, repair included; a generator without run_async works too."""
    prompt = GroundedPromptBuilder(instructions="").run(query=QUERY, documents=DOCUMENTS)
    for generator in (MockChatGenerator(["no", json.dumps(GOOD)]), Recording("no", GOOD)):
        builder = StructuredAnswerBuilder(generator)
        result = asyncio.run(builder.run_async(**prompt, documents=DOCUMENTS, query=QUERY))
        assert result["data"] == build(Recording(GOOD))["data"]


def test_a_callers_schema_is_checked_beside_the_event_loop(monkeypatch):
    """What a caller's schema makes long keeps nobody else waiting; the builder's own is short."""
    threads = []

    def noted(*arguments):
        threads.append(threading.current_thread() is threading.main_thread())
        return checked_reply(*arguments)

    monkeypatch.setattr("components.structuring.checked_reply", noted)
    prompt = GroundedPromptBuilder(instructions="").run(query=QUERY, documents=DOCUMENTS)
    for schema, reply in ((VERDICT, {"verdict": "yes"}), (None, GOOD)):
        builder = StructuredAnswerBuilder(Recording(reply))
        run = builder.run_async(**prompt, documents=DOCUMENTS, query=QUERY, json_schema=schema)
        asyncio.run(run)
    assert threads == [False, True]


def test_data_beside_what_the_passages_hold_leave_it_its_source():
    """A rating that no passage can hold lowers the confidence, but the height keeps its citation and its data."""
    schema = {"type": "object", "properties": {"metres": {"type": "integer"}, "stars": {"type": "integer"}}}
    result = build(Recording({"metres": 90, "stars": 5}), run_kwargs={"json_schema": schema})
    assert result["data"] == {"metres": 90, "stars": 5}
    assert [citation["document_id"] for citation in result["citations"]] == ["tower"]
    assert 0.5 < result["confidence"] < 1


@pytest.mark.parametrize(
    ("data", "given"),
    [
        ({"metres": 90}, True),
        ({"metres": 90, "unit": "m"}, True),
        ({"metres": 90, "feet": 295}, True),
        ({"feet": 295}, False),
    ],
)
def test_half_of_the_values_of_foreign_data_have_to_be_in_the_passages(data, given):
    """A unit or a converted number does no harm beside what was found; one that stands alone is not given."""
    result = build(Recording(data), json_schema={"type": "object"})
    assert (result["data"], result["cannot_answer"]) == ((data, False) if given else (None, True))
    assert not given or result["citations"][0]["document_id"] == "tower"
