"""Chroma's errors told in our words."""

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest
from chromadb.api.base_http_client import BaseHTTPClient

from components.storing import DocumentStoreError, DocumentStoreUnavailableError
from components.storing.errors import translated_errors
from components.storing.store import with_deadline

PAGE = "<html>nginx</html>"


@pytest.mark.parametrize(
    ("status", "body", "passes"),
    [
        (502, PAGE, True),
        (503, PAGE, True),
        (429, PAGE, True),
        (500, '{"error": "InternalError", "message": "database is locked"}', True),
        (429, '{"error": "RateLimitError", "message": "too many calls"}', True),
        (413, PAGE, False),
        (400, '{"error": "InvalidArgumentError", "message": "no"}', False),
    ],
)
def test_what_a_server_or_a_proxy_may_do_later_is_told_from_the_rest(
    status: int, body: str, passes: bool
) -> None:
    """A busy or failing server counts as away, also when a proxy says so; a proxy's page is shown to nobody."""
    answer = httpx.Response(status, text=body, request=httpx.Request("POST", "http://chroma/"))
    with pytest.raises(DocumentStoreError) as raised, translated_errors():
        BaseHTTPClient._raise_chroma_error(answer)
    assert isinstance(raised.value, DocumentStoreUnavailableError) is passes
    assert "html" not in str(raised.value)


def test_who_leaves_as_chroma_answers_has_left() -> None:
    """A cancellation that comes together with the result counts; else a model would be asked for nobody."""
    answer: Future[str] = Future()

    class Answering(ThreadPoolExecutor):
        def submit(self, *_: object) -> Future[str]:  # type: ignore[override]
            return answer

    async def leave() -> None:
        waiting = asyncio.create_task(with_deadline(Answering(), 5, str))
        await asyncio.sleep(0)
        answer.set_result("found")
        asyncio.get_running_loop().call_soon(waiting.cancel)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(leave())
