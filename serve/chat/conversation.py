"""From the messages of a chat to the question, the conversation before it, and what is asked of the answer's form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from haystack.dataclasses import ChatMessage

from serve.chat.wording import answer_alone
from serve.errors import LimitError
from serve.schemas import MAX_MESSAGES, encodable

_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
_INSTRUCTING = ("system", "developer")


@dataclass(frozen=True)
class Conversation:
    """What a chat comes down to."""

    question: str
    history: list[ChatMessage]
    instructions: str | None


def conversation_of(
    messages: Sequence[Any], field: str = "messages", instructions: str | None = None
) -> Conversation:
    """
    Read a chat.

    The last message of the user is the question, and what comes before it the conversation; system and developer
    messages are instructions, wherever they stand.

    :param messages: messages in OpenAI's form.
    :param field: what the request calls them.
    :param instructions: further instructions, which come first.
    :returns: the question, the conversation and the instructions.
    :raises LimitError: if a message is none or holds anything but text, or there are too many, or no question.
    """
    if len(messages) > MAX_MESSAGES:
        raise LimitError(
            field, f"has {len(messages)} messages; at most {MAX_MESSAGES} are accepted: leave out the oldest"
        )
    wishes = [instructions] if instructions else []
    turns: list[ChatMessage] = []
    for number, message in enumerate(messages):
        role, text = _read(message, f"{field}.{number}")
        if role in _INSTRUCTING:
            wishes += [text] if text.strip() else []
        elif role == "assistant":
            turns.append(ChatMessage.from_assistant(answer_alone(text)))
        else:
            turns.append(ChatMessage.from_user(text))
    asked = [number for number, turn in enumerate(turns) if turn.is_from("user")]
    question = turns[asked[-1]].text if asked else None
    if not question or question.isspace():
        raise LimitError(field, "holds no question: the last message of the user must have text")
    history = [turn for turn in turns[: asked[-1]] if turn.text]
    return Conversation(question, history, "\n\n".join(wishes) or None)


def _read(message: Any, field: str) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise LimitError(field, "must be an object with 'role' and 'content'")
    if message.get("type", "message") != "message":
        raise LimitError(f"{field}.type", "must be 'message': a mode takes only messages, and calls no tools")
    role = message.get("role")
    if role in ("tool", "function") or message.get("tool_calls"):
        raise LimitError(field, "belongs to a tool call: a mode calls no tools")
    if role not in ("user", "assistant", *_INSTRUCTING):
        raise LimitError(f"{field}.role", "must be 'user', 'assistant', 'system' or 'developer'")
    return role, _text(message.get("content"), f"{field}.content")


def _text(content: Any, field: str) -> str:
    if content is None:
        return ""
    parts = [content] if isinstance(content, str) else content
    if not isinstance(parts, list):
        raise LimitError(field, "must be a text or a list of text parts")
    return "\n".join(_part(part, f"{field}.{number}") for number, part in enumerate(parts))


def _part(part: Any, field: str) -> str:
    kind = "text" if isinstance(part, str) else part.get("type") if isinstance(part, dict) else None
    if kind not in _TEXT_PARTS:
        raise LimitError(
            field, f"has the type '{kind}': a mode reads only text, of type 'text' or 'input_text'"
        )
    text = part if isinstance(part, str) else part.get("refusal" if kind == "refusal" else "text")
    if not isinstance(text, str):
        raise LimitError(f"{field}.text", "must be a text")
    try:
        return encodable(text)
    except ValueError as error:
        raise LimitError(field, str(error)) from None
