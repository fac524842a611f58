"""Modes: pipeline files, checked and made callable."""

import components  # noqa: F401  (turns Haystack's telemetry off before Haystack is imported)
