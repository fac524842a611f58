"""An exception in one line for the log: where it was raised, what it is, what it was raised for."""

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_OWN = frozenset({"components", "modes", "registry", "resources", "serve", "settings"})
_MAX_FRAMES = 25
_MAX_CAUSES = 5


def outline(error: BaseException, with_words: bool = True) -> str:
    """
    Tell an exception in one line.

    :param error: the exception.
    :param with_words: whether the messages of libraries' exceptions may be told; they may quote what a caller sent.
        Ours are written for the log.
    :returns: `Traceback: <file>:<line> in <function>, ...; <type>: <message>`, then what it was raised for.
    """
    told = [f"{_places(cause)}; {_named(cause, with_words)}" for cause in _causes(error)]
    return "Traceback: " + "; raised for: ".join(told)


def plainly(error: BaseException) -> str:
    """
    Tell an exception without what others say in its message.

    :param error: the exception.
    :returns: its message if it is one of ours, as far as it is ours; else its type.
    """
    return _words(error, with_words=False) or type(error).__name__


def _named(error: BaseException, with_words: bool) -> str:
    words = _words(error, with_words)
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _words(error: BaseException, with_words: bool) -> str:
    if with_words:
        return str(error)
    if type(error).__module__.partition(".")[0] not in _OWN:
        return ""
    # Behind the colon stand the words of a server, or of a model, which may be those of a document.
    quotes = getattr(error, "told", "") or getattr(error, "quotes", False)
    return str(error).partition(": ")[0] if quotes else str(error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen and len(seen) < _MAX_CAUSES:
        seen.append(cause)
        yield cause
        inner = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        cause = cause.__cause__ or inner or (None if cause.__suppress_context__ else cause.__context__)


def _places(error: BaseException) -> str:
    frames = [
        f"{_short(frame.f_code.co_filename)}:{line} in {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    left_out = ["..."] if len(frames) > _MAX_FRAMES else []
    return ", ".join([*left_out, *frames[-_MAX_FRAMES:]]) or "nowhere"


def _short(file: str) -> str:
    for folder in (str(_ROOT), *sys.path):
        if folder and file.startswith(f"{folder}/"):
            return file[len(folder) + 1 :]
    return file
