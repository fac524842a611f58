"""Who calls, where somebody in between says so: only what a named proxy says counts."""

from pathlib import Path

import httpx
import pytest

from serve.server import config_of
from settings import Settings, SettingsError
from tests.serve.conftest import RunningServer, finished, without_llm
from tests.serve.doors import DOORS

CHAT = next(door for door in DOORS if door.name == "chat")


def ask_as(client: httpx.Client, address: str) -> int:
    """:returns: The status of a request that is said to come from an address."""
    return client.get("/modes", headers={"X-Forwarded-For": address}).status_code


def test_nobody_gets_another_account_by_saying_so(tmp_path: Path) -> None:
    """Without a named proxy all requests from an address count as its own, whatever they say."""
    with RunningServer(without_llm(tmp_path, max_requests_per_minute=3)) as client:
        assert [ask_as(client, f"192.0.2.{number}") for number in range(4)] == [200, 200, 200, 429]


def test_a_named_proxy_tells_callers_apart_and_how_they_came(tmp_path: Path) -> None:
    """Each caller has its own account; what it puts before its own address itself counts for nothing."""
    settings = without_llm(tmp_path, max_requests_per_minute=40, trusted_proxies="127.0.0.1, 10.0.0.0/8")
    with RunningServer(settings) as client:
        job = client.post("/ingest/", json={"texts": ["The Eiffel Tower is 330 metres tall."]}).json()
        assert finished(client, job)["status"] == "done"
        one = [ask_as(client, f"198.51.100.{number}, 192.0.2.1, 10.0.0.7") for number in range(41)]
        assert one == [200] * 40 + [429]
        assert ask_as(client, "192.0.2.2") == 200
        shown = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.3", "Host": "localhost"}
        answer = client.post(CHAT.path, json=CHAT.body, headers=shown).json()
        url = answer["choices"][0]["message"]["annotations"][0]["url_citation"]["url"]
        assert url.startswith("https://localhost/documents/")


def test_uvicorns_own_variable_names_no_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`FORWARDED_ALLOW_IPS` does not open what `TRUSTED_PROXIES` leaves closed."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    config = config_of(lambda *_: None, without_llm(tmp_path))  # type: ignore[arg-type]
    assert not config.proxy_headers
    assert config.forwarded_allow_ips == []


@pytest.mark.parametrize("wrong", ["*", "nginx", "10.0.0.1/8", "127.0.0.1:80"])
def test_only_addresses_and_networks_name_a_proxy(wrong: str) -> None:
    """What would trust nobody or everybody by mistake is refused at the start."""
    with pytest.raises(SettingsError, match="TRUSTED_PROXIES: must be addresses or networks"):
        Settings.load(trusted_proxies=wrong)
