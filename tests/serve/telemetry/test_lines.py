"""The form of log lines: one line a record, without secrets, and without what libraries quote."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import loguru
import pytest
from pydantic import BaseModel, ValidationError

from components.models.errors import ModelRequestError
from components.structuring import StructuredAnswerError
from serve.telemetry import bound_request_id, configure_logging
from serve.telemetry.redaction import Redactor
from settings import LogFormat
from tests.cluster import ROOT

NASTY = 'a\nb\r{"level": "ERROR"}\x1b[2J\u2028c\u202ed\x00\x85 %0a \ud800 ä湖'
KEY = "thr_" + "Ab3-_" * 9


class Number(BaseModel):
    number: int


@contextmanager
def logged(form: LogFormat = "json", level: str = "INFO", **more: Any) -> Iterator[Callable[[], str]]:
    """Log to a text meanwhile."""
    root, shown = logging.getLogger(), io.StringIO()
    handlers, before = root.handlers, root.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", shown)
        configure_logging(level, form, **more)
    try:
        yield shown.getvalue
    finally:
        root.handlers = handlers
        root.setLevel(before)


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_record_is_one_line_whatever_it_holds(form: LogFormat) -> None:
    """No message, field or exception begins another line, moves a cursor or turns text round."""
    with logged(form) as text:
        try:
            raise ValueError(NASTY)
        except ValueError:
            logging.getLogger("x").exception(NASTY, extra={"fields": {"route": NASTY}})
    assert text().count("\n") == 1
    assert len(text().splitlines()) == 1
    assert not set(text().rstrip("\n")) & set("\r\x00\x1b\x85\u2028\u202e\ud800")


def test_json_gives_a_message_back_as_it_was() -> None:
    """What is escaped in a line is the same when it is read."""
    with logged() as text:
        logging.getLogger("x").info("%s", NASTY)
    line = json.loads(text())
    assert line["message"] == NASTY
    assert (line["level"], line["logger"]) == ("INFO", "x")
    assert line["time"].endswith("Z")


@pytest.mark.parametrize(
    ("told", "secret"),
    [
        (f"key {KEY}", KEY),
        ("Authorization: Bearer abc.def-123", "abc.def-123"),
        ("{'authorization': 'Basic dXNlcjpwYXNz'}", "dXNlcjpwYXNz"),
        ('"x-api-key": "hunter22"', "hunter22"),
        ("redis://user:hunter22@cache:6379/0", "hunter22"),
        ("redis://:hunter22@cache:6379/0", "hunter22"),
        ("password=hunter22 host=x", "hunter22"),
        ("api_key: 'hunter22'", "hunter22"),
        ("calls with sk-proj-abcdefghijklmnop", "abcdefghijklmnop"),
        ("it says opensesame1 as such", "opensesame1"),
    ],
)
def test_secrets_are_hidden(told: str, secret: str) -> None:
    """What has the form of a secret, or is one of the settings, is in no part of a line."""
    with logged("json", secrets=["opensesame1"]) as text:
        logging.getLogger("x").info("before %s after", told)
        try:
            raise RuntimeError(told)
        except RuntimeError:
            logging.getLogger("x").exception("failed")
    assert secret not in text()
    assert "before" in text()
    assert "after" in text()
    assert "[hidden]" in text()


@pytest.mark.parametrize("told", ["Bearer of bad news", "12 tokens", "http://127.0.0.1:8000/docs", "keys: 3"])
def test_plain_words_are_not_hidden(told: str) -> None:
    """The net for secrets leaves other words alone."""
    with logged() as text:
        logging.getLogger("x").info("%s", told)
    assert json.loads(text())["message"] == told


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "part",
    [
        "a.",
        "a",
        "a:",
        "://",
        "://a",
        "http://a:",
        "sk-",
        "thr_",
        "bearer ",
        "bearer a",
        "secret",
        "secret = ",
        "key=",
        " ",
    ],
)
def test_a_long_line_is_looked_through_in_one_go(part: str) -> None:
    """Half a megabyte that almost looks like a secret takes no time that grows with its square: hours."""
    Redactor(["opensesame1"]).clean(f"secret {part * (500_000 // len(part))}!")


def fail(kind: str) -> None:
    match kind:
        case "library":
            raise ZeroDivisionError("canary")
        case "pydantic":
            Number(number="canary")  # type: ignore[arg-type]
        case "upstream":
            try:
                fail("library")
            except ZeroDivisionError as error:
                raise ModelRequestError("the server answered 400: canary", told="it failed") from error
        case "reply":
            raise StructuredAnswerError(["'canary' is not of type 'number'"])


@pytest.mark.parametrize("kind", ["library", "pydantic", "upstream", "reply"])
def test_what_others_say_is_told_outside_of_requests_and_for_debugging_only(kind: str) -> None:
    """While a request is worked on, an exception is told by its type and place, without words that may be quoted."""

    def told(level: str, request_id: str | None) -> str:
        with logged(level=level) as text, bound_request_id(request_id):
            try:
                fail(kind)
            except (ZeroDivisionError, ValidationError, ModelRequestError, StructuredAnswerError):
                logging.getLogger("x").exception("failed")
        return json.loads(text())["exception"]

    quiet = told("INFO", "abc")
    assert "canary" not in quiet
    assert "tests/serve/telemetry/test_lines.py:" in quiet
    assert "Error" in quiet
    assert "canary" in told("INFO", None)
    assert "canary" in told("DEBUG", "abc")


def test_a_record_that_cannot_be_written_is_told_in_one_line() -> None:
    """A fault of a logging call costs neither the caller nor the form, and shows none of the arguments."""
    with logged() as text:
        logging.getLogger("x").info("%d of %d", "canary")
    line = json.loads(text())
    assert "can't be written: TypeError" in line["message"]
    assert "canary" not in text()


def test_what_nobody_catches_is_logged_like_the_rest() -> None:
    """Errors of the main thread, of others and of destructors, and Python's warnings, are lines as all others."""
    program = (
        "import threading, warnings\n"
        "from serve.telemetry import configure_logging, log_uncaught\n"
        "configure_logging('INFO', 'json'); log_uncaught()\n"
        "warnings.warn('beware\\nof this')\n"
        "thread = threading.Thread(target=lambda: 1 / 0, name='mine'); thread.start(); thread.join()\n"
        "class Bad:\n    def __del__(self): raise KeyError('x')\n"
        "Bad()\n"
        "raise RuntimeError('at\\nlast')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    warning, thread, destructor, main = (json.loads(line) for line in ended.stderr.splitlines())
    assert warning["message"].startswith("UserWarning: beware\nof this")
    assert thread["message"] == "nobody caught an error of thread mine"
    assert thread["exception"].endswith("; ZeroDivisionError: division by zero")
    assert destructor["exception"].endswith("KeyError: 'x'")
    assert main["exception"].endswith("; RuntimeError: at\nlast")
    assert ended.returncode == 1


def test_what_hayhooks_says_of_a_job_has_the_id_of_its_request() -> None:
    """Also when the work has been left; of work that nobody here knows, an exception is named by its type only."""
    with bound_request_id("abc", "run-1"):
        pass
    with logged() as text:
        engine = loguru.logger.patch(lambda record: record.update(name="hayhooks.durable.runtime"))
        for run in ("run-1", "run-2"):
            engine.bind(run_id=run).opt(exception=ValueError("canary")).error("Durable execution failed")
    known, unknown = (json.loads(line) for line in text().splitlines())
    loguru.logger.remove()
    assert (known["request_id"], known["exception"]) == ("abc", "Traceback: nowhere; ValueError")
    assert unknown["message"] == "Durable execution failed: ValueError"
    assert "request_id" not in unknown


def test_an_error_that_no_task_was_asked_for_is_told_without_words() -> None:
    """What asyncio finds lost may be anybody's."""
    with logged() as text:
        logging.getLogger("asyncio").error(
            "Task exception was never retrieved", exc_info=ValueError("canary")
        )
    assert json.loads(text())["exception"].endswith("; ValueError")
