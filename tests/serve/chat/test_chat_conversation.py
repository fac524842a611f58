"""Reading the messages of a chat."""

from typing import Any

import pytest

from serve.chat.conversation import conversation_of
from serve.errors import LimitError


def test_the_last_message_of_the_user_is_the_question() -> None:
    """What stands before it is the conversation, and what is not the user's or the assistant's is instructions."""
    parts = [{"type": "text", "text": "And"}, {"type": "input_text", "text": "when?"}]
    said = conversation_of(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Who?"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "They."}]},
            {"role": "developer", "content": "In French."},
            {"type": "message", "role": "user", "content": parts},
            {"role": "assistant", "content": "Well"},
        ],
        instructions="First of all.",
    )
    assert said.question == "And\nwhen?"
    assert [(turn.role.value, turn.text) for turn in said.history] == [
        ("user", "Who?"),
        ("assistant", "They."),
    ]
    assert said.instructions == "First of all.\n\nBe brief.\n\nIn French."


def test_a_single_question_has_no_conversation() -> None:
    """Without more there is nothing to rephrase and nothing to obey."""
    said = conversation_of([{"role": "user", "content": "Who?"}])
    assert (said.history, said.instructions) == ([], None)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("text", "messages.0"),
        ({"role": "wizard", "content": "x"}, "messages.0.role"),
        ({"role": "user", "content": 5}, "messages.0.content"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages.0.content.0"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages.0.content.0.text"),
        ({"role": "user", "content": "\ud800"}, "messages.0.content.0"),
        ({"role": "assistant", "tool_calls": [{}]}, "messages.0"),
        ({"role": "user", "content": " \n"}, "messages"),
        ({"role": "user", "content": None}, "messages"),
    ],
)
def test_what_is_wrong_is_named(message: Any, field: str) -> None:
    """A message that is none, or is not of text, is refused by its place."""
    with pytest.raises(LimitError) as caught:
        conversation_of([message])
    assert caught.value.errors[0]["field"] == field
