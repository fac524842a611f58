"""Each source goes the way of its kind."""

import re
from typing import Any

from haystack import component
from haystack.dataclasses import ByteStream

from components.converting.decoding import decode
from components.converting.errors import EmptySourceError
from components.converting.kinds import KINDS, Kind, kind_of

NOTE_META = "_note"
"""Metadata key of what was left out of a source; `SourceMerger` takes it off again."""

_FRONT_MATTER = re.compile(
    r"\A---[ \t]*\n(?:[\w-]+[ \t]*:.*\n(?:[ \t-].*\n|[ \t]*\n)*)+(?:---|\.\.\.)[ \t]*(?:\n|\Z)"
)
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w-]{2,30})", re.IGNORECASE)


@component
class SourceRouter:
    """
    Tells what kind of file each source is, by its content, and gives it out at the socket of that kind.

    Sources that are text (`text`, `markdown`, `html`, `csv`, `json`) come out as UTF-8 with `\\n` at the end of lines,
    whatever their encoding was, and Markdown without its front matter. A name or a declared type decides only between
    kinds that can't be told by their content; but a name that promises a PDF or an Office file must be right.

    Usage example:
    ```python
    router = SourceRouter()
    source = ByteStream(b"# Hours", meta={"document_id": "hours", "source": "hours.md"})
    router.run(sources=[source])  # {"sources": [source], "markdown": [ByteStream(...)]}
    ```
    """

    def __init__(self) -> None:
        """Create a router, with an output for each kind that is read."""
        component.set_output_types(self, sources=list[ByteStream], **dict.fromkeys(KINDS, list[ByteStream]))

    def run(self, sources: list[ByteStream]) -> dict[str, Any]:
        """
        Sort sources by kind.

        :param sources: files with `document_id` and, where they have a name, `source` in their metadata.
        :returns: `sources`, all of them, and the sources of each kind under the kind's name, without kinds that have
            none.
        :raises EmptySourceError: if a source is empty.
        :raises SourceError: if a source is of a kind that is not read, or damaged.
        """
        outputs: dict[str, list[ByteStream]] = {"sources": sources}
        for source in sources:
            if not source.data.strip():
                raise EmptySourceError("there is no text in it: it is empty")
            kind = kind_of(source)
            routed = _as_utf_8(source, kind) if kind.is_text else source
            outputs.setdefault(kind.name, []).append(ByteStream(routed.data, routed.meta, kind.media_type))
        return outputs


def _as_utf_8(source: ByteStream, kind: Kind) -> ByteStream:
    declared = _CHARSET.search(source.mime_type or "")
    decoded = decode(source.data, declared and declared[1], is_html=kind.name == "html")
    text = decoded.text.replace("\r\n", "\n").replace("\r", "\n")
    if kind.name == "markdown":
        text = _FRONT_MATTER.sub("", text, count=1)
    meta = {**source.meta, NOTE_META: decoded.note} if decoded.note else source.meta
    return ByteStream(text.encode("utf-8", "replace"), meta)
