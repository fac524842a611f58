import re
from pathlib import Path

import httpx
import pytest
from selenium.common.exceptions import JavascriptException

from serve.routers.playground import _FOLDER
from tests.serve.playground.conftest import CITED, DOCUMENTS, Playground
from tests.stub_llm import Behaviour

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script><b>bold</b>"
NAMES = sorted(path.name for path in _FOLDER.iterdir())


def test_hostile_documents_names_and_replies_stay_text(page: Playground, files: Path) -> None:
    """Markup in a document, its title, id and file name, a question and a reply is shown as it is, and does nothing."""
    page.ingest("hostile", [{"id": HOSTILE, "title": HOSTILE, "text": f"{HOSTILE} {CITED} {HOSTILE}"}])
    page.stub.behaviour = Behaviour(text=f"{HOSTILE} says 330 metres [1].")
    page.ask(f"How tall is the Eiffel Tower? {HOSTILE}", tenant="hostile", mode="crag")
    page.answered()
    page.find(".marker").click()
    file = files / "<img src=x onerror=alert(3)>.txt"
    file.write_text("A file.")
    page.find("#passage-close").click()
    page.find("#files").send_keys(str(file))
    page.find("#upload button").click()
    page.until(lambda: len(page.all(".holdings li")) == 2)
    assert page.find(".answer").text == f"{HOSTILE} says 330 metres [1]."
    assert HOSTILE in page.find(".chunk .link").text
    assert HOSTILE in page.find(".chunk .text").text
    assert HOSTILE in page.find(".searched").text
    assert page.find(".upload strong").text == file.name
    assert page.all("body img, body script, body b") == []
    assert page.log() == []


def test_characters_that_turn_the_direction_are_seen_and_turn_nothing(page: Playground) -> None:
    """No title, chunk, question, reply or request can show other words than it has; citations are still marked."""
    turning = "live \u202eevil\u202c \u2066x\u2069"
    seen = "live U+202EevilU+202C U+2066xU+2069"
    page.ingest("turned", [{"id": "t", "title": turning, "text": f"{turning}. {CITED}"}])
    page.stub.behaviour = Behaviour(text=f"{turning}: 330 metres [1].")
    page.ask(f"How tall is the Eiffel Tower? {turning}", tenant="turned")
    page.answered()
    assert page.find(".answer").text == f"{seen}: 330 metres [1]."
    assert page.texts(".chunk .link, .sources .link bdi, .holdings li > bdi") == [seen] * 3
    assert page.find(".asked").text.endswith(seen)
    assert page.find(".chunk .text").text.startswith(seen)
    page.script("document.querySelector('.command').open = true")
    assert "live \\u202eevil\\u202c" in page.find(".command code").text
    assert re.findall("[\u202a-\u202e\u2066-\u2069]", page.script("return document.body.innerText")) == []
    page.find(".marker").click()
    assert page.texts("#passage-title") == [seen]
    assert page.texts("#passage mark") == [CITED]


def test_nothing_is_asked_of_another_host(page: Playground, files: Path) -> None:
    """Loading the page, asking and uploading make requests to the service alone, and the console stays empty."""
    (files / "a.txt").write_text("A file.")
    page.ingest("hosts", DOCUMENTS)
    page.ask(tenant="hosts", mode="crag", compared="structured")
    page.answered(panels=2)
    page.find("#files").send_keys(str(files / "a.txt"))
    page.find("#upload button").click()
    page.until(lambda: len(page.all(".holdings li")) == len(DOCUMENTS) + 1)
    requested = [url for url in page.requested() if url != "about:blank"]
    assert len(requested) > 15
    assert [url for url in requested if not url.startswith(f"{page.client.base_url}/")] == []
    assert page.log() == []


