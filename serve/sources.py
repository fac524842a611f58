"""Text files from the command line as documents."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.schemas import LONGEST_ID, LONGEST_TITLE

SUFFIXES = (".md", ".markdown", ".rst", ".txt")
_HEADING = re.compile(r"^#\s+(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class SkippedFile:
    """A file that is no document, and why."""

    path: Path
    reason: str


def read_sources(paths: Iterable[Path]) -> tuple[list[dict[str, Any]], list[SkippedFile]]:
    """
    Read files, and the text files below directories.

    :param paths: files and directories.
    :returns: documents with `id`, `text`, `title` (the first heading of Markdown, else the file's name) and `meta`,
        and the files that are no documents, with the reason. The id of a file is its path below the working
        directory, else its absolute path; that of a file in a directory is the directory's name and the path below.
    """
    documents: list[dict[str, Any]] = []
    skipped: list[SkippedFile] = []
    named: dict[str, Path] = {}
    for path, name in _files(paths):
        first = named.setdefault(name, path)
        if first is not path:
            # The same file named twice is no mistake.
            if first.resolve() != path.resolve():
                skipped.append(SkippedFile(path, f"has the same name as {first}: '{name}'"))
            continue
        text, fault = _read(path, name)
        if fault:
            skipped.append(SkippedFile(path, fault))
        else:
            documents.append(
                {"id": name, "text": text, "title": _title(path, text), "meta": {"source": name}}
            )
    return documents, skipped


def _read(path: Path, name: str) -> tuple[str, str]:
    """Give the text of a file, or why it is no document."""
    try:
        name.encode("utf-8")
        text = path.read_text("utf-8-sig")
    except UnicodeEncodeError:
        return "", "its name is not UTF-8"
    except UnicodeDecodeError as error:
        return "", f"not UTF-8 text (byte {error.start})"
    except OSError as error:
        return "", error.strerror or str(error)
    if path.suffix.lower() not in SUFFIXES:
        return "", f"not a text file; these are read: {', '.join(SUFFIXES)}"
    if not text.strip():
        return "", "no text in it"
    if len(name) > LONGEST_ID:
        return "", f"its path has more than {LONGEST_ID} characters"
    return text, ""


def _files(paths: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    for path in paths:
        if path.is_dir():
            root = path.resolve()
            for file in sorted(root.rglob("*")):
                if file.is_file() and file.suffix.lower() in SUFFIXES:
                    yield file, f"{root.name}/{file.relative_to(root).as_posix()}"
        else:
            yield path, _path_below_here(path)


def _path_below_here(path: Path) -> str:
    whole, here = Path(os.path.abspath(path)), Path.cwd()
    return (whole.relative_to(here) if whole.is_relative_to(here) else whole).as_posix()


def _title(path: Path, text: str) -> str:
    heading = _HEADING.search(text) if path.suffix.lower() in (".md", ".markdown") else None
    return (heading.group(1).strip() if heading else path.name)[:LONGEST_TITLE]
