import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
from haystack import Pipeline
from haystack.dataclasses import ChatMessage

from components.events import listen
from components.generating import ModelChatGenerator
from components.models.chat_models import ChatModels
from components.models.choosing import choose_provider
from components.models.errors import (
    ContextLengthExceededError,
    GenerationTimeoutError,
    ModelUnavailableError,
    UnknownModelError,
)
from components.models.llama_cpp import LlamaCppChatGenerator
from components.models.llama_engine import _xllamacpp
from tests.ollama_server import OllamaApp, serving

pytestmark = pytest.mark.model

FRANCE = [ChatMessage.from_user("What is the capital of France? Answer with one word.")]
STORY = [ChatMessage.from_user("Write a very long story about a dragon.")]
LONG = {"max_tokens": 1500}
COLOURS = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "colour",
            "schema": {
                "type": "object",
                "properties": {"colour": {"enum": ["mauve", "teal"]}},
                "required": ["colour"],
                "additionalProperties": False,
            },
        },
    }
}


@dataclass
class Case:
    """A provider to test: its models, and how many replies it is generating."""

    models: ChatModels
    busy: Callable[[], int]


@pytest.fixture(scope="module")
def wire(small_model: LlamaCppChatGenerator) -> Iterator[tuple[OllamaApp, str]]:
    app = OllamaApp(
        {"small": small_model, "other": small_model}, embed=lambda texts: [[1.0, 2.0]] * len(texts)
    )
    with serving(app.asgi) as url:
        yield app, url


@pytest.fixture(scope="module")
def openai_url(small_model_path: Path) -> Iterator[str]:
    """llama.cpp's own HTTP server."""
    xllamacpp = _xllamacpp()
    params = xllamacpp.CommonParams()
    params.model.path = str(small_model_path)
    params.model_alias = {"small"}
    params.api_keys = ["key"]
    params.n_ctx, params.n_parallel, params.n_batch, params.n_ubatch = 4096, 2, 64, 64
    params.cache_ram_mib, params.verbosity, params.ui = 0, -1, False
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture(params=["embedded", "ollama", "openai"])
def case(request: pytest.FixtureRequest, small_model: LlamaCppChatGenerator) -> Iterator[Case]:
    busy = lambda: small_model.busy  # noqa: E731
    options: dict[str, Any] = {"generation_kwargs": {"max_tokens": 40}}
    match request.param:
        case "embedded":
            files = {"small": small_model.model_path}
            models = ChatModels("embedded", "small", weights=files, n_ctx=2048, **options)
        case "ollama":
            _, url = request.getfixturevalue("wire")
            models = ChatModels("ollama", "small", url=url, **options)
        case "openai":
            url = request.getfixturevalue("openai_url")
            models = ChatModels("openai", "small", url=url, api_key="key", **options)
            busy = lambda: busy_slots(url)  # noqa: E731
    yield Case(models, busy)
    models.close()


def busy_slots(url: str) -> int:
    slots = httpx.get(url.removesuffix("v1") + "slots", headers={"Authorization": "Bearer key"}, verify=False)
    return sum(slot["is_processing"] for slot in slots.json())


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_provider_answers_alike(case: Case) -> None:
    """Each provider's reply is right and has the same meta data, and its check passes."""
    case.models.check(deadline=20)
    reply = ModelChatGenerator(case.models).run(FRANCE)["replies"][0]
    assert "Paris" in reply.text
    assert (reply.meta["model"], reply.meta["finish_reason"]) == ("small", "stop")
    usage = reply.meta["usage"]
    assert usage.keys() == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


def test_every_provider_serves_one_event_loop_after_another(case: Case) -> None:
    """The same models answer in two event loops, though asynchronous clients are bound to one."""

    async def main() -> str:
        await case.models.check_async(deadline=20)
        reply = (await ModelChatGenerator(case.models).run_async(FRANCE))["replies"][0]
        await case.models.close_async()
        return reply.text

    assert "Paris" in asyncio.run(main())
    assert "Paris" in asyncio.run(main())


