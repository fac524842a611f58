"""Converters run in processes of their own, which may be ended at any time and may not take more than is allowed."""

import importlib.util
import json
import os
import re
import signal
import socket
import struct
import time
from contextlib import suppress
from importlib.abc import InspectLoader
from typing import Any, Self

from haystack import Document, component, default_to_dict
from haystack.dataclasses import ByteStream

from components.converting.errors import EmptySourceError, SourceError
from components.converting.nursery import NURSERY
from components.converting.routing import NOTE_META
from components.pacing import pause

_POLL_SECONDS = 0.2
_LATE_SECONDS = 5.0
_EARLY_SECONDS = 1.0
_BYTES_A_CHARACTER = 6
# A file whose turn has not come when others end the nursery is tried again, and more often than one that is begun.
_MOST_ATTEMPTS = 10
_MOST_BEGUN = 2

LOADING_SECONDS = 60.0
"""How long a converter may take to be loaded, besides the time for the conversion."""


@component
class SandboxedConverter:
    """
    Runs a converter where a malicious or broken file harms nobody.

    Each file is converted in a process of its own, forked from one that has the converter loaded already. It may take
    so much memory and time, write no file, and knows no secret of the service; it ends with the service, however that
    ends. What a converter skips and only logs is an error here, which says why in words for the person who sent it.

    Usage example:
    ```python
    converter = SandboxedConverter(
        {"type": "haystack.components.converters.pdfminer.PDFMinerToDocument"},
        convert_timeout=60, convert_memory_mb=1024, convert_max_chars=20_000_000,
    )
    documents = converter.run(sources=[ByteStream(pdf, meta={"document_id": "report"})])["documents"]
    ```
    """

    def __init__(
        self,
        converter: dict[str, Any],
        convert_timeout: float,
        convert_memory_mb: int,
        convert_max_chars: int,
        allowed_modules: tuple[str, ...] = (),
    ) -> None:
        """
        Name the converter; nothing is started yet.

        :param converter: a Haystack component with an input `sources` and an output `documents`, as in a pipeline
            file: `type` and `init_parameters`.
        :param convert_timeout: seconds the conversion of one file may take.
        :param convert_memory_mb: megabytes it may take, besides what the converter itself does.
        :param convert_max_chars: characters of text that may come out.
        :param allowed_modules: modules, besides Haystack's and `components`, that the converter may be from.
        :raises ValueError: if there is no such class.
        """
        _check_is_there(converter)
        self.converter = converter
        self.convert_timeout = convert_timeout
        self.convert_memory_mb = convert_memory_mb
        self.convert_max_chars = convert_max_chars
        self.allowed_modules = allowed_modules

    def to_dict(self) -> dict[str, Any]:
        """
        Serialize the component.

        :returns: its type and init parameters, but for the limits, which are settings.
        """
        return default_to_dict(self, converter=self.converter)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """
        Make the component; the converter in it stays a description, so that its libraries are not imported here.

        :param data: type and init parameters.
        :returns: the component.
        """
        return cls(**data.get("init_parameters", {}))

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, list[Document]]:
        """
        Convert files.

        :param sources: the files.
        :returns: `documents`, all that the converter made of each, with the source's metadata besides its own.
        :raises EmptySourceError: if the converter found no text in a file.
        :raises SourceError: if it can't read a file within the limits.
        """
        return {"documents": [document for source in sources for document in self._convert(source)]}

    def _convert(self, source: ByteStream) -> list[Document]:
        header = {
            "converter": {"init_parameters": {}, **self.converter},
            "allowed_modules": self.allowed_modules,
            "timeout": self.convert_timeout,
            "loading_timeout": LOADING_SECONDS + self.convert_timeout,
            "memory_mb": self.convert_memory_mb,
            "max_chars": self.convert_max_chars,
            "mime_type": source.mime_type,
            "size": len(source.data),
        }
        reply = self._ask(header, source.data)
        if "refused" in reply:
            raise (EmptySourceError if reply["empty"] else SourceError)(reply["refused"])
        if not reply["documents"]:
            raise EmptySourceError("there is no text in it")
        return [_document(made, source) for made in reply["documents"]]

    def _ask(self, header: dict[str, Any], data: bytes) -> dict[str, Any]:
        begun = 0
        for _ in range(_MOST_ATTEMPTS):
            process = NURSERY.process()
            with process.connection as connection:
                conversation = _Conversation(connection, self._most_bytes)
                try:
                    return conversation.hold(header, data, self.convert_timeout)
                except (ConnectionError, EOFError):
                    begun += conversation.begun
                    # When the nursery itself was killed, the file was not to blame.
                    if (conversation.begun and NURSERY.runs(process.generation)) or begun == _MOST_BEGUN:
                        break
                except TimeoutError:
                    limit = f"{self.convert_timeout:g} s (CONVERT_TIMEOUT)"
                    raise SourceError(f"cannot be read: its conversion took more than {limit}") from None
        raise SourceError(self._ended())

    @property
    def _most_bytes(self) -> int:
        return self.convert_max_chars * _BYTES_A_CHARACTER + 1_000_000

    def _ended(self) -> str:
        limit = f"{self.convert_memory_mb} MB of memory (CONVERT_MEMORY_MB)"
        return f"cannot be read: its conversion broke down; it may need more than {limit}"