def test_policy_refuses_markup_and_code_made_by_a_script(page: Playground) -> None:
    """Even a script of the page's own can't make elements from HTML, or code from a text."""
    page.load()
    for attempt in (
        "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
        "document.body.innerHTML = '<b>x</b>'",
        "document.createElement('script').text = 'x'",
    ):
        with pytest.raises(JavascriptException, match="requires 'Trusted"):
            page.script(attempt)


def test_policy_refuses_scripts_styles_and_requests_from_elsewhere(page: Playground) -> None:
    """An inline script, an inline style, and a request to another address are blocked."""
    page.load()
    page.log()
    page.script(
        "const add = (tag, text) => { const made = document.createElement(tag);"
        " made.append(text); document.head.append(made) };"
        "try { add('script', 'window.ran = true') } catch {}"
        "add('style', 'body { display: none }');"
    )
    assert page.script("return [window.ran ?? null, getComputedStyle(document.body).display]") == [
        None,
        "block",
    ]
    answer = "fetch('http://127.0.0.1:9/').then(() => 'sent', error => error.message).then(arguments[0])"
    assert page.driver.execute_async_script(answer) == "Failed to fetch"
    assert any("connect-src" in message for message in page.log())


def test_every_file_of_the_page_carries_the_policy(page: Playground) -> None:
    """The page and each of its files come with the right type, the policy and nosniff."""
    types = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    pages = {"index.html": "/", "docs.html": "/docs"}
    for name in NAMES:
        answer = page.client.get(pages.get(name, f"/playground/{name}"))
        assert answer.status_code == 200
        assert answer.headers["content-type"].partition(";")[0] == types[name.rpartition(".")[2]]
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.content == (_FOLDER / name).read_bytes()


def test_unchanged_file_is_not_sent_again(page: Playground) -> None:
    """A browser that has the file asks whether it has changed, and gets a 304 without a body."""
    first = page.client.get("/playground/app.js")
    again = page.client.get("/playground/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["cache-control"] == again.headers["cache-control"] == "no-cache"
    other = page.client.get("/playground/app.js", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200


@pytest.mark.parametrize(
    "path", ["index.html", "docs.html", "nothing.js", "..%2f..%2fsettings.py", "%2e%2e/app.py", "__init__.py"]
)
def test_nothing_beside_the_files_of_the_page_is_given(page: Playground, path: str) -> None:
    """A name that is none of the page's files is a 404, wherever it leads."""
    answer: httpx.Response = page.client.get(f"/playground/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_page_has_nothing_inline() -> None:
    """The HTML has no script, style or handler of its own, and every address in it is relative."""
    text = (_FOLDER / "index.html").read_text("utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\bon[a-z]+=|\bstyle=|javascript:", text) == []
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert addresses
    assert [address for address in addresses if re.match(r"[a-z]+:|/", address)] == []


def test_the_api_page_shows_the_routes_and_loads_nothing_from_elsewhere(page: Playground) -> None:
    """`/docs` reads the OpenAPI document of its own service: each route with its parameters, body and answers."""
    page.open(f"{page.client.base_url}/docs")
    page.until(lambda: len(page.all("#operations summary")) > 20)
    assert any(text.startswith("POST /query/ ") for text in page.texts("#operations summary"))
    assert all(url.startswith(str(page.client.base_url)) for url in page.requested())
    assert not [message for message in page.log() if "favicon" not in message]


@pytest.mark.parametrize(("path", "script"), [("/", "app.js"), ("/docs", "docs.js")])
def test_page_whose_script_does_not_come_says_so(page: Playground, path: str, script: str) -> None:
    """A proxy that keeps the script out leaves a page that tells of it; with the script nobody sees that."""
    page.command("Network.enable")
    page.command("Network.setBlockedURLs", urls=[f"*{script}"])
    try:
        page.open(f"{page.client.base_url}{path}")
        assert "has not run" in page.find("#unloaded").text
    finally:
        page.command("Network.setBlockedURLs", urls=[])
    page.open(f"{page.client.base_url}{path}")
    page.until(lambda: not page.all("#unloaded"))
