from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from settings import Settings
from tests.browser import Browser, running_browser
from tests.serve.conftest import RunningServer, finished
from tests.stub_llm import Behaviour, StubLLM, running_stub

QUESTION = "How tall is the Eiffel Tower?"
CITED = "The Eiffel Tower in Paris is 330 metres tall."
DOCUMENTS = [
    # What JavaScript counts as two characters stands before the cited sentence.
    {"id": "tower", "title": "Eiffel Tower", "text": f"Landmarks 🗼🗼 of Paris. {CITED} It is made of iron."},
    {"id": "mast", "title": "Mast", "text": "The Berlin television tower is 368 metres tall."},
    {"id": "lake", "title": "Lakes", "text": "Lake Constance is 63 km long."},
]


class Playground(Browser):
    """The page, in a browser of its own, and the service and the model behind it."""

    def __init__(self, driver: Chrome, client: httpx.Client, stub: StubLLM) -> None:
        super().__init__(driver)
        self.client = client
        self.stub = stub

    def load(self, **chosen: str) -> None:
        """Open the page with what is chosen, and wait until it can be used."""
        self.open(f"{self.client.base_url}/#{urlencode(chosen)}")
        self.until(lambda: len(self.all("#mode option")) > 1 and "Ready" in self.find("#service").text)

    def ask(self, question: str = QUESTION, **chosen: str) -> None:
        """Open the page and ask."""
        self.load(**{"tenant": "acme", "mode": "standard", **chosen, "question": question})
        self.find("#question").send_keys(Keys.ENTER)

    def answered(self, panels: int = 1) -> None:
        """Wait for the end of all answers."""
        self.until(lambda: len(self.all(".times")) == panels)

    def ingest(self, tenant: str, documents: list[dict[str, Any]]) -> None:
        """Give a tenant documents."""
        job = self.client.post("/ingest/", json={"tenant_id": tenant, "documents": documents}).json()
        assert finished(self.client, job)["documents_failed"] == 0


def focused(page: Playground) -> str:
    """Name what has the focus."""
    return page.script(
        "const at = document.activeElement; return at.id || at.className || at.textContent.slice(0, 30)"
    )


@pytest.fixture(scope="package")
def running_playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    folder = tmp_path_factory.mktemp("playground")
    with running_browser(folder / "profile") as browser, running_stub() as stub:
        settings = Settings.load(
            data_dir=folder / "data", port=0, max_file_bytes=100_000, max_questions=8, **stub.settings()
        )
        with RunningServer(settings) as client:
            page = Playground(browser.driver, client, stub)
            page.ingest("acme", DOCUMENTS)
            yield page


@pytest.fixture
def page(running_playground: Playground) -> Iterator[Playground]:
    """The playground with a model that answers at once; afterwards nothing of it runs any more."""
    running_playground.stub.behaviour = Behaviour()
    yield running_playground
    running_playground.driver.get("about:blank")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder for files to upload."""
    return tmp_path
