"""Health, readiness, request ids and the log."""

import re
import socket
import time
from pathlib import Path

import httpx
import pytest

from tests.serve.conftest import RunningServer, log_lines, told_in, without_llm


def wait_until_ready(client: httpx.Client) -> dict:
    """Poll readiness until the models are loaded."""
    while (state := client.get("/ready").json())["status"] == "loading":
        time.sleep(0.05)
    return state


def test_ready_says_what_runs(client: httpx.Client) -> None:
    """Readiness names the shape that runs: store, provider, embeddings, jobs and modes."""
    state = wait_until_ready(client)
    assert client.get("/ready").status_code == 200
    assert (state["status"], state["chroma"], state["jobs"]) == ("ok", "ok", "ok")
    assert (state["store"], state["embeddings"]) == ("embedded", "all-MiniLM-L6-v2")
    assert state["llm"]["provider"] == "extractive"
    assert set(state["modes"]) == {"standard", "crag", "structured", "crag_structured"}


def test_health_asks_nothing(client: httpx.Client) -> None:
    """Liveness answers with the version."""
    assert client.get("/health").json() == {"status": "ok", "version": "1.0.0"}


def test_a_broken_mode_keeps_the_service_from_being_ready(tmp_path: Path) -> None:
    """A mode that fails to load is named by /ready and /modes; the others still answer."""
    (tmp_path / "modes").mkdir()
    (tmp_path / "modes" / "mine.yml").write_text("components: {}\n")
    with RunningServer(without_llm(tmp_path, pipelines_dir=tmp_path / "modes")) as client:
        response = client.get("/ready")
        assert response.status_code == 503
        assert any("mine.yml:1" in problem for problem in response.json()["problems"])
        assert any("mine.yml:1" in fault for fault in client.get("/modes").json()["broken"])
        problem = client.post("/query/", params={"q": "x", "mode": "mine"}).json()
        assert problem["type"] == "urn:thresher:problem:broken-mode"
        assert client.get("/health").status_code == 200


def test_chroma_away_is_not_ready_and_a_503(tmp_path: Path) -> None:
    """Without its Chroma server the service lives, is not ready, says so, and answers queries with 503."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        settings = without_llm(
            tmp_path, chroma_host="127.0.0.1", chroma_port=taken.getsockname()[1], chroma_timeout=1
        )
        with RunningServer(settings) as client, log_lines() as lines:
            response = client.get("/ready")
            assert response.status_code == 503
            assert response.json()["chroma"] == "Chroma does not answer"
            for path in ("/query/?q=x", "/crag/run"):
                response = client.post(path, json={"query": "x"} if "run" in path else None)
                assert response.status_code == 503
                assert response.headers["retry-after"]
                assert response.json()["type"] == "urn:thresher:problem:document-store-unavailable"
            # One line for each, without a traceback.
            told = "".join(lines)
            assert told.count("document-store-unavailable: Chroma does not answer") == 2
            assert "Traceback" not in told
            assert client.get("/health").status_code == 200


@pytest.mark.parametrize("given", ["abc", "a" * 64, "A.b_c-9"])
def test_a_valid_request_id_is_kept(client: httpx.Client, given: str) -> None:
    """The caller's own id comes back, once."""
    response = client.get("/health", headers={"X-Request-ID": given})
    assert response.headers.get_list("x-request-id") == [given]


@pytest.mark.parametrize("given", ["", "a" * 65, "a b", "ä".encode(), "a;b", "../x"])
def test_an_invalid_request_id_is_replaced(client: httpx.Client, given: str | bytes) -> None:
    """Anything else is replaced by 32 hex digits."""
    response = client.get(
        "/nothing", headers={b"X-Request-ID": given if isinstance(given, bytes) else given.encode()}
    )
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_every_line_of_a_request_carries_its_id(client: httpx.Client) -> None:
    """The strategy line of a component and the access line have the request's id."""
    wait_until_ready(client)
    with log_lines() as lines:
        asked = {"q": "How tall is the Eiffel Tower?", "mode": "crag", "tenant_id": "acme"}
        client.post("/query/", params=asked, headers={"X-Request-ID": "find-me"})
        client.get("/health")
    mine = [line["message"] for line in told_in(lines) if line.get("request_id") == "find-me"]
    assert any(
        re.search(r"Strategy=PARTIAL grades=\[CORRECT\(0\.\d\d\),INCORRECT\(0\.\d\d\)\]", line)
        for line in mine
    )
    assert any(re.search(r"POST /query/ → 200 \[\d+ms\]", line) for line in mine)
    assert not any("Eiffel" in line for line in lines)


def test_an_unforeseen_error_has_the_id_too(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 500 is a problem with the request id, and tells nothing of the exception."""
    from modes.mode import Mode

    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(Mode, "run_async", fail)
    for path in ("/query/?q=x", "/crag/run"):
        response = client.post(
            path, json={"query": "x"} if "run" in path else None, headers={"X-Request-ID": "boom"}
        )
        assert response.status_code == 500
        assert response.headers["x-request-id"] == response.json()["request_id"] == "boom"
        assert "secret" not in response.text
