"""The OpenAPI document against the service: what it says is so, whatever is sent."""

from pathlib import Path

import pytest

from tests.fuzz.api import fuzz, fuzzed_service

pytestmark = pytest.mark.server


def test_no_request_gets_an_undocumented_answer(tmp_path: Path) -> None:
    """Whatever is sent to any route, the answer is one that the OpenAPI document describes, and no unexplained 5xx."""
    with fuzzed_service(tmp_path) as service:
        # One mode's own route is like another's; `make fuzz` takes them all, and many more examples.
        alike = ("--exclude-path-regex", "^/(standard|crag|crag_structured)/run")
        found = fuzz(service, "--phases", "coverage", "--seed", "1", *alike)
    assert found.passed, found.report[-6000:]
    assert found.cases > 800
    assert found.unforeseen == []
