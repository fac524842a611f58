"""The playground of a service that asks for keys."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serve.access import Role
from serve.access.keys import new_key
from tests.serve.conftest import RunningServer, finished, without_llm
from tests.serve.playground.conftest import CITED, DOCUMENTS, QUESTION, Playground, focused


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, str]]:
    """A service that asks for a key, and a key of one tenant."""
    secret, kept = new_key(["acme"], [Role.QUERY, Role.INGEST])
    keys = json.dumps({"keys": [kept.model_dump(mode="json")]})
    with RunningServer(without_llm(tmp_path_factory.mktemp("keyed"), api_keys=keys)) as client:
        client.headers["Authorization"] = f"Bearer {secret}"
        job = client.post("/ingest/", json={"tenant_id": "acme", "documents": DOCUMENTS}).json()
        assert finished(client, job)["status"] == "done"
        yield client, secret


@pytest.fixture
def keyed(
    running_playground: Playground, service: tuple[httpx.Client, str]
) -> Iterator[tuple[Playground, str]]:
    """The page of that service, in a tab that has no key yet."""
    client, secret = service
    page = Playground(running_playground.driver, client, running_playground.stub)
    page.open(f"{client.base_url}/")
    page.script("sessionStorage.clear()")
    page.driver.refresh()
    yield page, secret
    page.driver.get("about:blank")


def test_a_key_opens_the_page_and_stays_in_the_tab(keyed: tuple[Playground, str], files: Path) -> None:
    """Without a key the page says so; with one it asks, uploads and follows for the key's tenant, and keeps it."""
    page, secret = keyed
    page.until(lambda: "asks for an API key" in page.find("#key-hint").text)
    assert page.find("#tenant").get_property("value") == ""
    assert page.find("#owner").text == "the key's tenant"
    assert "Missing key" not in page.find("body").text
    assert "Authorization" not in page.find("body").text
    page.find("#question").send_keys(QUESTION)
    page.find("#ask .primary").click()
    page.until(lambda: focused(page) == "key")
    page.find("#key").send_keys(secret)
    page.find("#access button").click()
    page.until(lambda: len(page.all("#mode option")) > 1 and page.texts(".holdings li"))
    assert page.find("#key-hint").text == "A key is in use in this tab."
    page.find("#ask .primary").click()
    page.answered()
    assert CITED.rstrip(".") in page.find(".answer").text
    (files / "canal.md").write_text("# The canal\n\nThe canal is 87 km long.")
    page.find("#files").send_keys(str(files / "canal.md"))
    page.find("#upload button").click()
    page.until(lambda: "canal.md" in page.find(".holdings").text)
    kept = page.script(
        "return [location.href, JSON.stringify(localStorage), document.cookie, document.body.innerHTML]"
    )
    assert not any(secret in place for place in kept)
    page.driver.refresh()
    page.until(lambda: page.texts(".holdings li"))
    page.find("#forget").click()
    page.until(lambda: "asks for an API key" in page.find("#key-hint").text)
    assert page.script("return sessionStorage.length") == 0


def test_the_copied_command_holds_the_keys_name_and_not_the_key(keyed: tuple[Playground, str]) -> None:
    """The curl command takes the key from the shell's environment, and asks the same with it."""
    page, secret = keyed
    page.find("#key").send_keys(secret)
    page.find("#access button").click()
    page.until(lambda: len(page.all("#mode option")) > 1)
    page.find("#question").send_keys(QUESTION)
    page.find("#ask .primary").click()
    page.answered()
    command = page.find(".panel").find_element("css selector", ".command code").get_property("textContent")
    assert secret not in command
    ran = subprocess.run(
        ["sh", "-c", f"{command} --silent"],
        env={"THRESHER_API_KEY": secret, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
    )
    assert json.loads(ran.stdout)["citations"]


def test_a_wrong_key_is_told_of(keyed: tuple[Playground, str]) -> None:
    """A key that nobody gave out is said to be none, once, and another one can be written."""
    page, _ = keyed
    page.find("#key").send_keys("thr_wrong")
    page.find("#access button").click()
    page.until(lambda: "unknown, revoked or expired" in page.find("#key-hint").text)
    assert page.find("body").text.count("revoked") == 1
    assert "in use" not in page.find("body").text
    assert page.find("#key").get_property("value") == ""
    assert httpx.get(f"{page.client.base_url}/playground/key.js").status_code == 200
