"""Questions in a file."""

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from components.storing import InvalidTenantError
from serve.bodies import request_error
from serve.commands.json_lines import canonical
from serve.commands.replies import Json
from serve.errors import describe
from serve.schemas import BatchQuestion

_NAMED_LINES = 10
# A pipe may have no end.
_MAX_LINES = 1_000_000
# Twice the largest request that the service takes as it comes: a question is far smaller, and an answer too.
_MAX_LINE_BYTES = 64 * 1024 * 1024


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
        return canonical(self.body)

    def for_tenant(self, tenant_id: str | None) -> str:
        """
        Give what is sent to a service that has to hear a tenant.

        :param tenant_id: whom to ask for unless the question says it; None leaves that to the service.
        :returns: the content, with a tenant where one is given.
        """
        if tenant_id is None or "tenant_id" in self.body:
            return self.content
        return canonical({**self.body, "tenant_id": tenant_id})


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
                first = first_lines.setdefault(canonical(question.id), number)
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


def _question(number: int, line: bytes, defaults: Json) -> AskedQuestion:
    try:
        text = line.decode("utf-8-sig")
        given = json.loads(text, parse_constant=_no_number)
        # The service's own reader refuses more: lone surrogates, and lists in lists too deep.
        from_json(text)
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"is not valid JSON: {error}") from None
    except RecursionError:
        raise ValueError("is not valid JSON: it is nested too deep") from None
    if not isinstance(given, dict):
        raise ValueError("is no JSON object with the question as 'q'")
    if isinstance(given.get("id"), bool | float):
        raise ValueError("id: must be a text or a whole number")
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
