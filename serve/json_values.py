"""How many values a JSON body has, counted while it arrives: reading very many small ones stops the event loop."""

_BEGINNINGS = (b"[", b"{", b",")


class ValueCounter:
    """
    Counts what begins a value outside of texts, part by part, without reading the JSON.

    Usage example:
    ```python
    counter = ValueCounter()
    counter.add(b'{"q": "one, tw')
    counter.add(b'o", "k": 3}')
    counter.values  # 2
    ```
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.values = 0
        self._in_text = False
        self._escaping = False

    def add(self, part: bytes) -> None:
        """
        Go on.

        :param part: the next bytes of the body.
        """
        self.values += sum(map(self._outside(part).count, _BEGINNINGS))

    def _outside(self, part: bytes) -> bytes:
        """Leave out what stands in texts."""
        if b"\0" in part:
            # UTF-16, where a byte may look like a quote: every one counts.
            return part
        if self._escaping and part:
            part, self._escaping = part[1:], False
        if b"\\" in part:
            part = part.replace(b"\\\\", b"").replace(b'\\"', b"")
        self._escaping |= part.endswith(b"\\")
        pieces = part.split(b'"')
        outside = b" ".join(pieces[self._in_text :: 2])
        self._in_text ^= not len(pieces) % 2
        return outside
