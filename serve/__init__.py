"""The service: HTTP, ingestion jobs, and the command."""

import components  # noqa: F401  (turns Haystack's telemetry off before Haystack is imported)
