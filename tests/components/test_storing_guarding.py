"""How a Chroma server's answers count for its breaker."""

import httpx
import pytest

from components.breaking import Breaker, CircuitOpenError
from components.storing.guarding import GuardedTransport

QUERY = "http://chroma/api/v2/tenants/t/databases/d/collections/c/query"
HEARTBEAT = "http://chroma/api/v2/heartbeat"


class Chroma:
    """A server that answers with a status, behind a breaker of two failures."""

    def __init__(self) -> None:
        self.status = 200
        self.breaker = Breaker("Chroma", failures=2)
        self._transport = GuardedTransport(httpx.MockTransport(self._answer), self.breaker)

    def ask(self, url: str, status: int) -> int:
        self.status = status
        return self._transport.handle_request(httpx.Request("POST", url)).status_code

    def _answer(self, _: httpx.Request) -> httpx.Response:
        return httpx.Response(self.status, text="busy")


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_keeps_saying_it_is_away_is_left_alone(status: int) -> None:
    """Its answers are passed on until there are as many as open the breaker; what asks whether it is there goes on."""
    chroma = Chroma()
    assert [chroma.ask(QUERY, status) for _ in range(2)] == [status, status]
    with pytest.raises(CircuitOpenError):
        chroma.ask(QUERY, 200)
    assert chroma.ask(HEARTBEAT, status) == status
    assert chroma.breaker.state == "open"
    assert chroma.ask(HEARTBEAT, 200) == 200
    assert chroma.ask(QUERY, 200) == 200
    assert chroma.breaker.state == "closed"


def test_what_may_be_due_to_a_single_call_shows_nothing() -> None:
    """A 500 is neither a failure nor a success of the server; what it answers otherwise is one."""
    chroma = Chroma()
    assert [chroma.ask(QUERY, 500) for _ in range(5)] == [500] * 5
    assert chroma.breaker.state == "closed"
    for status in (503, 500):
        chroma.ask(QUERY, status)
    chroma.ask(QUERY, 400)
    chroma.ask(QUERY, 503)
    assert chroma.breaker.state == "closed"
    for status in (500, 503):
        chroma.ask(QUERY, status)
    assert chroma.breaker.state == "open"
