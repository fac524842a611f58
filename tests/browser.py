"""A real browser for tests: Chromium without a window, which reaches nothing but this machine."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

T = TypeVar("T")

_ARGUMENTS = (
    "--headless=new",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--no-first-run",
    "--lang=en",
    "--force-prefers-reduced-motion",
    "--window-size=1280,900",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
_WAIT_SECONDS = 20


class Browser:
    """A page of Chromium, with what its tests need again and again."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Open a page in place of the last one, and forget what that one has logged."""
        # Not straight to the page: of two addresses that differ in their fragment, a browser keeps the page.
        self.driver.get("about:blank")
        self.log(), self.requested()
        self.driver.get(url)

    def find(self, selector: str) -> WebElement:
        """Wait for the first element that is there and can be seen."""
        return self.until(lambda: next(found for found in self.all(selector) if found.is_displayed()))

    def all(self, selector: str) -> list[WebElement]:
        """Give all elements that are there now."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """Give what is to be seen of elements."""
        return [element.text.strip() for element in self.all(selector)]

    def script(self, code: str, *arguments: Any) -> Any:
        """Run JavaScript in the page, as a user with the developer tools can."""
        return self.driver.execute_script(code, *arguments)

    def until(self, condition: Callable[[], T]) -> T:
        """Wait until a condition gives something true."""

        def holds(_: Chrome) -> T | None:
            try:
                return condition()
            except (StopIteration, NoSuchElementException, StaleElementReferenceException):
                return None

        result = WebDriverWait(self.driver, _WAIT_SECONDS, poll_frequency=0.02).until(holds)
        assert result is not None
        return result

    def log(self) -> list[str]:
        """Give what the console has since the last call; violations of the page's policy are there too."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requested(self) -> list[str]:
        """Give the URLs that were asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]

    def command(self, name: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)

    def emulate(self, scheme: str) -> None:
        """Prefer a colour scheme, `light` or `dark`."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.command("Emulation.setEmulatedMedia", features=features)


@contextmanager
def running_browser(folder: Path) -> Iterator[Browser]:
    """
    Run Chromium; where there is none, the test is skipped, or fails if CI is set.

    :param folder: where its profile lies.
    :returns: the browser.
    """
    chromium, chromedriver = _program("chromium"), _program("chromedriver")
    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (*_ARGUMENTS, f"--user-data-dir={folder}"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        # Chromium's sandbox does not work for root, as whom containers run tests.
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With the driver's path given, selenium looks for none, and nothing is downloaded.
    driver = Chrome(options=options, service=Service(chromedriver))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        message = f"{name} is not installed; tools/programs.sh installs it"
        if os.environ.get("CI"):
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    return path
