"""Questions in a file and their answers in another one, which grows while they are answered."""

import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from components.storing import InvalidTenantError
from serve.bodies import request_error
from serve.commands.replies import Json
from serve.errors import describe
from serve.schemas import BatchQuestion

_NAMED_LINES = 10
# A pipe may have no end.
_MAX_LINES = 1_000_000
# Twice the largest request that the service takes as it comes: a question is far smaller, and an answer too.
_MAX_LINE_BYTES = 64 * 1024 * 1024
_BEGINNING = b'{"id": '


class QuestionFileError(RuntimeError):
    """A file of questions or of answers can't be used."""


@dataclass(frozen=True)
class AskedQuestion:
    """A question of a file."""

    line: int
    id: str | int | None
    body: Json
    """What is sent."""

    @property
    def content(self) -> str:
        """:returns: What is sent, as JSON that is the same for the same."""
        return _text(self.body)


def read_questions(path: Path, defaults: Json) -> list[AskedQuestion]:
    """
    Read questions, one JSON object a line.

    :param path: the file, or a pipe.
    :param defaults: what holds for each question that does not say otherwise.
    :returns: the questions.
    :raises QuestionFileError: if the file can't be read or lines of it are no questions; names each of these.
    """
    questions: list[AskedQuestion] = []
    faults: list[str] = []
    first_lines: dict[str, int] = {}
    for number, line, _ in lines_of(path, piped=True):
        if number > _MAX_LINES:
            raise QuestionFileError(f"{path} has more than {_MAX_LINES:,} lines; ask them in parts")
        try:
            question = _question(number, line, defaults)
            if question.id is not None:
                first = first_lines.setdefault(_text(question.id), number)
                if first != number:
                    raise ValueError(f"has the id {question.id!r} of line {first}")
            questions.append(question)
        except ValueError as error:
            faults.append(f"{path}:{number}: {error}")
    if faults:
        more = [f"and {len(faults) - _NAMED_LINES} more"] if len(faults) > _NAMED_LINES else []
        raise QuestionFileError("nothing was asked, for\n" + "\n".join(faults[:_NAMED_LINES] + more))
    if not questions:
        raise QuestionFileError(f"{path} holds no question")
    return questions


def check_kind(path: Path, piped: bool = False) -> None:
    """
    Check what a path leads to, without opening it: a device may have no end, and a pipe nobody at its other one.

    :param path: the file; it need not be there.
    :param piped: whether it may be a pipe.
    :raises QuestionFileError: if it is something else.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise QuestionFileError(f"{path} can't be read: {error.strerror}") from None
    if not stat.S_ISREG(mode) and not (piped and stat.S_ISFIFO(mode)):
        kinds = "neither a file nor a pipe" if piped else "no regular file"
        raise QuestionFileError(f"{path} is {kinds}; name a file")


def lines_of(path: Path, piped: bool = False) -> Iterator[tuple[int, bytes, bool]]:
    """
    Read the lines that are not blank, of which no more is held than one.

    :param path: the file.
    :param piped: whether it may be a pipe.
    :returns: the number of each, the line itself, and whether a line feed ends it.
    :raises QuestionFileError: if the file can't be read, is of another kind, or has a line beyond all measure.
    """
    check_kind(path, piped)
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > _MAX_LINE_BYTES:
                    raise QuestionFileError(f"{path}:{number} is longer than {_MAX_LINE_BYTES:,} bytes")
                if line.strip():
                    yield number, line.removesuffix(b"\n"), line.endswith(b"\n")
    except OSError as error:
        raise QuestionFileError(f"{path} can't be read: {error.strerror}") from None


class AnswerFile:
    """
    The answers to a file of questions, one JSON object a line, written as they come.

    What stands in it already is not asked again. A problem is: it goes when the file is opened anew.

    Usage example:
    ```python
    with AnswerFile(Path("answers.jsonl"), questions) as answers:
        for question in answers.open_questions:
            answers.add(question, {"result": ask(question.body)})
    ```
    """

    def __init__(self, path: Path, questions: list[AskedQuestion]) -> None:
        """
        Read what is there.

        :param path: the file; it need not be there.
        :param questions: the questions.
        :raises QuestionFileError: if the file holds something else, or the answer to another question of the same id.
        """
        self.path = path
        self._finished = [answer for answer in self._read() if "result" in answer]
        self.open_questions = self._open_ones(questions)

    def __enter__(self) -> Self:
        """Begin to write, behind the answers that are there."""
        partial = self.path.with_name(f"{self.path.name}.partial")
        try:
            # In one step, so that a command that is killed here loses nothing.
            with partial.open("w", encoding="utf-8") as kept:
                kept.writelines(f"{_line(answer)}\n" for answer in self._finished)
                kept.flush()
                os.fsync(kept.fileno())
            partial.replace(self.path)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise QuestionFileError(f"{self.path} can't be written: {error.strerror}") from None
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def add(self, question: AskedQuestion, outcome: Json) -> None:
        """
        Write what became of a question; from then on no crash loses it.

        :param question: the question.
        :param outcome: its `result`, or the `problem`.
        """
        answer = {"id": question.id, "line": question.line, "question": question.body, **outcome}
        self._file.write(f"{_line(answer)}\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> Iterator[Json]:
        if not self.path.exists():
            return
        for number, line, ended in lines_of(self.path):
            try:
                answer = json.loads(line)
                if not isinstance(answer["line"], int) or not isinstance(answer["question"], dict):
                    raise TypeError
                yield {"id": None, **answer}
            except (ValueError, TypeError, KeyError):
                # What a killed command left half written has no end.
                if ended or not (line.startswith(_BEGINNING) or _BEGINNING.startswith(line)):
                    raise QuestionFileError(
                        f"{self.path}:{number} is no answer of this command; name another file with --out"
                    ) from None

    def _open_ones(self, questions: list[AskedQuestion]) -> list[AskedQuestion]:
        by_id = {_text(answer["id"]): answer for answer in self._finished if answer["id"] is not None}
        without_id = Counter(_text(answer["question"]) for answer in self._finished if answer["id"] is None)
        left = []
        for question in questions:
            if question.id is None:
                without_id[question.content] -= 1
                left += [question] if without_id[question.content] < 0 else []
            elif (answer := by_id.get(_text(question.id))) is None:
                left.append(question)
            elif _text(answer["question"]) != question.content:
                raise QuestionFileError(
                    f"{self.path} holds under the id {question.id!r} the answer to another question, or to the same"
                    " one asked otherwise; name another file with --out"
                )
        return left


def _question(number: int, line: bytes, defaults: Json) -> AskedQuestion:
    try:
        given = json.loads(line.decode("utf-8-sig"), parse_constant=_no_number)
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"is not valid JSON: {error}") from None
    if not isinstance(given, dict):
        raise ValueError("is no JSON object with the question as 'q'")
    body = {**defaults, **given}
    try:
        question = BatchQuestion.model_validate(body)
    except ValidationError as error:
        raise ValueError(describe(request_error(error, "body", BatchQuestion))[2]) from None
    except InvalidTenantError as error:
        raise ValueError(str(error)) from None
    if question.q is None:
        raise ValueError("q: is missing")
    sent = {name: value for name, value in body.items() if name != "id" and value is not None}
    return AskedQuestion(number, question.id, sent)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _line(answer: Json) -> str:
    return json.dumps(answer, ensure_ascii=False)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