def test_every_provider_holds_to_a_schema(case: Case) -> None:
    """A JSON schema constrains the reply, streamed or not."""
    generator = ModelChatGenerator(case.models)
    question = [ChatMessage.from_user("Name the colour of the sky, in JSON.")]
    for callback in (None, lambda chunk: None):
        reply = generator.run(question, COLOURS, streaming_callback=callback)["replies"][0]
        assert json.loads(reply.text)["colour"] in ("mauve", "teal")


def test_every_provider_streams(case: Case) -> None:
    """The chunks make up the reply, whose meta data are there as without streaming; cut off is cut off."""

    async def main() -> tuple[ChatMessage, str]:
        texts: list[str] = []
        result = await ModelChatGenerator(case.models).run_async(
            STORY, {"max_tokens": 8}, streaming_callback=lambda chunk: texts.append(chunk.content)
        )
        await case.models.close_async()
        return result["replies"][0], "".join(texts)

    reply, text = asyncio.run(main())
    assert reply.text == text != ""
    assert reply.meta["finish_reason"] == "length"
    assert reply.meta["usage"]["completion_tokens"] == 8


def test_every_provider_gives_log_probabilities(case: Case) -> None:
    """Log-probabilities come in OpenAI's form, with a callback too; it gets the reply."""
    question = [ChatMessage.from_user("Is Paris the capital of France? Answer yes or no.")]
    options = {"max_tokens": 1, "logprobs": True, "top_logprobs": 5}
    texts: list[str] = []
    reply = ModelChatGenerator(case.models).run(
        question, options, streaming_callback=lambda chunk: texts.append(chunk.content)
    )["replies"][0]
    (token,) = reply.meta["logprobs"]["content"]
    assert token.keys() == {"token", "logprob", "top_logprobs"}
    assert [set(top) for top in token["top_logprobs"]] == [{"token", "logprob"}] * 5
    assert "".join(texts) == reply.text


def test_every_provider_stops_when_cancelled(case: Case) -> None:
    """Cancelling a call stops the model, wherever it runs."""

    async def main() -> None:
        begun = asyncio.Event()
        generator = ModelChatGenerator(case.models)
        call = generator.run_async(STORY, LONG, streaming_callback=lambda chunk: begun.set())
        task = asyncio.create_task(call)
        await begun.wait()
        assert case.busy() == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_until, lambda: case.busy() == 0)
        await case.models.close_async()

    asyncio.run(main())


def test_every_provider_refuses_a_prompt_beyond_its_context(case: Case) -> None:
    """A prompt that doesn't fit is an error of its own kind."""
    with pytest.raises(ContextLengthExceededError):
        ModelChatGenerator(case.models).run([ChatMessage.from_user("word " * 3000)])


def test_every_provider_refuses_a_model_that_is_not_on_offer(case: Case) -> None:
    """Another model than those on offer is refused by a list of them, before anybody is asked."""
    generator = ModelChatGenerator(case.models)
    with pytest.raises(UnknownModelError, match="'huge'; the choices are small"):
        generator.run(FRANCE, model="huge")
    with pytest.raises(UnknownModelError, match="'huge'; the choices are small"):
        asyncio.run(generator.run_async(FRANCE, {"model": "huge"}))


def test_no_messages_no_call() -> None:
    """An empty conversation gives no reply and needs no model."""
    generator = ModelChatGenerator(ChatModels("ollama", "absent", url="http://127.0.0.1:9"))
    assert generator.run([]) == {"replies": []}
    assert asyncio.run(generator.run_async([])) == {"replies": []}


def test_the_model_is_chosen_by_call_then_component_then_default(wire: tuple[OllamaApp, str]) -> None:
    """A call's model comes before the component's, which comes before the default."""
    app, url = wire
    models = ChatModels("ollama", "small", models=["other"], url=url, generation_kwargs={"max_tokens": 1})
    asked = []
    for generator, arguments in [
        (ModelChatGenerator(models), {}),
        (ModelChatGenerator(models, model="other"), {}),
        (ModelChatGenerator(models, model="other"), {"model": "small"}),
        (ModelChatGenerator(models), {"generation_kwargs": {"model": "other"}}),
    ]:
        reply = generator.run(FRANCE, **arguments)["replies"][0]
        asked.append((app.requests[-1]["model"], reply.meta["model"]))
    models.close()
    assert asked == [("small", "small"), ("other", "other"), ("small", "small"), ("other", "other")]


