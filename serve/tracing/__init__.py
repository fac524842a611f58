"""Traces: what OpenTelemetry's collectors are told of requests and jobs, and in which trace a piece of work stands."""

from serve.tracing.context import continued_trace, current_trace_ids, current_traceparent

__all__ = ["continued_trace", "current_trace_ids", "current_traceparent"]
