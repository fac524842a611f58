"""Haystack components of Thresher."""

import os

# Haystack and onnxruntime report to their makers unless told not to before their import.
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
