import io
import logging

import loguru
import pytest

from serve.jobs.faults import JobFailedError
from serve.telemetry import configure_logging


def test_warnings_of_an_outage_are_no_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Hayhooks warns of at each call that fails comes through once, with its reason; its errors always do."""
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers)
    monkeypatch.setattr(root, "level", root.level)
    configure_logging("INFO")
    try:
        engine = loguru.logger.patch(lambda record: record.update(name="hayhooks.durable.runtime"))
        for _ in range(1_000):
            engine.bind(error="no answer").warning("Durable store operation failed; retrying")
        for _ in range(2):
            engine.error("Durable execution failed")
        # In one line already, by who ran the job.
        engine.opt(exception=JobFailedError("no document could be indexed")).error("Durable execution failed")
    finally:
        loguru.logger.remove()
    lines = shown.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].endswith("hayhooks.durable.runtime - Durable store operation failed; retrying: no answer")
