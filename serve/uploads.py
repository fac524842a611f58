"""Receiving an upload: its files go into one temporary file while they arrive, so memory holds a slice of them."""

import asyncio
import hashlib
import io
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from serve.errors import FileTooLargeError, LimitError, UploadNotKeptError

FILES_FIELD = "files"
# Read off the network before a thread is asked to parse, hash and write it.
_SLICE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class UploadLimits:
    """How much one upload may hold: files, bytes of one file, and bytes of all fields that are no file."""

    files: int
    file_bytes: int
    field_bytes: int


@dataclass(frozen=True)
class UploadedFile:
    """A file as it was sent: name and type are the client's word; the content can be read as often as one likes."""

    name: str
    content_type: str | None
    sha256: str
    size: int
    content: BinaryIO


@dataclass
class Upload:
    """All parts of an upload."""

    fields: dict[str, str]
    files: list[UploadedFile]


@asynccontextmanager
async def received_upload(
    request: Request, folder: Path, limits: UploadLimits, fields: frozenset[str]
) -> AsyncIterator[Upload]:
    """
    Read a multipart request to its end; its files can be read inside the `with` block.

    Nothing of it is left after the block, nor when the client goes away half way, nor when the process ends: the
    temporary file has no name.

    :param request: the request.
    :param folder: directory for the temporary file.
    :param limits: how much is accepted.
    :param fields: the names of the fields there may be beside the files.
    :returns: the upload.
    :raises LimitError: if it is no whole multipart form, or holds what it may not.
    :raises FileTooLargeError: if a file is too large, as soon as it is.
    :raises ClientDisconnect: if it ends before its end.
    :raises UploadNotKeptError: if the disk is full.
    """
    with _temporary_file(folder) as file:
        receiver = _Receiver(_boundary(request), file, limits, fields)
        with _told_disk_errors():
            await _receive(request, receiver)
            upload = receiver.finish()
        yield upload


async def _receive(request: Request, receiver: "_Receiver") -> None:
    waiting: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        waiting.append(chunk)
        size += len(chunk)
        if size >= _SLICE_BYTES:
            await asyncio.to_thread(receiver.write, b"".join(waiting))
            waiting, size = [], 0
    await asyncio.to_thread(receiver.write, b"".join(waiting))


def _temporary_file(folder: Path) -> BinaryIO:
    with _told_disk_errors():
        return cast(BinaryIO, tempfile.TemporaryFile(dir=folder))


@contextmanager
def _told_disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UploadNotKeptError(
            f"the upload can't be kept: {error.strerror or error}; try again later"
        ) from error


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise LimitError("body", "must be a form with files, sent with Content-Type: multipart/form-data")
    return options[b"boundary"]


class _Receiver:
    """Takes a multipart body in pieces of any size."""

    def __init__(self, boundary: bytes, file: BinaryIO, limits: UploadLimits, fields: frozenset[str]) -> None:
        self._file = file
        self._reading = threading.Lock()
        self._limits = limits
        self._known = fields
        self._field_bytes = 0
        self._ended = False
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._part: _FieldPart | _FilePart | None = None
        self._upload = Upload({}, [])
        callbacks: dict[str, Callable[..., Any]] = {
            "on_part_begin": self._headers.clear,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_part,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, cast(Any, callbacks))
        except FormParserError as error:
            raise LimitError("body", f"cannot be read as a multipart form: {error}") from error

    def write(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise LimitError("body", f"cannot be read as a multipart form: {error}") from error

    def finish(self) -> Upload:
        if not self._ended:
            raise LimitError("body", "ends in the middle of the form; send it again")
        if not self._upload.files:
            raise LimitError(FILES_FIELD, "is missing: give at least one file")
        self._file.flush()
        return self._upload

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _begin_part(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        field = _text(options.get(b"name", b""))
        if field != FILES_FIELD:
            if field not in self._known or field in self._upload.fields:
                names = ", ".join(f"'{name}'" for name in (FILES_FIELD, *sorted(self._known)))
                raise LimitError(
                    field[:64] or "body", f"is unknown or there twice; the form may have {names}"
                )
            self._part = _FieldPart(field, bytearray())
            return
        if len(self._upload.files) == self._limits.files:
            raise LimitError(
                FILES_FIELD,
                f"has more than {self._limits.files} files (MAX_DOCUMENTS_PER_JOB); send several requests",
            )
        if b"filename" not in options:
            raise LimitError(
                FILES_FIELD, "was sent as text, not as a file; curl needs an @: -F files=@policy.md"
            )
        name = _text(options[b"filename"])
        content_type = self._headers.get(b"content-type", b"").decode("latin-1") or None
        self._part = _FilePart(name, content_type, self._file.tell(), hashlib.sha256())

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        if isinstance(self._part, _FilePart):
            self._part.size += len(piece)
            if self._part.size > self._limits.file_bytes:
                raise FileTooLargeError(self._part.name, self._limits.file_bytes)
            self._part.digest.update(piece)
            self._file.write(piece)
        elif self._part is not None:
            self._field_bytes += len(piece)
            if self._field_bytes > self._limits.field_bytes:
                raise LimitError(
                    self._part.name, f"is too long: at most {self._limits.field_bytes} bytes are accepted"
                )
            self._part.data += piece

    def _end_part(self) -> None:
        part = self._part
        if isinstance(part, _FilePart):
            content = cast(BinaryIO, _Section(self._file, self._reading, part.begin, part.size))
            self._upload.files.append(
                UploadedFile(part.name, part.content_type, part.digest.hexdigest(), part.size, content)
            )
        elif part is not None:
            try:
                self._upload.fields[part.name] = part.data.decode("utf-8")
            except UnicodeDecodeError:
                raise LimitError(part.name, "is not UTF-8 text") from None

    def _end(self) -> None:
        self._ended = True


@dataclass
class _FieldPart:
    name: str
    data: bytearray


@dataclass
class _FilePart:
    name: str
    content_type: str | None
    begin: int
    digest: Any
    size: int = 0


class _Section(io.RawIOBase):
    """A part of a file as a file of its own; thousands of them share one descriptor."""

    def __init__(self, file: BinaryIO, lock: threading.Lock, begin: int, size: int) -> None:
        super().__init__()
        self._file = file
        self._lock = lock
        self._begin = begin
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._position))
        with self._lock:
            self._file.seek(self._begin + self._position)
            data = self._file.read(count)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