class _Conversation:
    """What is said between the service and the process that converts one file."""

    def __init__(self, connection: socket.socket, most_bytes: int) -> None:
        self._connection = connection
        self._most_bytes = most_bytes
        self._pid = 0
        self._deadline = float("inf")
        self.begun = False

    def hold(self, header: dict[str, Any], data: bytes, timeout: float) -> dict[str, Any]:
        """Send a file and wait for what became of it; whatever happens, the process ends."""
        words = json.dumps(header).encode()
        try:
            self._connection.sendall(struct.pack("!I", len(words)) + words)
            self._wait_for_converter(header)
            self.begun = True
            begin = time.monotonic()
            self._deadline = begin + timeout + _LATE_SECONDS
            return self._exchange(data, begin + timeout)
        finally:
            if self._pid:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(self._pid, signal.SIGKILL)

    def _wait_for_converter(self, header: dict[str, Any]) -> None:
        # Files before this one may wait for their own converters.
        self._receive(1)
        limit = header["loading_timeout"]
        due = time.monotonic() + limit
        try:
            (self._pid,) = struct.unpack("!I", self._receive(4))
        except (ConnectionError, EOFError):
            # The nursery ends itself when a converter's time is up.
            if time.monotonic() < due - _EARLY_SECONDS:
                raise
            name = header["converter"]["type"]
            raise SourceError(
                f"cannot be read: its converter, {name}, was not loaded within {limit:g} s"
            ) from None

    def _exchange(self, data: bytes, due: float) -> dict[str, Any]:
        try:
            self._send(data)
            (size,) = struct.unpack("!Q", self._receive(8))
            if size > self._most_bytes:
                raise SourceError("cannot be read: too much came out of it")
            reply: dict[str, Any] = json.loads(self._receive(size))
        except (ConnectionError, EOFError):
            # The process ends itself when its time is up.
            if time.monotonic() >= due - _EARLY_SECONDS:
                raise TimeoutError from None
            raise
        self._pid = 0
        return reply

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._patiently(self._connection.send, view[: 1 << 20]) :]

    def _receive(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            part = self._patiently(self._connection.recv, min(size - len(received), 1 << 20))
            if not part:
                raise EOFError
            received += part
        return bytes(received)

    def _patiently(self, call: Any, argument: Any) -> Any:
        """Wait in short turns, between which a cancelled job hears of it."""
        self._connection.settimeout(_POLL_SECONDS)
        while True:
            try:
                return call(argument)
            except TimeoutError:
                if time.monotonic() > self._deadline:
                    raise
                pause()


def _document(made: dict[str, Any], source: ByteStream) -> Document:
    meta = {**made["meta"], **source.meta}
    notes = [meta[NOTE_META] for meta in (source.meta, made["meta"]) if meta.get(NOTE_META)]
    if notes:
        meta[NOTE_META] = "; ".join(notes)
    return Document(content=made["content"], meta=meta)


def _check_is_there(converter: Any) -> None:
    """Find the fault in a name without importing what it names."""
    if not isinstance(converter, dict) or not isinstance(converter.get("type"), str):
        raise ValueError("'converter' must have a 'type', the class that converts")
    if extra := converter.keys() - {"type", "init_parameters"}:
        raise ValueError(f"'converter' has an unknown key '{min(extra)}'")
    module, _, name = converter["type"].rpartition(".")
    try:
        spec = importlib.util.find_spec(module) if module else None
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ValueError(f"'converter' names the module '{module}', which can't be found")
    source = spec.loader.get_source(module) if isinstance(spec.loader, InspectLoader) else None
    if source is not None and not re.search(rf"\b{re.escape(name)}\b", source):
        raise ValueError(f"'converter' names '{name}', which the module '{module}' does not have")
