"""What documents may hold, and how it comes to a terminal and to other programs."""

import io
import json

import httpx
import pytest

from modes.results import QueryResult
from serve.commands.display import show_result, watch
from serve.commands.json_lines import json_text
from serve.commands.replies import ServiceError, answer_in, events_in
from serve.commands.terminal import TextConsole, print_json

LINE_ENDS = "one\u2028two\u2029three\x85four\x1cfive"
COMMANDS = "\x1b]0;owned\x07\x1b[2J\x9b31mred\x08\udc9b"


def streamed(*pieces: bytes) -> httpx.Response:
    """A response whose body comes in these pieces."""
    return httpx.Response(200, content=iter(pieces))


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_texts_of_documents_do_not_part_events(end: bytes) -> None:
    """Only line feeds part the lines of a stream, wherever the pieces end that it comes in."""
    token = json.dumps({"text": LINE_ENDS}, ensure_ascii=False).encode()
    stream = end.join(
        [b"event: token", b"data: " + token, b"", b"event: result", b'data: {"answer": "x"}', b"", b""]
    )
    events = [("token", {"text": LINE_ENDS}), ("result", {"answer": "x"})]
    assert list(events_in(streamed(stream))) == events
    assert list(events_in(streamed(*(stream[at : at + 1] for at in range(len(stream)))))) == events


@pytest.mark.parametrize(
    "stream", [b"", b'event: token\ndata: {"te', b'event: result\ndata: {"answer": "x"}']
)
def test_an_answer_that_ends_too_early_is_said_to(stream: bytes) -> None:
    """A stream that ends in the middle of an event, whose last line may look whole, is a broken answer."""
    with pytest.raises(ServiceError, match="broke off before its end"):
        list(events_in(streamed(stream)))


@pytest.mark.parametrize("content", [b"<html>Log in</html>", b"[1", b"7", b"[" * 100_000])
def test_another_program_that_answers_is_told_from_the_service(content: bytes) -> None:
    """A reply that is no JSON object is named as what it is."""
    with pytest.raises(ServiceError, match="not this service"):
        answer_in(httpx.Response(200, content=content))
    with pytest.raises(ServiceError, match="Bad Gateway"):
        answer_in(httpx.Response(502, content=content))


def test_no_command_of_a_document_reaches_the_terminal() -> None:
    """What is written meanwhile, the answer and its quotes hold nothing that a terminal obeys."""
    console = TextConsole(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    citation = {"index": 1, "document_id": COMMANDS, "chunk_id": "c", "quote": COMMANDS, "start": 0, "end": 1}
    answer = {"mode": "standard", "answer": f"{COMMANDS} is it [1]", "citations": [citation]}
    result = watch(console, [("token", {"text": COMMANDS}), ("result", {"mode": "standard", "answer": "x"})])
    assert result.answer == "x"
    console.print(f"could not read {COMMANDS}", markup=False)
    show_result(console, QueryResult.model_validate(answer))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "red is it" in shown
    assert not {"\x07", "\x08", "\x9b", "\udc9b"} & set(shown)
    assert "\x1b]" not in shown
    assert "\x1b[2J" not in shown


def test_json_is_one_line_for_every_program(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON that a command writes has no line end inside, nothing that a terminal obeys, and means the same."""
    value = {"text": LINE_ENDS + COMMANDS, "other": "Zürich"}
    written = json_text(value)
    assert written.splitlines() == [written]
    assert "\x9b" not in written
    assert "Zürich" in written
    assert json.loads(written.encode()) == value
    print_json(value)
    assert json.loads(capsys.readouterr().out) == value
