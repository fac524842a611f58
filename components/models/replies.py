"""Replies that look the same whichever provider gave them."""

from collections.abc import Iterable, Mapping
from typing import Any

from haystack.dataclasses import ChatMessage

COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def plain_reply(
    model: str,
    text: str | None,
    finish_reason: str | None,
    usage: Mapping[str, Any] | None,
    logprobs: Iterable[Mapping[str, Any]] | None = None,
) -> ChatMessage:
    """
    Make a reply whose meta data follow OpenAI's names and hold nothing else.

    :param model: The model that was asked.
    :param text: What it said.
    :param finish_reason: Why it stopped: "stop", "length", ...
    :param usage: Counts of tokens, among other things.
    :param logprobs: The tokens with their log-probabilities.
    :returns: An assistant's message with `model`, `finish_reason`, `usage` and, if there are any, `logprobs`.
    """
    meta: dict[str, Any] = {
        "model": model,
        "finish_reason": finish_reason,
        "usage": {key: (usage or {}).get(key) or 0 for key in COUNTS},
    }
    if logprobs:
        meta["logprobs"] = {"content": [_token(token) for token in logprobs]}
    return ChatMessage.from_assistant(text or "", meta=meta)


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    top = [
        {"token": other["token"], "logprob": other["logprob"]} for other in token.get("top_logprobs") or ()
    ]
    return {"token": token["token"], "logprob": token["logprob"], "top_logprobs": top}
