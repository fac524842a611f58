"""What `/{name}/run` refuses, whatever is served there: what it would otherwise ignore without a word."""

from typing import Any

import httpx
import pytest


def refused(answer: httpx.Response) -> Any:
    """Give the faults that a request is refused for."""
    assert answer.status_code == 422
    return answer.json()["errors"]


def test_a_field_that_a_wrapper_does_not_know_is_refused(door: httpx.Client) -> None:
    """A misspelt field is an error that names those there are."""
    answer = door.post("/greeting/run", json={"name": "Ada", "hwo": "plain"})
    assert refused(answer) == [
        {"field": "hwo", "message": "is unknown; there are name, how. Did you mean 'how'?"}
    ]


@pytest.mark.parametrize("name", ["greeting", "ranker", "crag", "upload"])
def test_a_run_takes_nothing_from_its_url(door: httpx.Client, name: str) -> None:
    """Fields in the URL are refused by wrappers, plain pipelines and modes alike."""
    answer = door.post(f"/{name}/run", params={"how": "plain"}, json={"name": "Ada"})
    assert refused(answer) == [{"field": "how", "message": "is unknown; there are none here"}]


@pytest.mark.parametrize("sent", [{"json": {"note": "two"}}, {"content": b"note=two"}])
def test_a_route_that_takes_files_takes_forms_only(door: httpx.Client, sent: dict[str, Any]) -> None:
    """JSON, and what does not say what it is, is refused where a form is read."""
    answer = door.post("/upload/run", **sent)
    assert refused(answer) == [{"field": "", "message": "this route takes a form (multipart/form-data)"}]


def test_a_form_may_be_empty_or_have_no_files(door: httpx.Client) -> None:
    """Where all parameters have defaults, nothing at all is a form too."""
    assert door.post("/upload/run").json() == {"result": {"note": "", "sizes": []}}
    assert door.post("/upload/run", data={"note": "two"}).json() == {"result": {"note": "two", "sizes": []}}


@pytest.mark.parametrize("sent", [{"data": {"file": "two"}}, {"files": [("file", b"x")]}])
def test_a_field_that_a_form_does_not_know_is_refused(door: httpx.Client, sent: dict[str, Any]) -> None:
    """A misspelt field of a form, a file too, is an error that names those there are."""
    answer = door.post("/upload/run", **sent)
    assert refused(answer) == [
        {"field": "file", "message": "is unknown; there are note, files. Did you mean 'files'?"}
    ]
