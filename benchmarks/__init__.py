"""Measurements of the service, each beside a baseline taken in the same run; `python -m benchmarks --help`."""
