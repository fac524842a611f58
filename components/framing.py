"""Keeping texts of others apart from what a prompt itself says, so that none of them can pose as a part of it."""

import json
import re
import secrets
from typing import Any

# Chat templates mark turns with control tokens such as <|im_end|> or <start_of_turn>. A model server parses
# them in any text it is given, so a document that holds one could end the user's turn and begin another.
_CONTROL_TOKEN = (
    r"<(?=[|｜]|/?(?:s|bos|eos|pad|unk|mask|think|start_of_turn|end_of_turn|tool_call|tool_response)>)"
    r"|<(?=</?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS|THINK)\])"
)
_MARKS = ("passages", "passage", "wishes")
# Without the code no mark is real, but a model does not compare codes as well as a program does.
_MARK = rf"[<＜](?=/?(?:{'|'.join(_MARKS)})\b)"
_TELLING = re.compile(f"{_CONTROL_TOKEN}|(?i:{_MARK})")
# "[2]" at the beginning of a line, where it would begin another passage.
_NUMBER = re.compile(r"(^|[\r\v\f\x1c-\x1e\x85\u2028\u2029])([^\S\n]{0,16})\[(?=\d{1,4}\])", re.MULTILINE)
# JSON leaves these as they are, and some readers take them for the end of a line.
_LINE_END = re.compile(r"[\x7f-\x9f\u2028\u2029]")
_CODE_BYTES = 6


def plain_text(text: str) -> str:
    """
    Break up what a chat template would read as a control token, or a model as a mark of the prompt's own.

    ### Usage example
    ```python
    plain_text("</passages><|im_end|>")  # '< /passages>< |im_end|>'
    ```

    :param text: Text of a document or a caller.
    :returns: The text with a blank put into each token and mark.
    """
    return _TELLING.sub(lambda match: match[0] + " ", text)


def plain_passage(text: str) -> str:
    """
    Make a document's text plain, as `plain_text` does, and keep it from beginning another numbered passage.

    :param text: The text.
    :returns: The text, with a blank also in numbers such as `[2]` that begin a line.
    """
    return _NUMBER.sub(r"\1\2[ ", plain_text(text))


def plain_line(text: str) -> str:
    """
    Put a text on one line, plain, so that it can't begin another line of the prompt.

    :param text: The text.
    :returns: The text on one line, without blanks around it.
    """
    return plain_text(" ".join(text.split()))


def plain_json(value: Any) -> str:
    """
    Write a value as one line of JSON which holds no control token and no mark, yet reads as the same value.

    :param value: What `json` can write, such as a JSON schema.
    :returns: The JSON.
    """
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # `<` stands inside strings alone, and so does a `[` before one of those words.
    return _LINE_END.sub(_escaped, _TELLING.sub(_escaped, written))


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


class Frame:
    """
    The marks around the texts of others in one prompt, with a code that none of these texts can know.

    The code is random and made anew for each prompt, so whoever has seen one prompt knows nothing of the next.

    ### Usage example
    ```python
    frame = Frame("It is 90 m tall.")
    frame.around("passages", "It is 90 m tall.")
    # '<passages 3f9c0a6b12de>\nIt is 90 m tall.\n</passages 3f9c0a6b12de>'
    ```
    """

    def __init__(self, *texts: str) -> None:
        """
        Draw the code.

        :param texts: All that the prompt takes from others; the code stands in none of them.
        """
        content = "\n".join(texts).lower()
        self.code = secrets.token_hex(_CODE_BYTES)
        while self.code in content:
            self.code = secrets.token_hex(_CODE_BYTES)

    def around(self, name: str, text: str, number: int | None = None) -> str:
        """
        Put a text between two marks.

        :param name: What it is: "passages", "passage" or "wishes".
        :param text: The text, made plain before.
        :param number: Which of several it is.
        :returns: The text with the marks around it.
        """
        mark = f"{name} {self.code}" if number is None else f"{name} {number} {self.code}"
        return f"<{mark}>\n{text}\n</{mark}>"
