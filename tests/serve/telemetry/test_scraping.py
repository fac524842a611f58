"""Where the figures are given on a port of their own, and what the log says of it."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from serve import server
from serve.telemetry.scraping import MetricsServer, Scrape
from settings import Settings


def told(caplog: pytest.LogCaptureFixture, tmp_path: Path, **addresses: object) -> list[tuple[int, str]]:
    """Take the port of the figures, and give the lines that tell of it."""
    settings = Settings.load(data_dir=tmp_path, metrics_port=0, **addresses)
    with caplog.at_level(logging.INFO, "thresher.metrics"):
        asyncio.run(MetricsServer(settings, cast(Scrape, None)).close())
    return [(record.levelno, record.getMessage()) for record in caplog.records]


def test_an_address_that_others_reach_is_told_and_warned_of(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The log names the address that was bound, and warns that everybody who reaches it may read the figures."""
    [(_, line), (level, warning)] = told(caplog, tmp_path, host="0.0.0.0")
    assert line.startswith("metrics: http://0.0.0.0:")
    assert (level, "METRICS_HOST" in warning) == (logging.WARNING, True)


def test_the_figures_have_an_address_of_their_own(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """METRICS_HOST keeps them on this machine when HOST does not."""
    [(_, line)] = told(caplog, tmp_path, host="0.0.0.0", metrics_host="127.0.0.1")
    assert line.startswith("metrics: http://127.0.0.1:")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that is the service's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_a_taken_port_names_the_settings_to_change(taken: int, tmp_path: Path) -> None:
    """That the figures' port is taken, by the service's own too, does not send anybody to change HOST or PORT."""
    settings = Settings.load(data_dir=tmp_path, port=taken, metrics_port=taken)
    with pytest.raises(server.AddressInUseError, match="set METRICS_HOST or METRICS_PORT"):
        MetricsServer(settings, cast(Scrape, None))
    with pytest.raises(server.AddressInUseError, match="set HOST or PORT"):
        server.bind(settings)


@pytest.mark.parametrize(
    ("host", "listening", "reached"), [("0.0.0.0", "0.0.0.0", "127.0.0.1"), ("127.0.0.1",) * 3]
)
def test_the_bound_address_is_told_and_a_reachable_one_announced(
    tmp_path: Path, host: str, listening: str, reached: str
) -> None:
    """People are told who can reach the service; other commands on this machine, how they reach it."""
    with server.bind(Settings.load(data_dir=tmp_path, host=host, port=0)) as bound:
        port = bound.getsockname()[1]
        assert server.listening_url(bound) == f"http://{listening}:{port}"
        assert server.url_of(bound) == f"http://{reached}:{port}"
