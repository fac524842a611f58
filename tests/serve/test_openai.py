"""The modes as models of OpenAI's protocol, asked with OpenAI's own package."""

import json
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessage
from pydantic import BaseModel

from settings import Settings
from tests.serve.conftest import RunningServer, finished
from tests.stub_llm import Behaviour, StubLLM

TEXT = "The Eiffel Tower in Paris is 330 metres tall."
QUESTION = "How tall is the Eiffel Tower?"
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}]}
REPLY = "The Eiffel Tower in Paris is 330 metres tall [1]."
SOURCES = f'\n\nSources:\n- [1] Tower: "{TEXT}"'
ANSWER = REPLY + SOURCES


class Height(BaseModel):
    answer: str
    metres: int


@pytest.fixture(scope="module")
def service(stub: StubLLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    settings = Settings.load(data_dir=tmp_path_factory.mktemp("openai"), port=0, **stub.settings())
    with RunningServer(settings) as running:
        documents = [{"id": "sights/tower", "text": TEXT, "title": "Tower"}]
        job = running.post("/ingest/", json={"tenant_id": "acme", "documents": documents}).json()
        assert finished(running, job)["status"] == "done"
        yield running


@pytest.fixture
def client(service: httpx.Client, stub: StubLLM) -> Iterator[openai.OpenAI]:
    stub.behaviour = Behaviour(text=REPLY)
    with openai.OpenAI(base_url=f"{service.base_url}/v1", api_key="acme", max_retries=0) as made:
        yield made


def asked_model(stub: StubLLM) -> str:
    """All that the model was told in its last call."""
    return "\n".join(message["content"] for message in stub.requests[-1]["messages"])


def streamed(client: openai.OpenAI, **more: Any) -> str:
    """Ask with a stream and join its pieces."""
    stream = client.chat.completions.create(**{"model": "standard", **ASKED, **more}, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_every_mode_is_a_model(client: openai.OpenAI, service: httpx.Client) -> None:
    """`/v1/models` has the modes that `/modes` has, and describes each."""
    modes = [mode["name"] for mode in service.get("/modes").json()["items"]]
    assert [model.id for model in client.models.list()] == modes
    assert client.models.retrieve("crag").id == "crag"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-6")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("mode", ["standard", "crag", "structured", "crag_structured"])
def test_a_completion_has_the_answer_of_the_query_route(
    client: openai.OpenAI, service: httpx.Client, mode: str
) -> None:
    """The text is the answer of `/query/` with its sources below, and annotations name what is cited."""
    result = service.post("/query/", json={"q": QUESTION, "mode": mode, "tenant_id": "acme"}).json()
    completion = client.chat.completions.create(model=mode, **ASKED)
    [choice] = completion.choices
    assert choice.message.content == result["answer"] + SOURCES
    assert choice.finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.total_tokens == result["usage"]["total_tokens"] > 0
    [citation] = result["citations"]
    assert cited(choice.message) == [("[1]", citation["document_id"], citation["quote"])]


def cited(message: ChatCompletionMessage) -> list[tuple[str, str, str]]:
    """The mark, the document and the quote of each annotation."""
    found = [annotation.url_citation.model_dump() for annotation in message.annotations or ()]
    assert message.content is not None
    return [
        (message.content[place["start_index"] : place["end_index"]], place["document_id"], place["quote"])
        for place in found
    ]


def test_an_annotation_leads_to_the_document(client: openai.OpenAI) -> None:
    """The URL of a citation gives the cited document, whatever its id looks like."""
    message = client.chat.completions.create(model="standard", **ASKED).choices[0].message
    assert message.annotations
    assert (
        httpx.get(message.annotations[0].url_citation.url, trust_env=False).json()["document_id"]
        == "sights/tower"
    )


@pytest.mark.parametrize("mode", ["standard", "crag", "structured"])
def test_a_stream_adds_up_to_the_same_answer(client: openai.OpenAI, mode: str) -> None:
    """The pieces of a stream are the text of the whole answer."""
    whole = client.chat.completions.create(model=mode, **ASKED).choices[0].message.content
    assert streamed(client, model=mode) == whole


def test_the_stream_ends_with_annotations_reason_and_usage(client: openai.OpenAI) -> None:
    """With `include_usage` the last chunk has the usage and no choices, and all chunks have one id."""
    stream = client.chat.completions.create(
        model="standard", **ASKED, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = stream
    assert {chunk.id for chunk in chunks} == {last.id}
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == len(REPLY.split())
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    [annotation] = chunks[-2].choices[0].delta.model_dump()["annotations"]
    assert annotation["url_citation"]["document_id"] == "sights/tower"


def test_a_stream_without_options_has_no_usage_and_is_done(service: httpx.Client, stub: StubLLM) -> None:
    """A plain stream has the content type of events, and its last line is `[DONE]`."""
    stub.behaviour = Behaviour(text=REPLY)
    body = {"model": "standard", **ASKED, "stream": True}
    response = service.post("/v1/chat/completions", json=body, headers={"Authorization": "Bearer acme"})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")
    assert '"usage"' not in response.text


def test_pieces_come_as_the_model_writes_them(client: openai.OpenAI, stub: StubLLM) -> None:
    """The first words are there while the model still writes the last."""
    stub.behaviour = Behaviour(text=REPLY, hang_after=4)
    stream = client.chat.completions.create(model="standard", **ASKED, stream=True)
    words = ""
    for chunk in stream:
        words += chunk.choices[0].delta.content or ""
        if "Paris" in words or "Tower in" in words:
            break
    assert stub.running == 1
    stream.close()
    stub.wait_until(lambda: stub.running == 0)


def test_the_helper_of_the_package_reads_the_stream(client: openai.OpenAI) -> None:
    """`chat.completions.stream` puts together the completion that a request without a stream gives."""
    with client.chat.completions.stream(model="standard", **ASKED) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == ANSWER


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("It is 330 metres tall [7].", "It is 330 metres tall. [1]"),
        ("The passages do not mention the height.", None),
    ],
)
def test_a_changed_answer_is_sent_after_what_was_sent(
    client: openai.OpenAI, stub: StubLLM, reply: str, answer: str | None
) -> None:
    """Where the check of an answer changes it, the stream says so and then gives the answer as it is."""
    stub.behaviour = Behaviour(text=reply)
    whole = client.chat.completions.create(model="standard", **ASKED).choices[0].message.content
    assert whole is not None
    assert whole.startswith(answer or "The documents do not hold the answer")
    text = streamed(client)
    assert text == whole or text.endswith(f"The answer is:\n\n{whole}")


def test_a_made_up_mark_is_not_sent(client: openai.OpenAI, stub: StubLLM) -> None:
    """A mark that names no passage is taken out of a stream as it is without one."""
    stub.behaviour = Behaviour(text="The Eiffel Tower [9] in Paris is 330 metres tall [1].")
    assert streamed(client) == ANSWER


def test_the_conversation_makes_the_question_self_contained(client: openai.OpenAI, stub: StubLLM) -> None:
    """The model that rephrases sees the turns before, without the list of sources."""
    turns = [
        {"role": "user", "content": "What stands in Paris?"},
        {"role": "assistant", "content": f"The Eiffel Tower [1].{SOURCES}"},
        {"role": "user", "content": [{"type": "text", "text": "How tall is it?"}]},
    ]
    begin = len(stub.requests)
    client.chat.completions.create(model="standard", messages=turns)  # type: ignore[arg-type]
    rephrasing = str(stub.requests[begin]["messages"])
    assert "The Eiffel Tower" in rephrasing
    assert "How tall is it?" in rephrasing
    assert "Sources:" not in rephrasing


def test_system_messages_come_besides_the_modes_own(client: openai.OpenAI, stub: StubLLM) -> None:
    """What a system message wants is told to the model, and the mode's instructions stay."""
    client.chat.completions.create(model="standard", **ASKED)
    own = stub.requests[-1]["messages"][0]["content"]
    wish = {"role": "system", "content": "Answer in French."}
    client.chat.completions.create(model="standard", messages=[wish, *ASKED["messages"]])  # type: ignore[list-item]
    assert "Answer in French." in asked_model(stub)
    assert own.splitlines()[0] in stub.requests[-1]["messages"][0]["content"]


def test_options_reach_the_model(client: openai.OpenAI, stub: StubLLM) -> None:
    """Sampling options and the limit of tokens are the model's."""
    client.chat.completions.create(
        model="standard",
        **ASKED,
        temperature=0.7,
        top_p=0.5,
        seed=3,
        stop=["END"],
        max_completion_tokens=17,
        frequency_penalty=0.5,
        presence_penalty=-1,
    )
    sent = stub.requests[-1]
    assert (sent["frequency_penalty"], sent["presence_penalty"]) == (0.5, -1)
    assert (sent["temperature"], sent["top_p"], sent["seed"], sent["stop"]) == (0.7, 0.5, 3, ["END"])
    assert 17 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))


