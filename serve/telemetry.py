"""Logging: one form for every line, ours and the libraries', with the id of the request being worked on."""

import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import loguru

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
# By name, as the jobs' modules take long to import.
_JOB_FAILED = "JobFailedError"
_REPEAT_SECONDS = 60.0
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@contextmanager
def bound_request_id(request_id: str | None) -> Iterator[None]:
    """
    Put a request's id on every line logged inside the `with` block.

    :param request_id: the id; None for none.
    """
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


def current_request_id() -> str | None:
    """:returns: The id of the request that is worked on; None outside of one."""
    return _request_id.get()


class RequestIDFormatter(logging.Formatter):
    """`time level logger - message rid=…`; control characters in a message are shown escaped."""

    def __init__(self) -> None:
        """Set the form."""
        super().__init__("%(asctime)s %(levelname)-8s %(name)s - %(message)s", "%Y-%m-%dT%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """
        Make the line, without the traceback.

        :param record: the record.
        :returns: the line.
        """
        line = _CONTROL.sub(lambda match: repr(match.group())[1:-1], super().formatMessage(record))
        request_id = getattr(record, "request_id", None)
        return f"{line} rid={request_id}" if request_id else line


def _remember_request_id(record: logging.LogRecord) -> bool:
    # When the record is made, not when it is written: a handler may write from another thread.
    record.request_id = _request_id.get()
    return True


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
        _forward(record)


def _forward(record: "loguru.Record") -> None:
    logger = logging.getLogger(record["name"] or "hayhooks")
    if logger.isEnabledFor(record["level"].no):
        exception = record["exception"]
        why = record["extra"].get("error") or record["extra"].get("reason")
        logger.handle(
            logger.makeRecord(
                logger.name,
                record["level"].no,
                record["file"].path,
                record["line"],
                f"{record['message']}: {why}" if why and not exception else record["message"],
                (),
                (exception.type, exception.value, exception.traceback)
                if exception and exception.type
                else None,  # type: ignore[arg-type]
            )
        )


def configure_logging(level: str) -> None:
    """
    Send every library's log lines to standard error in one form.

    :param level: least severe level that is shown.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RequestIDFormatter())
    handler.addFilter(_remember_request_id)
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


def _is_news(record: logging.LogRecord) -> bool:
    # Who breaks an answer off has said why; uvicorn calls that an error of the application.
    return record.msg != "ASGI callable returned without completing response."


def give_back_loggers() -> None:
    """Undo what Hayhooks does to the loggers of uvicorn and FastAPI when it makes its application."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "fastapi"):
        taken_over = logging.getLogger(name)
        taken_over.handlers = []
        taken_over.propagate = True
        taken_over.setLevel(logging.NOTSET)
