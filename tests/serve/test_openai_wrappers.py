"""Hayhooks wrappers as models of OpenAI's protocol, asked with OpenAI's own package."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serve.conftest import RunningServer, without_llm

WRAPPERS = {
    "greeter": '''
from hayhooks import BasePipelineWrapper
from hayhooks.events import create_status_event

class PipelineWrapper(BasePipelineWrapper):
    """Greets."""

    def setup(self):
        self.pipeline = None

    def run_chat_completion(self, model, messages, body):
        said = messages[-1]["content"]
        if not body.get("stream"):
            return f"Hello {said} {body.get('mood')}"
        return self.words(said)

    def words(self, said):
        yield create_status_event("Greeting")
        yield "Hello "
        yield said
        if said == "bomb":
            raise RuntimeError("secret-dsn")

    async def run_response_async(self, model, input_items, body):
        async def words():
            yield "Hello "
            yield input_items[-1]["content"]
        return words()
''',
    "mute": """
from hayhooks import BasePipelineWrapper

class PipelineWrapper(BasePipelineWrapper):
    def setup(self):
        self.pipeline = None

    def run_api(self, text: str) -> str:
        return text
""",
    "plainspoken": """
from hayhooks import BasePipelineWrapper

class PipelineWrapper(BasePipelineWrapper):
    def setup(self):
        self.pipeline = None

    def run_chat_completion(self, model, messages, body):
        return "well"
""",
    "maker": '''
from hayhooks import BasePipelineWrapper
from openai.types.chat import ChatCompletion, ChatCompletionChunk

class PipelineWrapper(BasePipelineWrapper):
    """Makes OpenAI's objects itself."""

    def setup(self):
        self.pipeline = None

    def run_chat_completion(self, model, messages, body):
        head = {"id": "own", "created": 1, "model": model}
        message = {"role": "assistant", "content": "made"}
        if body.get("stream"):
            choice = {"index": 0, "delta": message, "finish_reason": "length"}
            chunk = {**head, "object": "chat.completion.chunk", "choices": [choice]}
            return (ChatCompletionChunk.model_validate(chunk) for _ in range(2))
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        return ChatCompletion.model_validate({**head, "object": "chat.completion", "choices": [choice]})
''',
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder: Path = tmp_path_factory.mktemp("wrapped")
    for name, code in WRAPPERS.items():
        path = folder / "pipelines" / name / "pipeline_wrapper.py"
        path.parent.mkdir(parents=True)
        path.write_text(code)
    with (
        RunningServer(without_llm(folder, pipelines_dir=folder / "pipelines")) as running,
        openai.OpenAI(base_url=f"{running.base_url}/v1", api_key="acme", max_retries=0) as made,
    ):
        yield made


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]


def test_wrappers_that_chat_are_models(client: openai.OpenAI) -> None:
    """Wrappers with a method for OpenAI's protocol stand in the list of models, and others do not."""
    assert {model.id for model in client.models.list()} >= {"standard", "greeter", "maker"}
    assert "mute" not in {model.id for model in client.models.list()}
    assert client.models.retrieve("greeter").id == "greeter"


def test_an_unknown_model_is_told_with_all_that_there_are(client: openai.OpenAI) -> None:
    """The error of every route names the models that are listed, wrappers too, and the one that may be meant."""
    listed = ", ".join(model.id for model in client.models.list())
    for ask in (
        lambda: client.models.retrieve("greter"),
        lambda: client.chat.completions.create(model="greter", messages=said("x")),
        lambda: client.responses.create(model="greter", input="x"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert caught.value.code == "model_not_found"
        assert f"there are {listed}. Did you mean 'greeter'?" in caught.value.message


def test_a_wrapper_answers_in_both_protocols(client: openai.OpenAI) -> None:
    """Its method gets the request as it is, and its text is the answer, whole and streamed."""
    completion = client.chat.completions.create(
        model="greeter", messages=said("you"), extra_body={"mood": "gladly"}
    )
    assert completion.choices[0].message.content == "Hello you gladly"
    stream = client.chat.completions.create(model="greeter", messages=said("you"), stream=True)
    chunks = [chunk.choices[0] for chunk in stream]
    assert "".join(choice.delta.content or "" for choice in chunks) == "Hello you"
    assert chunks[-1].finish_reason == "stop"
    assert client.responses.create(model="greeter", input="you").output_text == "Hello you"
    with client.responses.stream(model="greeter", input="you") as events:
        assert events.get_final_response().output_text == "Hello you"


def test_a_wrapper_has_only_its_own_description(client: openai.OpenAI) -> None:
    """A wrapper without a docstring is not described with the one of its base class."""
    described = {model["id"]: model["description"] for model in client.get("/models", cast_to=object)["data"]}  # type: ignore[index]
    assert (described["greeter"], described["plainspoken"]) == ("Greets.", "")


def test_the_stream_of_a_wrapper_ends_with_the_usage(client: openai.OpenAI) -> None:
    """With `include_usage` the last chunk has a usage, of zeros, and no choices."""
    options: Any = {"include_usage": True}
    stream = client.chat.completions.create(
        model="greeter", messages=said("you"), stream=True, stream_options=options
    )
    last = list(stream)[-1]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 0


def test_objects_of_its_own_making_are_sent_as_they_are(client: openai.OpenAI) -> None:
    """A wrapper that makes OpenAI's objects itself keeps their id and reason."""
    completion = client.chat.completions.create(model="maker", messages=said("x"))
    assert (completion.id, completion.choices[0].finish_reason) == ("own", "length")
    chunks = list(client.chat.completions.create(model="maker", messages=said("x"), stream=True))
    assert [(chunk.id, chunk.choices[0].delta.content) for chunk in chunks] == [("own", "made")] * 2


def test_what_a_wrapper_cannot_do_or_raises_is_a_safe_error(client: openai.OpenAI) -> None:
    """A missing method is a 400 that names it; an exception's text never reaches the caller."""
    with pytest.raises(openai.BadRequestError, match="run_chat_completion"):
        client.chat.completions.create(model="mute", messages=said("x"))
    with pytest.raises(openai.BadRequestError, match="run_response"):
        client.responses.create(model="maker", input="x")
    stream = client.chat.completions.create(model="greeter", messages=said("bomb"), stream=True)
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert "secret" not in str(caught.value.body)


def test_events_of_a_wrapper_are_for_open_webui(client: openai.OpenAI) -> None:
    """The events that a wrapper tells go to Open WebUI alone."""
    for headers, told in (({}, False), ({"X-OpenWebUI-User-Id": "1"}, True)):
        body = {"model": "greeter", "messages": said("you"), "stream": True}
        text = client.post("/chat/completions", body=body, cast_to=str, options={"headers": headers})
        assert ('"event": {"type": "status"' in text) is told