def test_a_schema_of_the_caller_gives_that_json(client: openai.OpenAI, stub: StubLLM) -> None:
    """`response_format` with a schema: the content is the validated JSON and nothing else, streamed too."""
    stub.behaviour = Behaviour(data='{"answer": "330 metres", "metres": 330}')
    parsed = client.chat.completions.parse(model="structured", **ASKED, response_format=Height)
    assert parsed.choices[0].message.parsed == Height(answer="330 metres", metres=330)
    with client.chat.completions.stream(model="structured", **ASKED, response_format=Height) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.parsed == Height(answer="330 metres", metres=330)


def test_without_an_answer_there_is_a_refusal_and_no_json(client: openai.OpenAI) -> None:
    """When the documents do not hold the answer, nothing is made up to fit the caller's schema."""
    question = "Who wrote Fidelio?"
    asked: dict[str, Any] = {"model": "crag_structured", "messages": [{"role": "user", "content": question}]}
    message = client.chat.completions.parse(**asked, response_format=Height).choices[0].message
    assert (message.content, message.parsed) == (None, None)
    with client.chat.completions.stream(**asked, response_format=Height) as stream:
        streamed = stream.get_final_completion().choices[0].message
    response = client.responses.parse(model="crag_structured", input=question, text_format=Height)
    [part] = response.model_dump()["output"][0]["content"]
    assert "do not hold the answer" in (message.refusal or "")
    assert message.refusal == streamed.refusal == part["refusal"]
    own = client.chat.completions.create(**asked, response_format={"type": "json_object"})
    assert json.loads(own.choices[0].message.content)["cannot_answer"] is True


