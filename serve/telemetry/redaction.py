"""The net under the log: what looks like a secret is taken out of each line, whoever wrote it."""

import re
from collections.abc import Iterable

HIDDEN = "[hidden]"
# A secret shorter than this is told apart from plain words by nothing.
_SHORTEST = 6

# Each keeps its first group, which says what was there.
_LOOKS_SECRET = [
    # Keys of this service, and those of well-known model servers.
    re.compile(r"\b(thr_|sk-|hf_|gsk_|xoxb-|gh[pousr]_)[A-Za-z0-9_-]{10,}"),
    # The credentials of an address: scheme://user:password@host. Without the scheme, for which a long line would be
    # looked through anew from each of its dots.
    re.compile(r"(://)[^\s/@'\"]*@"),
    re.compile(r"(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{6,}", re.I),
    # key=value, "key": "value", Key: value
    re.compile(
        r"((?:authorization|x-api-key|api[_-]?keys?|access[_-]?token|password|passwd|secret)"
        r"\\?['\"]?\s*[=:]\s*\\?['\"]?)(?!\[hidden\]|bearer\s|basic\s)[^\s'\",;&}\\]{3,}",
        re.I,
    ),
]


class Redactor:
    """
    Takes secrets out of text.

    Usage example:
    ```python
    Redactor(["hunter22"]).clean("redis://:hunter22@localhost")  # "redis://[hidden]localhost"
    ```
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """
        Know what to look for, besides what looks like a secret by its form.

        :param secrets: secrets of the settings, word for word.
        """
        known = sorted({secret for secret in secrets if len(secret) >= _SHORTEST}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def clean(self, text: str) -> str:
        """
        Take the secrets out of a text.

        :param text: any text.
        :returns: it, with `[hidden]` in their place.
        """
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        for pattern in _LOOKS_SECRET:
            text = pattern.sub(rf"\g<1>{HIDDEN}", text)
        return text
