"""Finding the wrappers of `PIPELINES_DIR` and loading them one after the other, each fault with its place.

At the same time, as Hayhooks does by default, two that import the same library may break each other.
"""

import logging
import re
import traceback
from collections.abc import Collection, Iterator
from pathlib import Path

from modes.checking import Fault
from modes.kinds import RESERVED_NAMES
from serve.hayhooks_door.library import PipelineModeError, load_wrapper
from serve.hayhooks_door.signatures import SignatureError
from serve.hayhooks_door.wrappers import NativeWrapper

logger = logging.getLogger("thresher.wrapper")

WRAPPER_FILE = "pipeline_wrapper.py"
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_MAX_TOLD = 300
_DURABLE = (
    "implements run_durable, which is not served here; use `run_api`, and jobs (POST /ingest/) for what has to survive"
    " a restart"
)


class WrapperFaultError(Exception):
    """A wrapper can't be served; `fault` says why to anybody, the message to who may read the log."""

    def __init__(self, fault: Fault, told: Fault | None = None) -> None:
        """
        Name the fault.

        :param fault: what is wrong and where.
        :param told: the same with the text of what was raised, which may hold addresses and passwords.
        """
        super().__init__(str(told or fault))
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
    :raises WrapperFaultError: if it can't be served.
    """
    name, file = path.name, path / WRAPPER_FILE
    message = _wrong_place(name, file, taken) if allowed else "PIPELINE_WRAPPERS is off, so no code is loaded"
    if message is not None:
        raise WrapperFaultError(Fault(file, 1, message))
    try:
        return NativeWrapper(name, path, load_wrapper(name, path))
    except (Exception, SystemExit) as error:  # whatever a wrapper's code raises, `sys.exit` included
        logger.debug("%s could not be loaded:\n%s", file, _own_trace(file.parent, _root(error)))
        raise _fault_error(file, error) from error


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


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None and error.__cause__ is not error:
        error = error.__cause__
    return error


def _fault_error(file: Path, error: BaseException) -> WrapperFaultError:
    """Say what went wrong, apart from the text of the wrapper's own error."""
    if isinstance(error, PipelineModeError):
        return WrapperFaultError(Fault(file, 1, _DURABLE))
    root = _root(error)
    if type(root).__module__.startswith("hayhooks."):
        return WrapperFaultError(Fault(file, 1, str(root)))
    place, line = _place(file, root)
    if message := _known(file.parent, root):
        return WrapperFaultError(Fault(place, line, message))
    message, said = f"loading it raised {type(root).__name__}", " ".join(str(root).split())[:_MAX_TOLD]
    fault = Fault(place, line, f"{message}; the log has the reason")
    return WrapperFaultError(fault, Fault(place, line, f"{message}: {said}"))


def _known(directory: Path, error: BaseException) -> str | None:
    """Put what Python itself finds wrong with code into words; it names only what stands in the code."""
    if isinstance(error, SignatureError):
        return str(error)
    if isinstance(error, SyntaxError) and error.filename and _within(directory, error.filename):
        return f"no Python: {error.msg}"
    if not isinstance(error, ImportError | NameError) or not _DOTTED.fullmatch(error.name or ""):
        return None
    if isinstance(error, ModuleNotFoundError):
        return f"there is no module {str(error.name).removeprefix(f'wrapper_{directory.name}')}"
    return f"the name {error.name} is not defined" if isinstance(error, NameError) else None


def _own_trace(directory: Path, error: BaseException) -> str:
    """Leave the frames of Python's imports and of Hayhooks out, which are the same for every wrapper."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if _within(directory, frame.filename)
    ]
    return "".join([*traceback.format_list(frames), *traceback.format_exception_only(error)])


def _within(directory: Path, file: str) -> bool:
    return Path(file).is_relative_to(directory.resolve())


def _place(file: Path, error: BaseException) -> tuple[Path, int]:
    """Find the innermost line of the wrapper's own code."""
    if isinstance(error, SyntaxError) and error.filename:
        return Path(error.filename), error.lineno or 1
    if isinstance(error, SignatureError) and error.code and _within(file.parent, error.code.co_filename):
        return Path(error.code.co_filename), error.code.co_firstlineno
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _within(file.parent, frame.filename)]
    return (Path(own[-1].filename), own[-1].lineno or 1) if own else (file, 1)
