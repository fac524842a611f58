"""The other end of the sandbox: loads converters, and forks a process for each file.

Run as a program with a socket as its standard input, over which come connections, one for each file.
"""

import ctypes
import io
import json
import logging
import os
import resource
import signal
import socket
import struct
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import ceil
from typing import Any

from haystack import Pipeline
from haystack.dataclasses import ByteStream

from components.converting.errors import EmptySourceError, SourceError
from components.converting.kinds import KINDS

_HEADER_SECONDS = 10
_READING_SECONDS = 60
_PR_SET_PDEATHSIG = 1
_MEGABYTE = 1024 * 1024
# What an XML tree takes for each byte of XML, at the least.
_XML_EXPANSION = 4
_PASSWORD = "is protected by a password: password needed; remove the password and send the file again"
_NAMES = {kind.media_type: kind.name for kind in KINDS.values()}


def serve(control: socket.socket) -> None:
    """
    Fork a process for each connection that comes, until the service has gone.

    :param control: where connections come from.
    """
    converters: dict[str, Any] = {}
    libc = ctypes.CDLL(None)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    logging.getLogger().addHandler(logging.NullHandler())
    with suppress(OSError):
        # People who wait for an answer come first.
        os.nice(5)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        with socket.socket(fileno=descriptors[0]) as connection:
            try:
                header = _header(connection)
                connection.sendall(b"+")
                with _ended_after(header["loading_timeout"]):
                    converter = _converter(converters, header)
            except (OSError, EOFError, ValueError):
                continue
            parent = os.getpid()
            if os.fork() == 0:
                control.close()
                _end_with(parent, libc)
                _work(connection, header, converter)
                os._exit(0)


def _end_with(parent: int, libc: ctypes.CDLL) -> None:
    if sys.platform == "linux":
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        # Rather this process than the service, when the machine runs out of memory.
        file.write("1000")


def _header(connection: socket.socket) -> dict[str, Any]:
    connection.settimeout(_HEADER_SECONDS)
    (size,) = struct.unpack("!I", _receive(connection, 4))
    header: dict[str, Any] = json.loads(_receive(connection, size))
    return header


def _converter(known: dict[str, Any], header: dict[str, Any]) -> Any:
    """Give a converter that is loaded, or the error that it can't be."""
    key = json.dumps([header["converter"], header["allowed_modules"]])
    if key not in known:
        try:
            data = {"components": {"converter": header["converter"]}}
            allowed = ["components", "components.*", *header["allowed_modules"]]
            pipeline = Pipeline.from_dict(data, allowed_modules=allowed)
            pipeline.warm_up()
            known[key] = pipeline.get_component("converter")
        except Exception as error:  # a converter's module and __init__ may raise anything
            return error
    return known[key]


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """Let the kernel end this process when a converter hangs while it is loaded; the next file starts a new one."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _work(connection: socket.socket, header: dict[str, Any], converter: Any) -> None:
    connection.settimeout(None)
    connection.sendall(struct.pack("!I", os.getpid()))
    _limit(header)
    try:
        data = _receive(connection, header["size"])
        reply = _reply(converter, ByteStream(data, mime_type=header["mime_type"]), header)
    except MemoryError:
        reply = _too_large(header)
    # The time was for the conversion; whoever waits for its result may take a moment to read it.
    signal.setitimer(signal.ITIMER_REAL, _READING_SECONDS)
    # The limit that was hit is the soft one; telling so needs a little more.
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    words = json.dumps(reply, ensure_ascii=False, default=str).encode("utf-8", "replace")
    with suppress(BrokenPipeError):
        connection.sendall(struct.pack("!Q", len(words)) + words)


def _limit(header: dict[str, Any]) -> None:
    """Let the kernel end this process, whatever the converter does."""
    soft = _address_space() + header["memory_mb"] * _MEGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (soft, soft * 2))
    seconds = ceil(header["timeout"]) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, header["timeout"])


def _address_space() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 1024 * _MEGABYTE


def _reply(converter: Any, source: ByteStream, header: dict[str, Any]) -> dict[str, Any]:
    try:
        if isinstance(converter, Exception):
            raise SourceError(f"cannot be read: its converter can't be loaded: {_first_line(converter)}")
        _check_archive(source, header)
        documents = _documents(converter, source)
        if sum(len(document.content or "") for document in documents) > header["max_chars"]:
            limit = f"{header['max_chars']:,} characters (CONVERT_MAX_CHARS)"
            raise SourceError(f"has too much text: more than {limit}")
    except MemoryError:
        return _too_large(header)
    except SourceError as error:
        return {"refused": str(error), "empty": isinstance(error, EmptySourceError)}
    except Exception as error:  # converters raise whatever their libraries do
        return {"refused": _explain(error, source), "empty": False}
    return {
        "documents": [{"content": document.content or "", "meta": document.meta} for document in documents]
    }


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).partition("\n")[0]


def _too_large(header: dict[str, Any]) -> dict[str, Any]:
    limit = f"{header['memory_mb']} MB of memory (CONVERT_MEMORY_MB)"
    return {"refused": f"cannot be read: its conversion needs more than {limit}", "empty": False}


def _documents(converter: Any, source: ByteStream) -> list[Any]:
    with _failures() as failures:
        documents: list[Any] = converter.run(sources=[source])["documents"]
    if failures and not any((document.content or "").strip() for document in documents):
        raise failures[0]
    return documents


@contextmanager
def _failures() -> Iterator[list[Exception]]:
    """Collect the exceptions that a converter only logs when it skips a file."""
    found: list[Exception] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = getattr(record, "error", None) or getattr(record, "exception", None)
            if isinstance(error, Exception):
                found.append(error)

    collector = Collector(logging.WARNING)
    logging.getLogger().addHandler(collector)
    try:
        yield found
    finally:
        logging.getLogger().removeHandler(collector)


def _explain(error: Exception, source: ByteStream) -> str:
    if any(word in type(error).__name__ for word in ("Password", "Decrypt", "Encrypt")):
        return _PASSWORD
    kind = _NAMES.get(source.mime_type or "", "")
    return f"cannot be read: the {kind} file is damaged or incomplete".replace("  ", " ")


def _check_archive(source: ByteStream, header: dict[str, Any]) -> None:
    """Refuse an Office file that unpacks to far more than it is, before anything unpacks it."""
    if not source.data.startswith(b"PK\x03\x04"):
        return
    with zipfile.ZipFile(io.BytesIO(source.data)) as archive:
        members = archive.infolist()
    size = sum(member.file_size for member in members if member.filename.endswith((".xml", ".rels")))
    if size * _XML_EXPANSION > header["memory_mb"] * _MEGABYTE:
        limit = f"{header['memory_mb']} MB of memory (CONVERT_MEMORY_MB)"
        raise SourceError(
            f"unpacks to {size // _MEGABYTE} MB, and its conversion would need more than {limit}"
        )


def _receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray(size)
    view = memoryview(received)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return bytes(received)


if __name__ == "__main__":
    serve(socket.socket(fileno=0))
    # At once: the service has gone, and tidying up would take a second.
    os._exit(0)
