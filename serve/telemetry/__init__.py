"""What the service tells about itself: log lines, and figures for Prometheus (`serve.telemetry.metrics`)."""

from serve.telemetry.binding import bound_request_id, current_request_id
from serve.telemetry.logs import (
    configure_logging,
    give_back_loggers,
    log_as_set,
    log_uncaught,
    logs_for_people,
)

__all__ = [
    "bound_request_id",
    "configure_logging",
    "current_request_id",
    "give_back_loggers",
    "log_as_set",
    "log_uncaught",
    "logs_for_people",
]
