"""Answers without a language model: the sentences of the passages that fit the question best."""

import json
from typing import Any

from haystack import component
from haystack.dataclasses import ChatMessage, StreamingCallbackT, StreamingChunk

from components.citing import CANNOT_ANSWER
from components.evidence import Passage
from components.focusing import ranked_sentences

MODEL = "extractive"
# Of questions on short paragraphs, the best sentence held the answer to 73 in 100, the best two to 89.
SENTENCES = 2
_FIELDS = {"answer", "citations", "confidence", "cannot_answer", "reasoning"}


class LanguageModelNeededError(RuntimeError):
    """What was asked for takes a language model, and there is none."""


@component
class ExtractiveChatGenerator:
    """
    Stands in for a language model where there is none: replies with the best sentence of the prompt's
    passages.

    Reads the question and the passages from the meta data of the last user message (`query`, `passages`,
    `titles`), as
    `GroundedPromptBuilder` writes them.

    ### Usage example

    ```python
    from haystack import Document
    from components.extracting import ExtractiveChatGenerator
    from components.prompting import GroundedPromptBuilder

    documents = [Document(content="The tower is 90 m tall."), Document(content="It is an iron tower.")]
    prompt = GroundedPromptBuilder().run(query="How tall is the tower?", documents=documents)
    print(ExtractiveChatGenerator().run(**prompt)["replies"][0].text)
    # The tower is 90 m tall. [1] It is an iron tower. [2]
    ```
    """

    @component.output_types(replies=list[ChatMessage])
    def run(
        self,
        messages: list[ChatMessage],
        generation_kwargs: dict[str, Any] | None = None,
        streaming_callback: StreamingCallbackT | None = None,
    ) -> dict[str, Any]:
        """
        Answer from the passages of the last user message.

        :param messages: A prompt with `query` and `passages` in the meta data of its last user message.
        :param generation_kwargs: Of these, `response_format` counts: the fields of the default structured
            answer can be filled without a language model.
        :param streaming_callback: Gets the reply in one piece.
        :returns: A dictionary with `replies`: one message, or none for no messages.
        :raises LanguageModelNeededError: If the prompt holds no passages, or another JSON schema is asked
            for.
        """
        if not messages:
            return {"replies": []}
        text = _reply(messages, (generation_kwargs or {}).get("response_format"))
        if streaming_callback is not None:
            streaming_callback(_chunk(text))
        return {"replies": [_message(text)]}

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self,
        messages: list[ChatMessage],
        generation_kwargs: dict[str, Any] | None = None,
        streaming_callback: StreamingCallbackT | None = None,
    ) -> dict[str, Any]:
        """
        Answer from the passages of the last user message; takes milliseconds, so on the event loop itself.

        :param messages: As for `run`.
        :param generation_kwargs: As for `run`.
        :param streaming_callback: Gets the reply in one piece; may be a coroutine function.
        :returns: As `run`.
        :raises LanguageModelNeededError: As `run`.
        """
        if not messages:
            return {"replies": []}
        text = _reply(messages, (generation_kwargs or {}).get("response_format"))
        if streaming_callback is not None:
            waiting: Any = streaming_callback(_chunk(text))
            if waiting is not None:
                await waiting
        return {"replies": [_message(text)]}


def _reply(messages: list[ChatMessage], response_format: dict[str, Any] | None) -> str:
    meta = next((message.meta for message in reversed(messages) if message.is_from("user")), {})
    if "query" not in meta or "passages" not in meta:
        raise LanguageModelNeededError("No language model is available to answer a prompt without passages")
    texts = meta["passages"]
    passages = list(map(Passage, texts, meta.get("titles") or [""] * len(texts)))
    best = ranked_sentences(meta["query"], passages)[:SENTENCES]
    # Best first, but two from one passage as they stand there.
    order = sorted(
        best, key=lambda sentence: (sentence.passage != best[0].passage, sentence.passage, sentence.start)
    )
    found = [(texts[s.passage][s.start : s.end], s.passage + 1) for s in order]
    if response_format is None:
        return " ".join(f"{sentence} [{number}]" for sentence, number in found) or CANNOT_ANSWER
    answer = {
        "answer": " ".join(sentence for sentence, _ in found) or CANNOT_ANSWER,
        "citations": list(dict.fromkeys(number for _, number in found)),
        "cannot_answer": not found,
        "confidence": round(best[0].coverage, 3) if best else 0.0,
        "reasoning": "extractive: these sentences share most with the question; no language model was asked",
    }
    wanted = response_format.get("json_schema", {}).get("schema", {}).get("properties", {})
    if not wanted or not set(wanted) <= _FIELDS:
        raise LanguageModelNeededError(
            "No language model is available to fill this JSON schema; "
            f"without one only these fields can be filled: {', '.join(sorted(_FIELDS))}"
        )
    return json.dumps({name: answer[name] for name in wanted}, ensure_ascii=False)


def _message(text: str) -> ChatMessage:
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return ChatMessage.from_assistant(text, meta={"model": MODEL, "finish_reason": "stop", "usage": usage})


def _chunk(text: str) -> StreamingChunk:
    return StreamingChunk(content=text, meta={"model": MODEL}, index=0, start=True, finish_reason="stop")
