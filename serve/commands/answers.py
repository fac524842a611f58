"""The answers to a file of questions, in a file that grows while they are answered."""

import fcntl
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from serve.commands.json_lines import canonical, json_text, json_value
from serve.commands.questions import AskedQuestion, QuestionFileError, check_kind
from serve.commands.replies import Json

_BEGINNING = b'{"id": '


@dataclass(frozen=True)
class _Finished:
    """A line with a result."""

    line: bytes
    id: str | None
    question: str


class AnswerFile:
    """
    The answers to a file of questions, one JSON object a line, written as they come.

    What stands in it already is not asked again. A problem is: it goes when the file is opened anew. One command at a
    time has the file.

    Usage example:
    ```python
    with AnswerFile(Path("answers.jsonl"), questions) as answers:
        for question in answers.open_questions:
            answers.add(question, {"result": ask(question.body)})
    ```
    """

    def __init__(self, path: Path, questions: list[AskedQuestion]) -> None:
        """
        Name the file; nothing is opened yet.

        :param path: the file; it need not be there.
        :param questions: the questions.
        """
        self.path = path
        self.open_questions: list[AskedQuestion] = []
        """Those that have no answer yet, once the file is open."""
        self._questions = questions
        # The file that a link leads to is replaced, not the link.
        self._place = Path(os.path.realpath(path))

    def __enter__(self) -> Self:
        """
        Take the file, read what is there, and begin to write behind the answers.

        :raises QuestionFileError: if another command has the file, if it holds something else, or the answer to
            another question of the same id, or if it can't be written.
        """
        try:
            self._file = self._opened()
            try:
                self._begin()
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise self._not_written(error) from None
        return self

    def __exit__(self, *_: object) -> None:
        """Give the file back; one that this command made and wrote nothing to goes again."""
        with suppress(OSError):
            if self._made and not os.fstat(self._file.fileno()).st_size:
                self._place.unlink()
        # What could not be written was told of by then.
        with suppress(OSError):
            self._file.close()

    def add(self, question: AskedQuestion, outcome: Json) -> None:
        """
        Write what became of a question; from then on no crash loses it.

        :param question: the question.
        :param outcome: its `result`, or the `problem`.
        :raises QuestionFileError: if it can't be written.
        """
        answer = {"id": question.id, "line": question.line, "question": question.body, **outcome}
        try:
            _write(self._file, f"{json_text(answer)}\n".encode())
        except OSError as error:
            raise self._not_written(error) from None

    def _opened(self) -> BinaryIO:
        """Open the file, made when it is not there, and keep other commands from it."""
        check_kind(self.path)
        while True:
            self._made = not self._place.exists()
            file = self._place.open("a+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Who had the file until now may have put another one in its place, or removed it.
                if self._place.exists() and os.path.samestat(os.fstat(file.fileno()), self._place.stat()):
                    return file
            except BlockingIOError:
                file.close()
                raise QuestionFileError(
                    f"another command writes to {self.path}: wait until it has ended, or name another file with --out"
                ) from None
            except BaseException:
                file.close()
                raise
            file.close()

    def _begin(self) -> None:
        self._file.seek(0)
        there = self._file.read()
        finished = list(self._finished(there))
        self.open_questions = self._open_ones(finished)
        kept = b"".join(answer.line + b"\n" for answer in finished)
        if kept != there:
            self._replace(kept)

    def _replace(self, content: bytes) -> None:
        """Put another file in place of this one in one step, so that a command that is killed here loses nothing."""
        number, name = tempfile.mkstemp(prefix=".thresher-", dir=self._place.parent)
        file = os.fdopen(number, "ab")
        try:
            # Before others can open it.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.copymode(self._place, name)
            _write(file, content)
            os.replace(name, self._place)
        except BaseException:
            os.unlink(name)
            with suppress(OSError):
                file.close()
            raise
        self._file.close()
        self._file = file

    def _finished(self, content: bytes) -> Iterator[_Finished]:
        lines = content.split(b"\n")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                answer = json_value(line)
                if not isinstance(answer["line"], int) or not isinstance(answer["question"], dict):
                    raise TypeError
                if "result" in answer:
                    name = answer.get("id")
                    yield _Finished(
                        line, None if name is None else canonical(name), canonical(answer["question"])
                    )
            except (ValueError, TypeError, KeyError):
                # What a killed command left half written has no end.
                if number < len(lines) or not (line.startswith(_BEGINNING) or _BEGINNING.startswith(line)):
                    raise QuestionFileError(
                        f"{self.path}:{number} is no answer of this command; name another file with --out"
                    ) from None

    def _open_ones(self, finished: list[_Finished]) -> list[AskedQuestion]:
        by_id = {answer.id: answer for answer in finished if answer.id is not None}
        without_id = Counter(answer.question for answer in finished if answer.id is None)
        left = []
        for question in self._questions:
            if question.id is None:
                without_id[question.content] -= 1
                left += [question] if without_id[question.content] < 0 else []
            elif (answer := by_id.get(canonical(question.id))) is None:
                left.append(question)
            elif answer.question != question.content:
                raise QuestionFileError(
                    f"{self.path} holds under the id {question.id!r} the answer to another question, or to the same"
                    " one asked otherwise; name another file with --out"
                )
        return left

    def _not_written(self, error: OSError) -> QuestionFileError:
        return QuestionFileError(f"{self.path} can't be written: {error.strerror}")


def _write(file: BinaryIO, content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
