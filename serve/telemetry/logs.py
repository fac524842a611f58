"""Logging: one form for every line, ours and the libraries', with the id of the request being worked on."""

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import urlsplit

import loguru
from pydantic import SecretStr

from serve.telemetry.binding import bound_request_id, current_request_id, request_of
from serve.telemetry.forms import ConsoleFormatter, JsonFormatter
from serve.telemetry.redaction import Redactor
from settings import LogFormat, Settings

logger = logging.getLogger("thresher.process")

# By name, as the jobs' modules take long to import.
_JOB_FAILED = "JobFailedError"
_REPEAT_SECONDS = 60.0


def log_as_set(settings: Settings) -> None:
    """
    Log as a service or a worker of these settings does.

    :param settings: have the level, the form, and secrets that no line may hold.
    """
    # Takes long to import, and a command that only asks a service makes no traces.
    from serve.tracing.context import current_trace_ids

    configure_logging(settings.log_level, settings.log_format, _secrets(settings), current_trace_ids)


def configure_logging(
    level: str,
    form: LogFormat = "console",
    secrets: Iterable[str] = (),
    trace_ids: Callable[[], tuple[str, str] | None] = lambda: None,
) -> None:
    """
    Send every library's log lines to standard error in one form.

    :param level: least severe level that is shown.
    :param form: how a line looks.
    :param secrets: what no line may hold, word for word.
    :param trace_ids: names the trace and the span that are worked on.
    """
    handler = _LineHandler(sys.stderr)
    handler.setFormatter(_formatter(form, Redactor(secrets)))
    handler.addFilter(partial(_remember_ids, trace_ids))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # These write a line for each request that they send or get, or each component that they run.
    for name in ("httpx", "httpcore", "chromadb", "haystack", "mcp"):
        logging.getLogger(name).setLevel(max(logging.getLevelName(level), logging.WARNING))
    # Warns of each reply cut at max_tokens, and a grade is one token long.
    logging.getLogger("haystack.components.generators.chat.openai").setLevel(logging.ERROR)
    loguru.logger.remove()
    loguru.logger.add(_LoguruForwarder(), level=level, format="{message}")
    # Hayhooks logs each run with its parameters, which are the user's question.
    loguru.logger.disable("hayhooks.server.utils.deploy_utils")
    # What could not be imported is logged by who loads it.
    loguru.logger.disable("hayhooks.server.utils.module_loader")
    logging.getLogger("uvicorn.error").addFilter(_is_news)


def logs_for_people(form: LogFormat) -> bool:
    """
    Say who reads the log.

    :param form: the setting.
    :returns: whether lines are for people, and so is what else is printed beside them.
    """
    return sys.stderr.isatty() if form == "auto" else form == "console"


def log_uncaught() -> None:
    """Log what nobody catches, and Python's warnings, in the form of all other lines; for a process of ours."""
    sys.excepthook = _uncaught
    threading.excepthook = lambda failed: _uncaught(
        failed.exc_type,
        failed.exc_value,
        failed.exc_traceback,
        f"thread {failed.thread and failed.thread.name}",
    )
    sys.unraisablehook = lambda failed: _uncaught(
        failed.exc_type, failed.exc_value, failed.exc_traceback, "a destructor"
    )
    warnings.showwarning = _log_warning


def give_back_loggers() -> None:
    """Undo what Hayhooks does to the loggers of uvicorn and FastAPI when it makes its application."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "fastapi"):
        taken_over = logging.getLogger(name)
        taken_over.handlers = []
        taken_over.propagate = True
        taken_over.setLevel(logging.NOTSET)


class _LineHandler(logging.StreamHandler[TextIO]):
    """Tells also in one line, and without its arguments, that a record can't be written."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            return  # nobody reads the log any more
        told = f"a line of {record.pathname}:{record.lineno} can't be written: {type(error).__name__}"
        substitute = logging.makeLogRecord({"name": record.name, "levelname": "ERROR", "msg": told})
        self.stream.write(self.format(substitute) + self.terminator)


def _formatter(form: LogFormat, redactor: Redactor) -> logging.Formatter:
    return ConsoleFormatter(redactor) if logs_for_people(form) else JsonFormatter(redactor)


def _remember_ids(trace_ids: Callable[[], tuple[str, str] | None], record: logging.LogRecord) -> bool:
    # When the record is made, not when it is written: a handler may write from another thread.
    ids: dict[str, str] = {}
    if request_id := current_request_id():
        ids["request_id"] = request_id
    if named := trace_ids():
        ids |= zip(("trace_id", "span_id"), named, strict=True)
    record.ids = ids
    return True


def _secrets(settings: Settings) -> Iterator[str]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            secret = value.get_secret_value()
            yield urlsplit(secret).password or "" if "://" in secret else secret


def _uncaught(
    kind: type[BaseException],
    error: BaseException | None,
    trace: TracebackType | None,
    place: str = "the main thread",
) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        sys.__excepthook__(kind, error or kind(), trace)
        return
    logger.error("nobody caught an error of %s", place, exc_info=(kind, error or kind(), trace))


def _log_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
) -> None:
    logger.warning("%s: %s (%s:%d)", category.__name__, message, filename, lineno)


class _LoguruForwarder:
    """
    Hands Loguru's records to `logging`.

    While the job store is away Hayhooks warns of each call that failed, a thousand times a second near the end of a
    lease. The store says that it is away; of these warnings one a minute is enough. A job that failed is told in one
    line by who ran it, so that Hayhooks' traceback of it is left out.
    """

    def __init__(self) -> None:
        self._shown: dict[str, float] = {}

    def __call__(self, message: "loguru.Message") -> None:
        record = message.record
        exception = record["exception"]
        if exception is not None and exception.type is not None and exception.type.__name__ == _JOB_FAILED:
            return
        if (record["name"] or "").startswith("hayhooks.durable") and record["level"].name == "WARNING":
            now = time.monotonic()
            if now - self._shown.get(record["message"], -_REPEAT_SECONDS) < _REPEAT_SECONDS:
                return
            self._shown[record["message"]] = now
        with bound_request_id(request_of(str(record["extra"].get("run_id"))) or current_request_id()):
            _forward(record)


def _forward(record: "loguru.Record") -> None:
    logger = logging.getLogger(record["name"] or "hayhooks")
    if not logger.isEnabledFor(record["level"].no):
        return
    message, error = record["message"], record["exception"] and record["exception"].value
    if error is not None and current_request_id() is None:
        # Whose it is can't be told, so neither can its message.
        message, error = f"{message}: {type(error).__name__}", None
    elif error is None and (why := record["extra"].get("error") or record["extra"].get("reason")):
        message = f"{message}: {why}"
    place = (record["file"].path, record["line"])
    told = None if error is None else (type(error), error, error.__traceback__)
    logger.handle(logger.makeRecord(logger.name, record["level"].no, *place, message, (), told))


def _is_news(record: logging.LogRecord) -> bool:
    # Who breaks an answer off has said why; uvicorn calls that an error of the application.
    return record.msg != "ASGI callable returned without completing response."
