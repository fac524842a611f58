"""Conversions that take too much, and what they may not touch."""

import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from haystack.dataclasses import ByteStream

from components.converting.errors import SourceError
from components.converting.kinds import KINDS
from components.converting.sandbox import SandboxedConverter
from components.pacing import paced_by
from tests.file_samples import docx_bomb, docx_file, pdf_file, pdf_of_streams

MISBEHAVING = "tests.components.converting.slow_converters.Misbehaving"
NEVER_READY = "tests.components.converting.slow_converters.NeverReady"
PDF = "haystack.components.converters.pdfminer.PDFMinerToDocument"
DOCX = "components.converting.office.OutlinedDOCXToDocument"


def sandboxed(
    kind: str = MISBEHAVING, timeout: float = 20, memory_mb: int = 256, max_chars: int = 100_000
) -> SandboxedConverter:
    """A converter in its sandbox."""
    return SandboxedConverter({"type": kind}, timeout, memory_mb, max_chars, ("tests.*",))


def text_of(converter: SandboxedConverter, data: bytes, kind: str = "text") -> str:
    """Convert a file."""
    source = ByteStream(data, {"document_id": "a"}, KINDS[kind].media_type)
    [document] = converter.run(sources=[source])["documents"]
    assert document.meta["document_id"] == "a"
    return document.content or ""


def refusal(converter: SandboxedConverter, data: bytes, kind: str = "text") -> str:
    """Give the reason why a file is not converted."""
    with pytest.raises(SourceError) as caught:
        text_of(converter, data, kind)
    return str(caught.value)


def gone(pid: int) -> bool:
    """Say whether a process ends within a few seconds."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        time.sleep(0.05)
    return False


def test_a_good_file_is_converted() -> None:
    """What comes out is what the converter gives, whichever way it is called."""
    assert text_of(sandboxed(PDF), pdf_file("Hello", "there"), "pdf").split() == ["Hello", "there"]
    assert text_of(sandboxed(DOCX), docx_file(("Heading 1", "Hello")), "docx") == "# Hello"
    source = ByteStream(b"x", {"document_id": "a", "from": "source"})
    assert sandboxed().run(sources=[source])["documents"][0].meta == {"document_id": "a", "from": "source"}


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("sleep", r"took more than 0\.5 s \(CONVERT_TIMEOUT\)"),
        ("spin", r"took more than 0\.5 s \(CONVERT_TIMEOUT\)"),
        ("eat", r"needs more than 256 MB of memory \(CONVERT_MEMORY_MB\)"),
        ("crash", "broke down"),
        ("write", "damaged"),
        ("skip", "cannot be read"),
        ("x" * 100_001, r"more than 100,000 characters \(CONVERT_MAX_CHARS\)"),
    ],
)
def test_a_conversion_that_takes_too_much_fails_alone(order: str, reason: str) -> None:
    """Time, memory, output, a crash: the file's own error says what it was, and the next file is converted."""
    timeout = 0.5 if order in ("sleep", "spin") else 20
    with pytest.raises(SourceError, match=reason):
        text_of(sandboxed(timeout=timeout), order.encode())
    assert text_of(sandboxed(), b"next") == "next"


def test_bombs_are_refused() -> None:
    """A few kilobytes that unpack to far more end neither the service nor its memory."""
    bomb = docx_bomb(80)
    assert len(bomb) < 1_000_000
    assert "unpacks to 80 MB" in refusal(sandboxed(DOCX), bomb, "docx")
    blanks, drawing = zlib.compress(b" " * (280 << 20), 1), zlib.compress(b"BT (a) Tj ET " * (1 << 20))
    assert "needs more than 256 MB" in refusal(sandboxed(PDF), pdf_of_streams([blanks]), "pdf")
    assert "took more than 1 s" in refusal(sandboxed(PDF, timeout=1), pdf_of_streams([drawing]), "pdf")


def test_no_secret_is_in_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that converts knows no environment variable but a few harmless ones."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert "OPENAI_API_KEY" not in text_of(sandboxed(), b"environment")


def test_each_file_has_a_process_of_its_own() -> None:
    """Nothing of one file is left when the next comes, but what is loaded is loaded once."""
    first, second = (text_of(sandboxed(), b"process").split() for _ in range(2))
    assert first[0] != second[0]
    assert first[1] == second[1]
    assert gone(int(first[0]))


