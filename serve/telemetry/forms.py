"""The two forms of a log line: JSON for programs, and one for people. Each record is one line, whatever it holds."""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

from serve.telemetry.outline import outline
from serve.telemetry.redaction import Redactor

# What could end a line, move a terminal's cursor, turn text round, or not be written at all.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class LineFormatter(logging.Formatter):
    """Makes one line of each record, without secrets, and without libraries' words while a request is worked on."""

    def __init__(self, redactor: Redactor) -> None:
        """
        Remember what to hide.

        :param redactor: takes secrets out.
        """
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """
        Make the line.

        :param record: the record.
        :returns: the line, without its end.
        """
        return _CONTROL.sub(lambda found: f"\\u{ord(found.group()):04x}", self.line(self._parts(record)))

    def line(self, parts: dict[str, Any]) -> str:
        """
        Write what a record tells.

        :param parts: `time`, `level`, `logger`, `message`, and where there are, `request_id`, `trace_id`, `span_id`,
            `exception` and the fields of the access line.
        :returns: the line.
        """
        raise NotImplementedError

    def _parts(self, record: logging.LogRecord) -> dict[str, Any]:
        clean = self._redactor.clean
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        parts = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": clean(record.getMessage()),
            **getattr(record, "ids", {}),
        }
        fields = getattr(record, "fields", {})
        parts |= {name: clean(value) if isinstance(value, str) else value for name, value in fields.items()}
        if (error := _error_of(record)) is not None:
            # Outside of a request nothing is told of what a caller sent; asyncio does not say whose a lost error is.
            private = "request_id" in parts or record.name == "asyncio"
            with_words = not private or logging.getLogger().isEnabledFor(logging.DEBUG)
            parts["exception"] = clean(outline(error, with_words))
        return parts


class JsonFormatter(LineFormatter):
    """A JSON object a line."""

    def line(self, parts: dict[str, Any]) -> str:
        """
        Write what a record tells; see `LineFormatter`.

        :param parts: what it tells.
        :returns: the line.
        """
        return json.dumps(parts, ensure_ascii=False, default=str)


class ConsoleFormatter(LineFormatter):
    """`time level logger - message rid=… trace=…`, for people."""

    def line(self, parts: dict[str, Any]) -> str:
        """
        Write what a record tells; see `LineFormatter`.

        :param parts: what it tells.
        :returns: the line.
        """
        line = f"{parts['time']} {parts['level']:<8} {parts['logger']} - {parts['message']}"
        for name, label in (("exception", "|"), ("request_id", "rid="), ("trace_id", "trace=")):
            if name in parts:
                line += f" {label}{' ' if label == '|' else ''}{parts[name]}"
        return line


def _error_of(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if isinstance(record.exc_info, tuple) else None