def test_options_reach_ollama_by_its_own_names(wire: tuple[OllamaApp, str]) -> None:
    """OpenAI's options are translated, the context is asked for, and None takes a default out."""
    app, url = wire
    models = ChatModels("ollama", "small", url=url, n_ctx=2048)
    generator = ModelChatGenerator(models, generation_kwargs={"max_tokens": 1, "seed": None})
    generator.run(FRANCE, {"stop": "###", **COLOURS, "logprobs": True, "top_logprobs": 3})
    models.close()
    sent = app.requests[-1]
    assert sent["options"] == {"num_predict": 1, "num_ctx": 2048, "stop": ["###"], "temperature": 0.0}
    assert sent["format"] == COLOURS["response_format"]["json_schema"]["schema"]
    assert (sent["logprobs"], sent["top_logprobs"], sent["stream"]) == (True, 3, False)


def test_calls_at_once_are_limited(wire: tuple[OllamaApp, str], small_model: LlamaCppChatGenerator) -> None:
    """With a concurrency of one, the model never works on two replies, though it has two slots."""
    models = ChatModels("ollama", "small", url=wire[1], concurrency=1, generation_kwargs={"max_tokens": 5})
    generator = ModelChatGenerator(models)
    seen: set[int] = set()

    async def main() -> None:
        callback = lambda chunk: seen.add(small_model.busy)  # noqa: E731
        calls = [generator.run_async(STORY, streaming_callback=callback) for _ in range(3)]
        await asyncio.gather(*calls)
        await models.close_async()

    asyncio.run(main())
    assert max(seen) == 1


def test_waiting_has_an_end(case: Case) -> None:
    """A reply that doesn't come, and a slot that isn't freed, end with an error that names the limit."""
    case.models.timeout = 0.3
    generator = ModelChatGenerator(case.models)

    async def main() -> list[Any]:
        calls = [generator.run_async(STORY, {"max_tokens": 100}) for _ in range(2 * case.models.concurrency)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        await case.models.close_async()
        return results

    errors = asyncio.run(main())
    assert {type(error) for error in errors} == {GenerationTimeoutError}
    assert all("0.3 s" in str(error) for error in errors)
    wait_until(lambda: case.busy() == 0)


def test_an_absent_server_or_model_is_named(wire: tuple[OllamaApp, str]) -> None:
    """The error says which server does not answer, without its password, or which model it lacks."""
    for provider in ("ollama", "openai"):
        absent = ChatModels(provider, "small", url="http://user:secret@127.0.0.1:9")
        for ask in (absent.check, lambda models=absent: ModelChatGenerator(models).run(FRANCE)):
            with pytest.raises(
                ModelUnavailableError, match=r"http://127\.0\.0\.1:9 does not answer"
            ) as caught:
                ask()
            assert "secret" not in str(caught.value)
        assert "secret" not in str(absent.describe())
        absent.close()
    lacking = ChatModels("ollama", "llama3.2:3b", url=wire[1])
    for ask in (lacking.check, lambda: ModelChatGenerator(lacking).run(FRANCE)):
        with pytest.raises(ModelUnavailableError, match=r"does not hold 'llama3\.2:3b'"):
            ask()
    lacking.close()


def test_listeners_hear_tokens_and_calls(case: Case) -> None:
    """A listener hears of every call, and of the tokens of a generator that emits them, if it wants them."""
    events: list[tuple[str, dict[str, Any]]] = []
    sink = lambda kind, data: events.append((kind, data))  # noqa: E731
    answering = ModelChatGenerator(case.models, emit_tokens=True)
    with listen(sink, tokens=True):
        text = answering.run(FRANCE)["replies"][0].text
    *tokens, (kind, call) = events
    assert "".join(data["text"] for _, data in tokens) == text
    assert {kind for kind, _ in tokens} == {"token"}
    assert (kind, call["model"]) == ("llm_call", "small")
    assert call["usage"]["total_tokens"] > 0
    assert call["seconds"] > 0
    events.clear()
    with listen(sink):
        answering.run(FRANCE)
    with listen(sink, tokens=True):
        ModelChatGenerator(case.models).run(FRANCE)
    assert [kind for kind, _ in events] == ["llm_call", "llm_call"]


def test_without_a_model_the_passages_answer() -> None:
    """The extractive provider answers from the prompt's passages and needs nothing."""
    models = ChatModels("extractive")
    models.check()
    meta = {"query": "How tall is the tower?", "passages": ["It stands in Paris. The tower is 90 m tall."]}
    reply = ModelChatGenerator(models).run([ChatMessage.from_user("prompt", meta=meta)])["replies"][0]
    assert "90 m" in reply.text
    assert models.describe()["provider"] == "extractive"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gpt", "x"), "unknown provider 'gpt'; there are embedded, ollama"),
        (("openai", "x"), "needs the URL"),
        (("ollama",), "needs the name of a model"),
        (("embedded", "x"), "no model file is known for x"),
    ],
)
def test_a_wrong_configuration_is_refused(arguments: tuple[str, ...], message: str) -> None:
    """Models that can't work are refused when they are made."""
    with pytest.raises(ValueError, match=message):
        ChatModels(*arguments)