def test_many_threads_convert_at_once() -> None:
    """Conversions of several jobs do not mix."""
    with ThreadPoolExecutor(8) as threads:
        orders = [f"text {number}".encode() for number in range(40)]
        assert list(threads.map(lambda order: text_of(sandboxed(), order), orders)) == [
            o.decode() for o in orders
        ]


def test_the_loaded_process_is_replaced_when_it_is_killed() -> None:
    """When the process that others are forked from dies, even in a conversion, a new one takes over."""
    parent = int(text_of(sandboxed(), b"process").split()[1])
    os.kill(parent, signal.SIGKILL)
    assert text_of(sandboxed(), b"after") == "after"
    parent = int(text_of(sandboxed(), b"process").split()[1])
    timer = threading.Timer(0.3, os.kill, (parent, signal.SIGKILL))
    timer.start()
    assert "took more than 1 s" in refusal(sandboxed(timeout=1), b"sleep")
    timer.join()


def test_a_converter_that_hangs_while_it_is_loaded_fails_its_files_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own files fail with a reason that names it; those of other converters wait no longer than that."""
    monkeypatch.setattr("components.converting.sandbox.LOADING_SECONDS", 1.0)
    with ThreadPoolExecutor(3) as threads:
        hanging = [threads.submit(refusal, sandboxed(NEVER_READY, timeout=1), b"x") for _ in range(2)]
        time.sleep(0.5)
        assert threads.submit(text_of, sandboxed(), b"next").result() == "next"
        for file in hanging:
            assert f"its converter, {NEVER_READY}, was not loaded within 2 s" in file.result()


def test_a_cancelled_job_ends_its_conversion() -> None:
    """An exception between two looks at a conversion ends the conversion at once."""

    class Impatient:
        def pause(self) -> None:
            raise InterruptedError("cancelled")

        def rows_at_once(self, default: int) -> int:
            return default

    begin = time.monotonic()
    with pytest.raises(InterruptedError), paced_by(Impatient()):
        text_of(sandboxed(), b"sleep")
    assert time.monotonic() - begin < 5


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends the child with its parent on Linux only")
def test_nothing_is_left_when_the_service_is_killed(tmp_path: Path) -> None:
    """When the service dies without a word, the processes of its sandbox end too, busy or not."""
    program = tmp_path / "service.py"
    program.write_text(
        "import threading, time\n"
        "from haystack.dataclasses import ByteStream\n"
        "from components.converting.sandbox import SandboxedConverter\n"
        f"converter = SandboxedConverter({{'type': '{MISBEHAVING}'}}, 60, 256, 1000, ('tests.*',))\n"
        "def convert(order):\n"
        "    return converter.run(sources=[ByteStream(order, {'document_id': 'a'})])['documents'][0].content\n"
        "print(convert(b'process'), flush=True)\n"
        "threading.Thread(target=convert, args=(b'spin',), daemon=True).start()\n"
        "time.sleep(60)\n"
    )
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, env=environment) as service:
        assert service.stdout is not None
        parent = int(service.stdout.readline().split()[1])
        children = Path(f"/proc/{parent}/task/{parent}/children")
        for _ in range(200):
            if busy := children.read_text().split():
                break
            time.sleep(0.05)
        service.kill()
    assert gone(parent)
    assert all(gone(int(pid)) for pid in busy)


@pytest.mark.parametrize(
    ("converter", "reason"),
    [
        ({"type": "haystack.components.converters.txt.Nope"}, "'Nope', which the module"),
        ({"type": "no.such.Converter"}, "module 'no.such', which can't be found"),
        ({"type": PDF, "parameters": {}}, "unknown key 'parameters'"),
        ("PDFMinerToDocument", "must have a 'type'"),
    ],
)
def test_a_wrong_name_is_found_before_anything_runs(converter: object, reason: str) -> None:
    """A converter that is not there is a fault of the pipeline file."""
    with pytest.raises(ValueError, match=reason):
        SandboxedConverter(converter, 1, 256, 1000)  # type: ignore[arg-type]


def test_modules_that_are_not_trusted_are_not_loaded() -> None:
    """The converter in a sandbox may come from the same modules as any component."""
    converter = SandboxedConverter({"type": MISBEHAVING}, 10, 256, 1000)
    assert "can't be loaded: Refusing to deserialize" in refusal(converter, b"x")
