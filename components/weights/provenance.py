"""Which bytes a model file holds, when that was last checked, and whose work it is."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from haystack import logging

from components.weights.catalogue import ModelFile

logger = logging.getLogger(__name__)

LICENCES = Path(__file__).parent / "licences"
CHUNK = 1 << 20


def sha256_of(path: Path, progress: Callable[[int, int], None] | None = None) -> str:
    """
    The SHA-256 of a file, read piece by piece.

    :param path: The file.
    :param progress: Called with the bytes read and the bytes there are.
    :returns: The hash in hex digits.
    """
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as source:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress:
                progress(done, total)
    return digest.hexdigest()


def mark_verified(file: ModelFile, path: Path, mtime_ns: int) -> None:
    """
    Note beside a model file that it was found right, so that the next start need not read all of it.

    :param file: What it was found to be.
    :param path: The model file.
    :param mtime_ns: Its time of change before it was read.
    """
    try:
        _marker(path).write_text(_marker_text(file, mtime_ns))
    except OSError as error:  # A read-only folder costs a hash at each start, nothing else.
        logger.debug("No marker beside {path}: {error}", path=path, error=error)


def is_marked_verified(file: ModelFile, path: Path) -> bool:
    """
    Whether a model file was found right and has not changed since.

    :param file: What it should be.
    :param path: The model file, which must be there.
    :returns: True if its size and its time of change are those of the last check.
    """
    stat = path.stat()
    try:
        return stat.st_size == file.size and _marker(path).read_text() == _marker_text(file, stat.st_mtime_ns)
    except (OSError, UnicodeDecodeError):
        return False


def unmark(path: Path) -> None:
    """
    Forget that a model file was ever found right.

    :param path: The model file.
    """
    _marker(path).unlink(missing_ok=True)


def has_papers(path: Path) -> bool:
    """
    Whether the note about a model file lies beside it.

    :param path: The model file.
    :returns: True if it does.
    """
    return _notice(path).is_file()


def write_papers(file: ModelFile, path: Path, origin: str) -> None:
    """
    Put the licence of a model file beside it, and a note that says whose it is and how it came here.

    :param file: What it is.
    :param path: The model file.
    :param origin: Where the bytes came from, in words.
    """
    licence = f"{file.licence}.txt"
    try:
        shutil.copyfile(LICENCES / licence, path.with_name(f"LICENSE-{licence}"))
        _notice(path).write_text(
            f"{path.name}\n{file.copyright}\n"
            f"Licensed under {file.licence}; the text is in LICENSE-{licence} beside this file.\n\n"
            f"Published at {file.upstream}\nSHA-256 {file.sha256}, checked\nBytes from {origin}\nUnchanged.\n"
        )
    except OSError as error:  # Whoever made the folder read-only answers for its papers.
        logger.debug("No licence beside {path}: {error}", path=path, error=error)


def _notice(path: Path) -> Path:
    return path.with_name(f"{path.name}.NOTICE")


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _marker_text(file: ModelFile, mtime_ns: int) -> str:
    # `sha256sum --check` reads the first line and skips the second.
    return f"{file.sha256}  {file.file_name}\n# found right: size {file.size}, changed at {mtime_ns} ns\n"
