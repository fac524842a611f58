"""Converters that misbehave, for the process that must stand them."""

import ctypes
import os
import time
from typing import Any

from haystack import Document, component, logging

logger = logging.getLogger(__name__)


@component
class Misbehaving:
    """Does what the file says."""

    @component.output_types(documents=list[Document])
    def run(self, sources: list[Any]) -> dict[str, list[Document]]:
        """Misbehave."""
        order = sources[0].data.decode()
        if order == "sleep":
            time.sleep(60)
        if order == "spin":
            while True:
                pass
        if order == "eat":
            print(len(bytearray(1 << 40)))
        if order == "crash":
            ctypes.string_at(0)
        if order == "write":
            with open("/tmp/thresher-sandbox-test", "w") as file:
                file.write("x")
        if order == "skip":
            logger.warning("Skipping {source}: {error}", source="a file", error=ValueError("odd"))
            return {"documents": []}
        if order == "environment":
            return {"documents": [Document(content=repr(sorted(os.environ)))]}
        if order == "process":
            return {"documents": [Document(content=f"{os.getpid()} {os.getppid()}")]}
        return {"documents": [Document(content=order, meta={"from": "here"})]}


@component
class NeverReady:
    """Hangs while it is loaded."""

    def warm_up(self) -> None:
        """Hang."""
        time.sleep(60)

    @component.output_types(documents=list[Document])
    def run(self, sources: list[Any]) -> dict[str, list[Document]]:
        """Never run."""
        return {"documents": []}
