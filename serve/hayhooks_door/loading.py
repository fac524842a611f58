"""Finding the wrappers of `PIPELINES_DIR` and loading them one after the other, each fault with its place.

At the same time, as Hayhooks does by default, two that import the same library may break each other.
"""

import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from modes.checking import Fault
from modes.kinds import RESERVED_NAMES
from serve.hayhooks_door.library import PipelineModeError, load_wrapper
from serve.hayhooks_door.wrappers import NativeWrapper

logger = logging.getLogger("thresher.wrapper")

WRAPPER_FILE = "pipeline_wrapper.py"
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_DURABLE = (
    "implements run_durable, which is not served here; use `run_api`, and jobs (POST /ingest/) for what has to survive"
    " a restart"
)


class WrapperFaultError(Exception):
    """A wrapper can't be served; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        """
        Name the fault.

        :param fault: what is wrong and where.
        """
        super().__init__(str(fault))
        self.fault = fault


def wrapper_directories(folder: Path) -> Iterator[Path]:
    """
    Find the directories of a folder that hold Python, so that they must be wrappers.

    :param folder: where to look; not deeper than its own directories.
    :returns: the directories by name. `stages`, hidden ones and those without Python are none.
    """
    for path in sorted(folder.iterdir()):
        none = path.name in ("stages", "__pycache__") or path.name.startswith(".")
        if path.is_dir() and not none and any(path.glob("*.py")):
            yield path


def load(path: Path, taken: Collection[str] = (), allowed: bool = True) -> NativeWrapper:
    """
    Load one wrapper.

    :param path: its directory.
    :param taken: names that something else is served as.
    :param allowed: whether code may be loaded at all.
    :returns: the wrapper.
    :raises WrapperFaultError: if it can't be served; what its code raised is in the log.
    """
    name, file = path.name, path / WRAPPER_FILE
    message = _wrong_place(name, file, taken) if allowed else "PIPELINE_WRAPPERS is off, so no code is loaded"
    if message is not None:
        raise WrapperFaultError(Fault(file, 1, message))
    try:
        return NativeWrapper(name, path, load_wrapper(name, path))
    except Exception as error:  # whatever a wrapper's code raises
        fault = _fault(file, error)
        logger.error("%s", fault, exc_info=error)
        raise WrapperFaultError(fault) from error


def _wrong_place(name: str, file: Path, taken: Collection[str]) -> str | None:
    if not file.is_file():
        there = ", ".join(sorted(path.name for path in file.parent.glob("*.py")))
        return f"a directory with Python is a wrapper and needs a file {WRAPPER_FILE}; there is {there}"
    if not _NAME.fullmatch(name):
        return "a wrapper's directory is named with letters, digits, '_' and '-' only"
    if name in RESERVED_NAMES:
        return f"'{name}' is a route of the service; give the directory another name"
    if name in taken:
        return f"there is a mode or pipeline '{name}' already; give the directory another name"
    return None


def _fault(file: Path, error: Exception) -> Fault:
    """Say what went wrong without the text of the wrapper's own error, for anybody may read it, addresses included."""
    if isinstance(error, PipelineModeError):
        return Fault(file, 1, _DURABLE)
    root: BaseException = error
    while root.__cause__ is not None and root.__cause__ is not root:
        root = root.__cause__
    if type(root).__module__.startswith("hayhooks."):
        return Fault(file, 1, str(root))
    place, line = _place(file, root)
    return Fault(place, line, f"loading it raised {type(root).__name__}; the log has the reason")


def _place(file: Path, error: BaseException) -> tuple[Path, int]:
    """Find the innermost line of the wrapper's own code."""
    if isinstance(error, SyntaxError) and error.filename:
        return Path(error.filename), error.lineno or 1
    found, trace = (file, 1), error.__traceback__
    while trace is not None:
        code = Path(trace.tb_frame.f_code.co_filename)
        if code.is_relative_to(file.parent.resolve()):
            found = (code, trace.tb_lineno)
        trace = trace.tb_next
    return found
