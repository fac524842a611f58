"""The file that answers are written to: one command at a time has it, and it stays what it was."""

import asyncio
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from serve.commands.answers import AnswerFile
from serve.commands.asking import Asking
from serve.commands.client import Client
from serve.commands.questions import AskedQuestion, QuestionFileError, read_questions
from settings import Settings
from tests.serve.test_client import service

RESULT = {"result": {"answer": "yes"}}


def asked(folder: Path, *numbers: int) -> list[AskedQuestion]:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps({"id": str(number), "q": f"q{number}"}) + "\n" for number in numbers))
    return read_questions(path, {})


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_one_command_at_a_time_writes_answers(tmp_path: Path) -> None:
    """A second command on the same file is refused, also by another name and when the file was replaced."""
    place, link = tmp_path / "answers.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(place)
    questions = asked(tmp_path, 1, 2)
    with AnswerFile(place, questions) as answers:
        answers.add(questions[0], {"problem": {"detail": "busy"}})
    # The problem goes, so the file is another one from here on.
    with AnswerFile(place, questions) as answers:
        answers.add(questions[0], RESULT)
        for name in (place, link):
            with (
                pytest.raises(QuestionFileError, match="another command writes to"),
                AnswerFile(name, questions),
            ):
                pass
        answers.add(questions[1], RESULT)
    assert ids(place) == ["1", "2"]
    with AnswerFile(link, questions) as answers:
        assert answers.open_questions == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "answers.jsonl",
        "link.jsonl",
        "questions.jsonl",
    ]


def test_a_link_stays_and_so_do_permissions(tmp_path: Path) -> None:
    """Answers go to the file that a link leads to, which nobody else may read afterwards than before."""
    real, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(real)
    questions = asked(tmp_path, 1, 2)
    with AnswerFile(link, questions) as answers:
        answers.add(questions[0], RESULT)
        answers.add(questions[1], {"problem": {}})
    real.chmod(0o600)
    with AnswerFile(link, questions) as answers:
        assert [question.id for question in answers.open_questions] == ["2"]
    assert link.is_symlink()
    assert ids(real) == ["1"]
    assert real.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("depth", [300, 100_000])
def test_lists_in_lists_without_end_are_no_question(tmp_path: Path, depth: int) -> None:
    """A line that is nested deeper than the service reads is named, in both files."""
    path = tmp_path / "deep.jsonl"
    path.write_text('{"q": "x"}\n' + '{"q": "x", "filters": {"a": ' + "[" * depth + "]" * depth + "}}\n")
    with pytest.raises(QuestionFileError, match=f"{path}:2: is not valid JSON"):
        read_questions(path, {})
    path.write_text("[" * depth + "\n")
    with pytest.raises(QuestionFileError, match="1 is no answer"), AnswerFile(path, asked(tmp_path, 1)):
        pass


@pytest.mark.parametrize("name", ["true", "1.0", "1.5", "[1]", '"\\ud800"'])
def test_an_id_is_a_text_or_a_whole_number(tmp_path: Path, name: str) -> None:
    """An id that would come back as another one is refused."""
    path = tmp_path / "questions.jsonl"
    path.write_text(f'{{"q": "x", "id": {name}}}\n')
    with pytest.raises(QuestionFileError, match=f"{path}:1: "):
        read_questions(path, {})


def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    """An answer that can't be written ends the command with the reason."""
    questions = asked(tmp_path, 1)
    with AnswerFile(tmp_path / "answers.jsonl", questions) as answers:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, answers._file.fileno())
        os.close(full)
        with pytest.raises(QuestionFileError, match="can't be written: No space left"):
            answers.add(questions[0], RESULT)


def test_answers_go_to_a_regular_file(tmp_path: Path) -> None:
    """A folder or a device, which may have no end, is refused before it is read."""
    for place in (tmp_path, Path("/dev/full")):
        with pytest.raises(QuestionFileError, match="is no regular file"), AnswerFile(place, []):
            pass


def test_a_command_that_asks_nothing_leaves_no_file(tmp_path: Path) -> None:
    """A file that was made for answers goes when there are none; one that was there stays."""
    place = tmp_path / "answers.jsonl"
    for there in (False, True):
        with pytest.raises(KeyError), AnswerFile(place, asked(tmp_path, 1)):
            raise KeyError
        assert place.exists() is there
        place.touch()


def test_a_service_that_asks_to_come_again_is_asked_again(tmp_path: Path) -> None:
    """A refusal that names a time to wait passes, whatever its kind; a reply that is none becomes a problem."""
    busy = (429, {"detail": "too many"})
    replies = iter([busy, busy, (200, {"answer": "yes"}), (200, ["no", "answer"])])
    questions, place = asked(tmp_path, 1, 2), tmp_path / "answers.jsonl"
    settings = Settings.load(data_dir=tmp_path / "data", batch_concurrency=1)
    with (
        service(tmp_path, lambda _: next(replies)) as sent,  # type: ignore[arg-type, return-value]
        Client(settings) as client,
        AnswerFile(place, questions) as answers,
    ):
        asyncio.run(Asking(client, answers, lambda _: None, Counter()).ask())
    assert len(sent) == 4
    first, second = (json.loads(line) for line in place.read_text().splitlines())
    assert first["result"] == {"answer": "yes"}
    assert "not this service" in second["problem"]["detail"]