def test_json_that_is_not_the_callers_is_an_error(client: openai.OpenAI, stub: StubLLM) -> None:
    """A model that does not keep to the schema is a 502, never unchecked JSON."""
    stub.behaviour = Behaviour(data='{"answer": "330 metres", "metres": "many"}')
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.parse(model="structured", **ASKED, response_format=Height)
    assert caught.value.code == "invalid_model_reply"


def test_other_modes_refuse_a_schema(client: openai.OpenAI) -> None:
    """A mode that answers in text says which kind of mode can do it."""
    with pytest.raises(openai.BadRequestError, match="structured mode") as caught:
        client.chat.completions.parse(model="crag", **ASKED, response_format=Height)
    assert caught.value.param == "response_format"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"temperature": 9}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "Be kind."}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages.0.content.0",
        ),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages.0"),
        ({"extra_body": {"k": 1000}}, "k"),
        ({"extra_body": {"llm": "gpt-6"}}, "llm"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_a_mode_cannot_do_is_named(
    client: openai.OpenAI, more: dict[str, Any], param: str, stream: bool
) -> None:
    """A request that can't be met is a 400 in OpenAI's form that names the field, also with a stream."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "structured", **ASKED, **more}, stream=stream)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_harmless_fields_are_ignored(client: openai.OpenAI) -> None:
    """What clients send by habit does not matter."""
    habits = {"n": 1, "user": "me", "store": True, "logprobs": False, "reasoning_effort": "low", "top_k": 40}
    completion = client.chat.completions.create(
        model="standard", **ASKED, tools=[], extra_body=habits, extra_query={"api-version": "1"}
    )
    assert completion.choices[0].message.content == ANSWER


def test_the_key_is_the_tenant(client: openai.OpenAI) -> None:
    """The API key names the tenant unless the request does; a key that can be none is refused."""
    stranger = client.with_options(api_key="sk:no tenant")
    assert stranger.chat.completions.create(model="standard", **ASKED, extra_body={"tenant_id": "acme"})
    with pytest.raises(openai.BadRequestError, match="names the tenant"):
        stranger.chat.completions.create(model="standard", **ASKED)
    with pytest.raises(openai.NotFoundError) as caught:
        client.with_options(api_key="nobody").chat.completions.create(model="standard", **ASKED)
    assert caught.value.code == "unknown_tenant"


def test_errors_of_the_protocol_are_in_its_form(service: httpx.Client) -> None:
    """Unknown routes, wrong methods, broken and large bodies: under `/v1/` all errors are OpenAI's objects."""
    post = {"content-type": "application/json"}
    answers = {
        404: service.post("/v1/embeddings", json={}),
        405: service.get("/v1/chat/completions"),
        400: service.post("/v1/chat/completions", content=b'{"model": ', headers=post),
        413: service.post("/v1/responses", content=b"x" * 33_600_000, headers=post),
    }
    for status, response in answers.items():
        assert response.status_code == status
        error = response.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error["message"]
        assert error["request_id"] == response.headers["x-request-id"]


def test_a_model_that_is_away_is_an_error_before_the_stream(client: openai.OpenAI, stub: StubLLM) -> None:
    """What goes wrong before the first word has a status, also for a stream."""
    stub.behaviour = Behaviour(status=500)
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="standard", **ASKED, stream=stream)
        assert caught.value.type == "server_error"


