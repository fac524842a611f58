"""Reading the answer out of a JSON reply while the model still writes it."""

import json
import re

_OPENING = re.compile(r'\s*(?:```\w*\s*)?\{\s*"answer"\s*:\s*"')
# Whole characters only: an escape, or the pair of them that makes one character, may be cut by the end of a piece.
_WHOLE = re.compile(
    r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*"
)


class AnswerReader:
    """
    Gives the text of a JSON object's field `answer` as it comes in, if that is the object's first field.

    ### Usage example
    ```python
    reader = AnswerReader()
    [reader.read(piece) for piece in ('{"answ', 'er": "It is', ' 90 m.", "citations"', ": [1]}")]
    # ['', 'It is', ' 90 m.', '']
    ```
    """

    def __init__(self) -> None:
        """Begin before the reply's first character."""
        self._unread = ""
        self._inside = False

    def read(self, piece: str) -> str:
        """
        Take the reply's next piece.

        :param piece: Some characters of JSON.
        :returns: What they add to the answer; empty before it, behind it, and where there is none.
        """
        self._unread += piece
        if not self._inside:
            opening = _OPENING.match(self._unread)
            if opening is None:
                return ""
            self._inside = True
            self._unread = self._unread[opening.end() :]
        whole = _WHOLE.match(self._unread)[0]  # type: ignore[index]
        self._unread = self._unread[len(whole) :]
        return str(json.loads(f'"{whole}"'))
