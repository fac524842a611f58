"""What `thresher ask --file` takes for a file of questions or of answers, before it asks anything."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.commands.questions import QuestionFileError, lines_of, read_questions
from tests.serve.test_cli import invoke


@pytest.fixture
def no_end() -> Iterator[int]:
    """A pipe that nobody will write to any more: what reads it meets its end, and does not wait."""
    reading, writing = os.pipe()
    os.close(writing)
    yield reading
    os.close(reading)


def test_answers_go_to_a_file_and_nowhere_else(tmp_path: Path, no_end: int) -> None:
    """A device, a pipe or a folder is refused before anything is read: it may have no end."""
    for place, part in ((f"/dev/fd/{no_end}", "is no regular file; name a file"), ("-", "name a file")):
        run = invoke("ask", "--file", "no-such.jsonl", "--out", place, folder=tmp_path)
        assert run.exit_code != 0
        assert part in " ".join(run.stderr.replace("│", " ").split())
    with pytest.raises(QuestionFileError, match="is no regular file; name a file"):
        list(lines_of(tmp_path))


def test_questions_come_from_a_pipe(tmp_path: Path) -> None:
    """Questions can come from another program."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(b'\xef\xbb\xbf{"q": "First?"}\n\n{"q": "Last?"}')
    questions = read_questions(Path(f"/dev/fd/{reading}"), {})
    os.close(reading)
    assert [(question.line, question.body["q"]) for question in questions] == [(1, "First?"), (3, "Last?")]


def test_a_dash_is_the_standard_input(tmp_path: Path) -> None:
    """`--file -` reads what another program writes, and names the lines of it."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(b"What?\n")
    usual = os.dup(0)
    try:
        os.dup2(reading, 0)
        run = invoke("ask", "--file", "-", "--out", str(tmp_path / "answers.jsonl"), folder=tmp_path)
    finally:
        os.dup2(usual, 0)
        os.close(usual)
        os.close(reading)
    assert "/dev/stdin:1: is not valid JSON" in run.stderr


def test_a_device_holds_no_questions() -> None:
    """No device is read as questions: another than this one may have no end."""
    with pytest.raises(QuestionFileError, match="/dev/null is neither a file nor a pipe"):
        read_questions(Path("/dev/null"), {})


def test_a_line_beyond_all_measure_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is held than the longest line there may be, nor more than the most lines."""
    path = tmp_path / "questions.jsonl"
    path.write_text('{"q": "x"}\n' * 3)
    monkeypatch.setattr("serve.commands.questions._MAX_LINE_BYTES", 11)
    assert len(read_questions(path, {})) == 3
    monkeypatch.setattr("serve.commands.questions._MAX_LINE_BYTES", 10)
    with pytest.raises(QuestionFileError, match=f"{path}:1 is longer than 10 bytes"):
        read_questions(path, {})
    monkeypatch.undo()
    monkeypatch.setattr("serve.commands.questions._MAX_LINES", 2)
    with pytest.raises(QuestionFileError, match="more than 2 lines"):
        read_questions(path, {})


def test_a_file_that_is_no_text_is_said_to_be_none(tmp_path: Path) -> None:
    """A line that is not UTF-8 is named so, in words that need no knowledge of codecs."""
    path = tmp_path / "questions.jsonl"
    path.write_bytes(b'{"q": "x"}\n\x89PNG\xff\x00\n{"q": "Z\xfcrich?"}\n')
    with pytest.raises(QuestionFileError) as caught:
        read_questions(path, {})
    assert str(caught.value).splitlines()[1:] == [f"{path}:2: is not UTF-8", f"{path}:3: is not UTF-8"]