def test_a_stream_that_breaks_off_raises(client: openai.OpenAI, stub: StubLLM) -> None:
    """A fault in the middle reaches the client as an error, after the words that came."""
    stub.behaviour = Behaviour(text=REPLY, break_after=4, pause=0.01)
    stream = client.chat.completions.create(model="standard", **ASKED, stream=True)
    words = "".join(chunk.choices[0].delta.content or "" for chunk in islice(stream, 3))
    assert REPLY.startswith(words.strip())
    assert words.strip()
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.type == "server_error"


def test_a_deadline_is_a_504(client: openai.OpenAI, stub: StubLLM) -> None:
    """`X-Request-Timeout` holds here too, and the error says which stage was running."""
    stub.behaviour = Behaviour(text=REPLY, delay=5)
    with pytest.raises(openai.InternalServerError, match="cited_answer") as caught:
        client.chat.completions.create(model="standard", **ASKED, extra_headers={"X-Request-Timeout": "0.3"})
    assert caught.value.status_code == 504


def test_a_response_has_the_same_answer(client: openai.OpenAI) -> None:
    """Responses give text, citations and usage of the same answer as Chat Completions."""
    response = client.responses.create(model="standard", input=QUESTION, instructions="Be brief.")
    assert response.output_text == ANSWER
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.output_tokens == len(REPLY.split())
    [annotation] = response.model_dump()["output"][0]["content"][0]["annotations"]
    assert ANSWER[annotation["start_index"] : annotation["end_index"]] == "[1]"
    assert annotation["document_id"] == "sights/tower"