def test_the_provider_is_chosen_by_what_there_is(
    wire: tuple[OllamaApp, str], small_model: LlamaCppChatGenerator, tmp_path: Path
) -> None:
    """A configured Ollama comes first, then one found with the model, then the built-in model, then none."""
    here, nowhere = wire[1], "http://127.0.0.1:9"
    files = {"small": small_model.model_path}

    def choose(**arguments: Any) -> tuple[str, str | None]:
        defaults = {
            "model": "small",
            "ollama_model": "small",
            "weights": files,
            "probe_url": here,
            "timeout": 20,
        }
        choice = choose_provider(**{**defaults, **arguments})
        return choice.provider, choice.url

    assert choose(ollama_url=nowhere) == ("ollama", nowhere)
    assert choose() == ("ollama", here)
    assert choose(ollama_model="absent") == ("embedded", None)
    assert choose(probe_url=nowhere) == ("embedded", None)
    assert choose(probe_url=nowhere, weights={"small": tmp_path / "absent"}) == ("extractive", None)
    assert choose(provider="embedded", weights={}) == ("extractive", None)
    assert choose(provider="openai", openai_url=nowhere) == ("openai", nowhere)


def test_the_shared_models_stay_out_of_yaml() -> None:
    """A generator's YAML holds its own options; without shared models it says what it misses."""
    pipeline = Pipeline()
    pipeline.add_component("llm", ModelChatGenerator(ChatModels("extractive"), emit_tokens=True))
    loaded = Pipeline.loads(pipeline.dumps(), allowed_modules=["components"]).get_component("llm")
    assert (loaded.emit_tokens, loaded.chat_models) == (True, None)
    with pytest.raises(ValueError, match="needs chat_models"):
        loaded.run(FRANCE)


def test_the_ollama_server_speaks_to_ollamas_client(wire: tuple[OllamaApp, str]) -> None:
    """The server that stands in for Ollama passes with the real client, errors included."""
    client = ollama.Client(wire[1], verify=False)
    assert {model.model for model in client.list().models} == {
        "small:latest",
        "other:latest",
        "all-minilm:latest",
    }
    assert client.show("small").details.format == "gguf"
    assert "Paris" in client.generate("small", FRANCE[0].text, options={"num_predict": 10}).response
    words = list(client.chat("small", [{"role": "user", "content": "Hello"}], stream=True, format="json"))
    assert isinstance(json.loads("".join(word.message.content for word in words)), dict)
    assert words[-1].done_reason in ("stop", "length")
    assert client.embed("all-minilm", ["a", "b"]).embeddings == [[1.0, 2.0], [1.0, 2.0]]
    with pytest.raises(ollama.ResponseError, match="model 'huge' not found") as caught:
        client.chat("huge", [{"role": "user", "content": "Hello"}])
    assert caught.value.status_code == 404
    client.close()
