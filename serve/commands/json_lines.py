"""JSON in lines, which only line feeds part: texts of documents hold whatever else Unicode calls the end of a line."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

# What many programs take for the end of a line, what a terminal takes for a command, and what UTF-8 can't hold.
_TO_ESCAPE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def lines_in(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """
    Part what comes piece by piece into lines.

    :param chunks: the pieces.
    :returns: the lines without their ends; a last one without an end is left out, for it is not whole.
    """
    begun: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        begun.append(first)
        for other in others:
            yield b"".join(begun).removesuffix(b"\r")
            begun = [other]


def json_value(text: bytes | str) -> Any:
    """
    Read JSON.

    :param text: the JSON.
    :returns: its value.
    :raises ValueError: if it is no JSON, or lists in lists too deep to go through.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deep") from None


def json_text(value: Any, indent: int | None = None) -> str:
    """
    Write JSON that every program reads as the same lines, and that is safe to show on a terminal.

    :param value: what `json` can write.
    :param indent: spaces for each level; without it, all is one line.
    :returns: the JSON.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _TO_ESCAPE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def canonical(value: Any) -> str:
    """
    Write a value as JSON that is the same for the same.

    :param value: what `json` can write.
    :returns: the JSON.
    """
    return json.dumps(value, sort_keys=True)