def test_the_events_of_a_response_are_in_order(client: openai.OpenAI) -> None:
    """Each event of a stream comes in OpenAI's order, numbered without a gap, and the last holds it all."""
    events = list(client.responses.create(model="standard", input=QUESTION, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert [kind for kind, following in pairwise([*kinds, ""]) if kind != following] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == ANSWER
    assert events[-1].response.output_text == ANSWER  # type: ignore[union-attr]


def test_the_helpers_of_the_package_read_responses(client: openai.OpenAI, stub: StubLLM) -> None:
    """`responses.stream` and `responses.parse` work, with the caller's schema."""
    with client.responses.stream(model="standard", input=QUESTION) as stream:
        assert stream.get_final_response().output_text == ANSWER
    stub.behaviour = Behaviour(data='{"answer": "330 metres", "metres": 330}')
    parsed = client.responses.parse(model="structured", input=QUESTION, text_format=Height)
    assert parsed.output_parsed == Height(answer="330 metres", metres=330)
    with client.responses.stream(model="structured", input=QUESTION, text_format=Height) as stream:
        final = stream.get_final_response()
    assert final.output_parsed == Height(answer="330 metres", metres=330)
    assert final.model_dump(by_alias=True)["text"]["format"]["schema"]["required"] == ["answer", "metres"]


def test_a_response_that_breaks_off_fails(client: openai.OpenAI, stub: StubLLM) -> None:
    """A fault in the middle ends the stream with `error` and `response.failed`."""
    stub.behaviour = Behaviour(text=REPLY, break_after=4, pause=0.01)
    *_, error, failed = client.responses.create(model="standard", input=QUESTION, stream=True)
    assert error.type == "error"
    assert failed.type == "response.failed"
    assert failed.response.status == "failed"
    assert failed.response.error is not None
    assert failed.response.error.message == error.message


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"input": []}, "input"),
        ({"input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]}, "input.0.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}, "text.format"),
    ],
)
def test_what_a_response_cannot_do_is_named(client: openai.OpenAI, more: dict[str, Any], param: str) -> None:
    """Requests for what Responses can't do here are a 400 that names the field."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": "standard", "input": QUESTION, **more})
    assert caught.value.param == param


def test_open_webui_gets_its_events_and_nobody_else(client: openai.OpenAI, service: httpx.Client) -> None:
    """Requests with Open WebUI's headers get states and numbered sources between the chunks; others don't."""
    body = {"model": "crag", **ASKED, "stream": True}
    key = {"Authorization": "Bearer acme"}
    plain = service.post("/v1/chat/completions", json=body, headers=key)
    assert '"event"' not in plain.text
    shown = service.post("/v1/chat/completions", json=body, headers={**key, "X-OpenWebUI-Chat-Id": "1"})
    events = [
        event["event"]
        for line in shown.text.splitlines()
        if line.startswith("data: {") and "event" in (event := httpx.Response(200, text=line[6:]).json())
    ]
    states = [event["data"]["description"] for event in events if event["type"] == "status"]
    assert states == ["Found 1 passage", "Graded 1 passage, kept 1", "Answered from 1 passage"]
    assert events[-1]["data"]["done"]
    [source] = [event["data"] for event in events if event["type"] == "source"]
    assert source["document"] == [TEXT]
    assert source["source"]["name"] == "[1] Tower"


@pytest.mark.model
def test_the_built_in_model_streams_what_it_answers(small_model_path: Path, tmp_path: Path) -> None:
    """With the small real model, a stream and a whole answer are the same text."""
    settings = Settings.load(
        data_dir=tmp_path, port=0, llm_provider="embedded", default_model=small_model_path.stem
    )
    with RunningServer(settings) as running:
        job = running.post("/ingest/", json={"tenant_id": "acme", "texts": [TEXT]}).json()
        assert finished(running, job)["status"] == "done"
        with openai.OpenAI(base_url=f"{running.base_url}/v1", api_key="acme", timeout=60) as client:
            completion = client.chat.completions.create(model="standard", **ASKED, max_tokens=40)
            assert "330" in (completion.choices[0].message.content or "")
            assert completion.usage is not None
            assert completion.usage.completion_tokens > 0
            assert streamed(client, max_tokens=40) == completion.choices[0].message.content


@pytest.mark.parametrize(
    ("path", "given", "param"),
    [
        ("chat/completions", {"filters": {"x": 1}}, "filters"),
        ("chat/completions", {"stop": [""]}, "stop"),
        (
            "chat/completions",
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}}},
            "response_format",
        ),
        (
            "responses",
            {"text": {"format": {"type": "json_schema", "schema": {"type": "nothing"}}}},
            "text.format",
        ),
    ],
)
def test_a_wrong_option_is_named_as_the_caller_sent_it(
    client: openai.OpenAI, service: httpx.Client, path: str, given: dict[str, Any], param: str
) -> None:
    """`param` is a field of the request, also where the service has another name for it."""
    asked = {"input": QUESTION} if path == "responses" else ASKED
    headers = {"Authorization": "Bearer acme"}
    answer = service.post(f"/v1/{path}", json={"model": "structured", **asked, **given}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert "generation_kwargs" not in answer.text


def test_no_body_and_no_route_are_openais_errors(service: httpx.Client) -> None:
    """An empty body is told what it has to be, `/v1` answers as what is below it, and a last slash does no harm."""
    empty = service.post("/v1/chat/completions").json()["error"]
    assert empty["message"].startswith("the body must be a JSON object")
    assert service.get("/v1").json()["error"]["code"] == "not_found"
    assert service.get("/v1/models/").json()["object"] == "list"


@pytest.mark.parametrize("text", [REPLY, None])
def test_a_filter_of_the_models_server_is_told(
    client: openai.OpenAI, stub: StubLLM, text: str | None
) -> None:
    """A reply that its server has cut says so in both protocols; one without text is no answer."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "content_filter"}
    reply = {"id": "x", "object": "chat.completion", "created": 0, "model": "stub", "choices": [choice]}
    stub.behaviour = Behaviour(raw=json.dumps(reply).encode())
    if text is None:
        with pytest.raises(openai.InternalServerError, match="empty reply"):
            client.chat.completions.create(model="standard", **ASKED)
        return
    completion = client.chat.completions.create(model="standard", **ASKED)
    assert completion.choices[0].finish_reason == "content_filter"
    response = client.responses.create(model="standard", input=QUESTION)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "content_filter"
