"""Which options of a model a caller may set, and to what."""

from collections.abc import Callable, Mapping
from typing import Any

from components.models.errors import InvalidGenerationError

_MOST_STOPS = 4


def _count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _whole(value: Any) -> bool:
    return type(value) is int


def _within(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _stops(value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return len(texts) <= _MOST_STOPS and all(
        isinstance(text, str) and text and _valid(text) for text in texts
    )


def _valid(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


# OpenAI's names and ranges. What shapes the request itself (model, response_format, stream, ...) is the mode's.
_CALLER_OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_tokens": (_count, "a whole number from 1"),
    "temperature": (_within(0, 2), "a number from 0 to 2"),
    "top_p": (_within(0, 1), "a number from 0 to 1"),
    "seed": (_whole, "a whole number"),
    "stop": (_stops, f"a text or a list of at most {_MOST_STOPS} texts in valid Unicode, none of them empty"),
    "frequency_penalty": (_within(-2, 2), "a number from -2 to 2"),
    "presence_penalty": (_within(-2, 2), "a number from -2 to 2"),
}
CALLER_OPTIONS = tuple(_CALLER_OPTIONS)


def caller_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """
    Check the options of the answering model that came with a question.

    ### Usage example
    ```python
    caller_options({"max_tokens": 50, "temperature": None})  # {'max_tokens': 50}
    ```

    :param given: Options by OpenAI's names; None counts as not given.
    :returns: Those that are given.
    :raises InvalidGenerationError: If one is unknown or its value is out of its range.
    """
    options = {name: value for name, value in given.items() if value is not None}
    for name, value in options.items():
        if name not in _CALLER_OPTIONS:
            raise InvalidGenerationError(
                f"generation_kwargs has no {name[:80]!r}; there are {', '.join(CALLER_OPTIONS)}"
            )
        fits, wanted = _CALLER_OPTIONS[name]
        if not fits(value):
            raise InvalidGenerationError(f"generation_kwargs.{name} must be {wanted}")
    return options
