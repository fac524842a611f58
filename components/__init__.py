"""Haystack components of Thresher."""

import os

# Haystack posts telemetry to its makers unless told not to before its import.
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
