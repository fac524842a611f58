"""What a question may bring besides its text: wishes, options of the model, a JSON schema."""

import json
import re
import threading
from typing import Any

import pytest

from components.citing import CANNOT_ANSWER
from components.models.errors import InvalidGenerationError
from components.prompting import CALLER_INSTRUCTIONS, SYSTEM_PROMPT
from components.schemas import InvalidSchemaError
from components.structuring import StructuredAnswerError
from registry import ModeRegistry
from tests.modes.conftest import run
from tests.stub_llm import Behaviour, StubLLM

QUESTION = "How tall is the Eiffel Tower?"
UNANSWERED = "Who painted the ceiling of the Sistine Chapel?"
HEIGHT = {
    "type": "object",
    "properties": {"metres": {"type": "integer"}, "kind": {"enum": ["building", "lake"]}},
    "required": ["metres", "kind"],
    "additionalProperties": False,
}
MODES = ["standard", "crag", "structured", "crag_structured"]
STRUCTURED = ["structured", "crag_structured"]


@pytest.mark.parametrize("mode", MODES)
def test_wishes_stand_behind_the_own_system_prompt(registry: ModeRegistry, stub: StubLLM, mode: str) -> None:
    """What the caller asks for follows the mode's own system prompt, framed, and changes nothing else of the prompt."""
    registry[mode].run(QUESTION, tenant_id="acme")
    registry[mode].run(QUESTION, tenant_id="acme", instructions="Answer in French.")
    (system, user), (wishing, same) = [
        [message["content"] for message in request["messages"]] for request in stub.requests
    ]
    assert SYSTEM_PROMPT in system
    assert wishing.startswith(SYSTEM_PROMPT)
    assert wishing.index(CALLER_INSTRUCTIONS) < wishing.index("Answer in French.")
    assert "Answer in French." not in system
    user, same = (re.sub(r"(</?passages )\w+", r"\1", text) for text in (user, same))
    assert user == same


def test_options_of_the_caller_reach_the_answering_model(registry: ModeRegistry, stub: StubLLM) -> None:
    """They come on top of the mode's own; what the caller leaves out stays the mode's."""
    registry["standard"].run(
        QUESTION, tenant_id="acme", generation_kwargs={"temperature": 0.7, "stop": ["\n"]}
    )
    (request,) = stub.requests
    assert (request["temperature"], request["stop"], request["max_tokens"]) == (0.7, ["\n"], 300)


def test_a_structured_answer_takes_no_stop(registry: ModeRegistry, stub: StubLLM) -> None:
    """A stop would break the JSON, so it counts for nothing; the other options count."""
    options = {"stop": "330", "max_tokens": 77}
    result = registry["structured"].run(QUESTION, tenant_id="acme", generation_kwargs=options)
    assert result.answer == "330 metres"
    assert "stop" not in stub.requests[0]
    assert stub.requests[0]["max_tokens"] == 77


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"model": "other"}, "no 'model'"),
        ({"stream": True}, "no 'stream'"),
        ({"extra_body": {"a": 1}}, "max_tokens, temperature"),
        ({"max_tokens": 0}, "max_tokens must be a whole number from 1"),
        ({"max_tokens": True}, "max_tokens must be"),
        ({"temperature": 2.5}, "from 0 to 2"),
        ({"temperature": float("nan")}, "from 0 to 2"),
        ({"stop": ["a"] * 5}, "at most 4"),
        ({"stop": [""]}, "none of them empty"),
        ({"stop": ["\ud800"]}, "valid Unicode"),
        ({"seed": "1"}, "seed must be"),
    ],
)
def test_unknown_options_are_refused_before_anything_runs(
    registry: ModeRegistry, stub: StubLLM, options: dict[str, Any], part: str
) -> None:
    """What shapes the request itself, and values out of range, are errors that say what there is."""
    with pytest.raises(InvalidGenerationError, match=part):
        registry["standard"].run(QUESTION, tenant_id="nobody", generation_kwargs=options)
    assert stub.requests == []


@pytest.mark.parametrize("mode", STRUCTURED)
def test_data_match_the_callers_schema(registry: ModeRegistry, stub: StubLLM, mode: str) -> None:
    """The schema goes to the model, the reply is checked against it, and the numbers against the passages."""
    data = {"metres": 330, "kind": "building"}
    stub.behaviour = Behaviour(data=json.dumps(data))
    result = registry[mode].run(QUESTION, tenant_id="acme", json_schema=HEIGHT)
    assert result.data == data
    assert json.loads(result.answer) == data
    assert result.cannot_answer is False
    assert [citation.document_id for citation in result.citations] == ["tower"]
    assert stub.requests[0]["response_format"]["json_schema"]["schema"] == HEIGHT


def test_unchecked_data_never_get_out(registry: ModeRegistry, stub: StubLLM) -> None:
    """A model that keeps missing the caller's schema ends in an error."""
    stub.behaviour = Behaviour(data='{"metres": "many", "kind": "building"}')
    with pytest.raises(StructuredAnswerError, match="'many' is not of type 'integer'"):
        registry["structured"].run(QUESTION, tenant_id="acme", json_schema=HEIGHT)


@pytest.mark.parametrize(
    ("question", "data"),
    [(UNANSWERED, None), (QUESTION, {"metres": 4711, "kind": "building"})],
    ids=["nothing found", "made up"],
)
def test_without_an_answer_there_are_no_data(
    registry: ModeRegistry, stub: StubLLM, question: str, data: dict[str, Any] | None
) -> None:
    """Where nothing was found, or the passages do not bear the data out, data of a caller's schema are null."""
    stub.behaviour = Behaviour(data=json.dumps(data))
    result = registry["crag_structured"].run(question, tenant_id="acme", json_schema=HEIGHT)
    assert (result.answer, result.cannot_answer, result.data) == (CANNOT_ANSWER, True, None)
    assert result.citations == []


def test_a_bad_schema_is_refused_before_anything_runs(registry: ModeRegistry, stub: StubLLM) -> None:
    """A schema that can't be used is refused before the search, so that no stream has begun."""
    with pytest.raises(InvalidSchemaError, match='has the type "array"'):
        registry["structured"].run(QUESTION, tenant_id="nobody", json_schema={"type": "array"})
    assert stub.requests == []


def test_a_schema_is_checked_beside_the_event_loop(
    registry: ModeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schema may take tenths of a second to check, in which everybody else is served."""
    threads = []

    def check(schema: Any) -> None:
        threads.append(threading.get_ident())
        raise InvalidSchemaError

    monkeypatch.setattr("modes.mode.checked_schema", check)
    with pytest.raises(InvalidSchemaError):
        run(registry, registry["structured"].run_async(QUESTION, tenant_id="acme", json_schema=HEIGHT))
    assert threads != [threading.get_ident()]


def test_too_few_tokens_for_json_are_the_callers_fault(registry: ModeRegistry, stub: StubLLM) -> None:
    """A reply cut at the caller's own max_tokens is an error about that, and no call gets more than that."""
    stub.behaviour = Behaviour(raw=_cut_reply())
    with pytest.raises(InvalidGenerationError, match="max_tokens is 5, too few"):
        registry["structured"].run(QUESTION, tenant_id="acme", generation_kwargs={"max_tokens": 5})
    assert {request["max_tokens"] for request in stub.requests} == {5}


def _cut_reply() -> bytes:
    message = {"role": "assistant", "content": '{"answer": "33'}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    return json.dumps({"id": "1", "object": "chat.completion", "model": "stub", "choices": [choice]}).encode()


def test_a_refusal_for_want_of_documents_has_no_finish_reason(registry: ModeRegistry, stub: StubLLM) -> None:
    """The rephraser was cut off, not an answer: nobody was asked for one."""
    stub.behaviour = Behaviour(text="Which artist decorated the Sistine Chapel?")
    result = registry["crag"].run(UNANSWERED, tenant_id="acme")
    assert (result.cannot_answer, result.documents, result.finish_reason) == (True, [], None)
    assert result.usage.llm_calls == 1
